"""What a model was trained on: the prompts of its training files, known by their digests.

A prompt is what stands before an assistant's turn. A fine-tune of a fine-tune was also trained on
what its ancestors were. Digests outlive the training file, and find a prompt again wherever it
comes from: the same question stored twice is not held out when one of the two was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stillroom import catalog
from stillroom.datasets.check import plain
from stillroom.errors import NotFound
from stillroom.store.blobs import Blobs
from stillroom.store.database import Database

DIGEST_BYTES = 16
SAID = ("content", "tool_calls", "function_call", "tool_call_id", "name")


class Lineage:
    """The digests of every job's training file."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    def record(self, project: int, job_id: str, model: str, training_file: Path) -> None:
        """Keeps what the job trains `model` on, and what that was trained on before. Does nothing when it
        is kept already, or when nobody knows what the model was trained on."""
        before = self.trained_on(project, model)
        if before is not None and self.of_job(job_id) is None:
            self._blobs.write(_blob(job_id), sorted(before | _digests(training_file)))

    def trained_on(self, project: int, model: str) -> frozenset[bytes] | None:
        """The digests of every prompt that the model or deployment was trained on; empty for one that was not
        trained here. None when it was, but before digests were kept."""
        with self._database.read() as connection:
            _, tuned = catalog.look_up(connection, project, model)
        return frozenset() if tuned is None else self.of_job(tuned.job)

    def of_job(self, job_id: str) -> frozenset[bytes] | None:
        """As `trained_on`, for the model that a job makes."""
        try:
            data = self._blobs.path(_blob(job_id)).read_bytes()
        except NotFound:
            return None
        return frozenset(data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES))


def digest(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """What a prompt is known by: who said what, whatever the spelling of the JSON."""
    said = [(message.get("role"), [plain(message.get(name)) for name in SAID]) for message in messages]
    text = msgspec.json.encode(said, order="sorted")
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def _digests(training_file: Path) -> set[bytes]:
    with training_file.open("rb") as lines:
        return {found for line in lines if line.strip() for found in _prompts(line)}


def _prompts(line: bytes) -> Iterator[bytes]:
    row = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
    if "input" in row:  # a preference pair
        yield digest(row["input"]["messages"])
        return
    messages = row["messages"]
    for turn, message in enumerate(messages):
        if message.get("role") == "assistant" and message.get("weight") != 0:
            yield digest(messages[:turn])


def _blob(job_id: str) -> str:
    return f"lineage/{job_id}"
