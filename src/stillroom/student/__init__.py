"""Students: open a base model, train it on chat rows, serve it, hand it over.

    script           all of it in two calls, without a server

    training/        `launch`, `run` and `measure` are processes: a training job, and its first steps, taken to say how
                     long it will be. `loop` says which step follows which, `trainer` makes one, `learning` knows what
                     each method makes of it; `computation` cuts it into passes, laid out by `packing` as a `tree`, with
                     `targets`, on which `attention` and `objective` compute one of the `losses`
    serving/         `host` is a process: students behind a chat API, on the batches and caches of `engine`, once
                     `proving` has found each to be the one that was trained
    exporting/       `export` is a process: a model folder as safetensors, adapter or GGUF

    records/         where a run's figures go, and the report made of them
    bases/           what a student is made from and saved as: `base_models` opens, `adapters`, `precision`,
                     `checkpoint` writes and reads model folders, `identity` knows what a model said when it was trained
    chats/           `template` is messages <-> token ids and loss mask, the same for training and serving; `labels` puts
                     what a teacher held likely on the student's tokens
    hyperparameters  a job's wishes, its base -> every number, and why; with `manifest` and `events`, all without torch

A room imports only those below it. Needs torch, transformers, peft, accelerate, safetensors and tokenizers (`host` also
aiohttp, `export` gguf) and, of stillroom, `errors` and `logprobs` alone. Knows no database, no jobs, no public HTTP.
"""

import logging
import os

# OpenMP's threads spin while they wait, and on a machine whose cores are busy two of them make a step ten
# times slower than one. libgomp reads this once, when torch loads it; whoever sets it himself wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NO_ALARM = "Failed to load CPU gemm_4bit_forward"


def _is_alarm(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(NO_ALARM)


# bitsandbytes says on import, which peft does, that it goes without a kernel that is faster at 4 bits on some CPUs:
# to those who asked for no 4 bits it looks like a broken installation.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_alarm)
