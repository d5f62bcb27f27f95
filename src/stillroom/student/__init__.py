"""Students: open a base model, train it on chat rows, serve the result.

    base_models  a name, folder or hub id            -> model, tokenizer, template
    template     messages                           <-> token ids and loss mask
    examples     a JSONL file                        -> encoded examples
    packing      examples                            -> padded batches in a fixed order
    losses       model, batch                        -> loss, accuracy
    loop         everything above                    -> checkpoints and events
    checkpoint   model artefacts and resume states on disk
    engine       token level generation in one thread
    run, host    two child processes: a training job, a student's chat HTTP
    measure      a third: a training job's first steps, taken to say how long it will be

Needs torch, transformers, peft, safetensors and tokenizers (`host` also aiohttp) and, of stillroom,
`errors` alone. Knows no database, no jobs, no public HTTP.
"""

import os

# OpenMP's threads spin while they wait, and on a machine whose cores are busy two of them make a step ten
# times slower than one. libgomp reads this once, when torch loads it; whoever sets it himself wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
