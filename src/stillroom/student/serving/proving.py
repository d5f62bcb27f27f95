"""Before a student is served: it is opened, asked what its trainer's model was asked, and held to the answers.

What is asked is the engine itself, whose batches and caches everybody's requests go through. Owns the order of
things at attaching; what counts as the same is `identity`'s to say.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stillroom.student.bases.base_models import Student
from stillroom.student.bases.identity import (
    HEARD,
    NEW_TOKENS,
    Agreement,
    Identity,
    Prediction,
    arithmetic_of,
    compare,
    questions,
    read_identity,
)
from stillroom.student.serving.engine import Engine, GenerateRequest
from stillroom.student.serving.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Proof:
    """That a student says what it said when it was trained."""

    agreement: Agreement | None
    """None: its folder does not tell what it said. It was written before folders did, or not by us."""
    seconds: float


async def attach_proven(engine: Engine, name: str, student: Student, folder: Path) -> Proof:
    """Attaches the student that was opened from the folder; raises StudentDiffers, and nothing is attached, if
    it is not the one that was trained."""
    began = time.monotonic()
    identity = await asyncio.to_thread(read_identity, folder)
    agreement = None if identity is None else await _proven(engine, name, student, identity)
    engine.attach_student(name, student)
    return Proof(agreement=agreement, seconds=time.monotonic() - began)


async def _proven(engine: Engine, name: str, student: Student, identity: Identity) -> Agreement:
    form = f"The student {name}"
    prompts = await asyncio.to_thread(partial(questions, identity, student.template, form=form))
    # Under a name that nobody can call: an older student of the same name answers meanwhile.
    probe = f"{name} {secrets.token_hex(8)}"
    engine.attach_student(probe, student)
    try:
        heard = await asyncio.gather(*(_predictions(engine, probe, prompt) for prompt in prompts))
    finally:
        await engine.detach(probe)
    return compare(identity, heard, arithmetic=arithmetic_of(student.model), form=form)


async def _predictions(engine: Engine, name: str, prompt: list[int]) -> list[Prediction]:
    greedy = Sampling(temperature=0, top_logprobs=HEARD)
    request = GenerateRequest(model=name, prompt_ids=prompt, max_tokens=NEW_TOKENS, sampling=greedy)
    async with aclosing(engine.generate(request)) as events:
        return [event.top async for event in events]
