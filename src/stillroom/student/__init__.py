"""Students: open a base model, train it on chat rows, serve the result.

    hyperparameters  a job's wishes, its base        -> every number, and why
    base_models  a name, folder or hub id            -> model, tokenizer, template
    precision    a device, a setting                 -> in which numbers a base is held and computed
    adapters     a model                             -> the same with LoRA beside its weights
    template     messages                           <-> token ids and loss mask
    examples     a JSONL file                        -> encoded examples
    packing      examples                            -> padded batches in a fixed order
    losses       model, batch                        -> loss, accuracy
    loop         everything above                    -> checkpoints and events
    processes    a step                              -> parts of it, and what they found added up (launch starts them)
    fsdp         a model                             -> shards of it, one in each process
    record       a step's figures                    -> metrics.csv, TensorBoard's file, W&B
    story        a run's events                      -> a folder one can read, with a report
    checkpoint   model artefacts on disk
    resume       states of a run to go on from
    identity     a model                             -> what it says to 32 conversations; whether another says the same
    engine       token level generation in one thread
    proving      a student                           -> served, once it has said the same
    export       an artefact                         -> safetensors, adapter or GGUF (gguf, gguf_tokenizer)
    run, host    two child processes: a training job, a student's chat HTTP
    measure      a third: a training job's first steps, taken to say how long it will be

Needs torch, transformers, peft, safetensors and tokenizers (`host` also aiohttp, `export` gguf) and, of stillroom,
`errors` alone. Knows no database, no jobs, no public HTTP.
"""

import os

# OpenMP's threads spin while they wait, and on a machine whose cores are busy two of them make a step ten
# times slower than one. libgomp reads this once, when torch loads it; whoever sets it himself wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
