"""What a run has done, in a folder that people can read: DATA/distillations/NAME.

    run.json       which run this is, and how far it is
    rows.jsonl     the rows as they were read, one a line
    labels.jsonl   what the teacher said to each, added line by line; a row asked again has several, and the last counts
    failed.jsonl   the rows without an answer, and why
    training.jsonl, validation.jsonl   what the student is trained on

A run that was killed reads it and goes on. A line that was cut in half is no line. What an answer cost stands in its
line, so that no sum is ever kept twice.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from stillroom import ids
from stillroom.distillation.problems import DistillationFailed
from stillroom.distillation.rows import Row, of_json
from stillroom.distillation.said import Said

FOLDER = "distillations"
RUN, ROWS, LABELS, FAILED, LOCK = "run.json", "rows.jsonl", "labels.jsonl", "failed.jsonl", "lock"


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of asking for one row once. `failed` says why there is no answer."""

    row: str
    said: tuple[Said, ...] = ()
    failed: str | None = None
    status: int | None = None
    rejected: dict[str, Any] | None = None
    """What the student itself says, for a pair with the teacher's answer."""
    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_picousd: int = 0
    misread: tuple[str, ...] = ()
    """The questions of which no reply was understood: they are to be answered otherwise."""


class State(msgspec.Struct, kw_only=True):
    """How far the run is. `asks` and `makes` say what its labels and its model were asked for as."""

    run: str
    file: str
    began_at: int = 0
    asks: str
    makes: str = ""
    worker: str | None = None
    """Who trains its student, by the name under which jobs are claimed."""
    outcome: dict[str, Any] | None = None


class Journal:
    """One run's folder, locked while it is open. Use as a context manager."""

    def __init__(self, data: Path, name: str) -> None:
        self.folder = data / FOLDER / name
        self._lock: IO[str] | None = None
        self._labels: IO[bytes] | None = None
        self.state = State(run="", file="", asks="")
        self.rows: list[Row] = []
        self.labels: dict[str, Label] = {}
        """By row, the newest."""
        self.failing: set[str] = set()
        """The rows whose newest label is none."""
        self.misread: Counter[tuple[str, str]] = Counter()
        """By row and question: how often no reply to it was understood."""
        self.calls = self.prompt_tokens = self.completion_tokens = self.cost_picousd = 0

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        if (self.folder / RUN).exists():
            self.state = msgspec.json.decode((self.folder / RUN).read_bytes(), type=State)
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._labels, self._lock):
            if file is not None:
                file.close()
        self._labels = self._lock = None
        if self.is_new:  # nothing came of it: what was asked for is wrong
            with suppress(OSError):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()

    @property
    def is_new(self) -> bool:
        return not self.state.run

    def begin(self, file: str, asks: str, rows: Iterable[Row]) -> None:
        """A new run of these rows."""
        (self.folder / LABELS).unlink(missing_ok=True)
        self._write(ROWS, b"".join(row.as_json() + b"\n" for row in rows))
        self.state = State(run=ids.random_id(""), file=file, began_at=int(time.time()), asks=asks)
        self.save()  # last: without it there is no run

    def set_away(self) -> Path:
        """Puts the run that is here beside, and makes room for another; gives where it went."""
        number = 1
        while (away := self.folder.with_name(f"{self.folder.name}.before-{number}")).exists():
            number += 1
        away.mkdir(mode=0o700)
        # What says that there is a run goes first: without it, what else lies here belongs to none.
        for path in (self.folder / RUN, *self.folder.iterdir()):
            if path.name != LOCK and path.exists():
                path.rename(away / path.name)
        self.state = State(run="", file="", asks="")
        return away

    def find(self, asks: str) -> Path | None:
        """A run that was set away and asked for just this, the newest."""
        beside = self.folder.parent.glob(f"{self.folder.name}.before-*/{RUN}")
        for path in sorted(beside, key=lambda path: path.stat().st_mtime, reverse=True):
            with suppress(msgspec.MsgspecError, OSError):
                state = msgspec.json.decode(path.read_bytes(), type=State)
                if state.asks == asks and path.with_name(ROWS).exists():
                    return path.parent
        return None

    def take_back(self, away: Path) -> None:
        """Makes a run that was set away this one again; there is none here now."""
        for path in sorted(away.iterdir(), key=lambda path: path.name == RUN):  # last: without it there is no run
            path.replace(self.folder / path.name)
        away.rmdir()
        self.state = msgspec.json.decode((self.folder / RUN).read_bytes(), type=State)

    def load(self) -> None:
        """Reads the rows, and what has been answered of them."""
        self.rows = [of_json(line) for line in (self.folder / ROWS).read_bytes().splitlines()]
        path = self.folder / LABELS
        path.touch()
        whole = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # killed while it was written: its answer is kept elsewhere, and found by its name
                whole += len(line)
                self._count(msgspec.json.decode(line, type=Label))
        self._labels = path.open("ab")
        self._labels.truncate(whole)

    def add(self, label: Label) -> None:
        """What was said of a row, there from now on even if we are killed."""
        assert self._labels is not None
        self._labels.write(msgspec.json.encode(label) + b"\n")
        self._labels.flush()
        self._count(label)

    def save(self) -> None:
        self._write(RUN, msgspec.json.format(msgspec.json.encode(self.state), indent=2) + b"\n")

    def failed(self, part: str | None = None) -> list[Label]:
        """The rows whose newest answer is none, in order."""
        found = (self.labels.get(row.name) for row in self.rows if part in (None, row.part))
        return [label for label in found if label is not None and label.failed is not None]

    def success_ratio(self, part: str) -> float:
        """The share of the part's rows that have an answer."""
        rows = sum(row.part == part for row in self.rows)
        return share(rows - len(self.failed(part)), rows)

    def waiting(self, *, retry_failed: bool) -> list[Row]:
        """The rows that are still to be asked for, in order."""
        return [row for row in self.rows if self._is_waiting(self.labels.get(row.name), retry_failed)]

    def write_failed(self) -> Path:
        """Lists the rows without an answer, with their text, for whoever looks into it."""
        texts = {row.name: row.messages for row in self.rows}
        lines = [
            {"row": label.row, "reason": label.failed, "status": label.status, "messages": texts[label.row]}
            for label in self.failed()
        ]
        self._write(FAILED, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return self.folder / FAILED

    def write_rows(self, name: str, rows: Iterable[dict[str, Any]]) -> bytes:
        """A file to train on; gives its bytes."""
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        self._write(name, data)
        return data

    @staticmethod
    def _is_waiting(label: Label | None, retry_failed: bool) -> bool:
        return label is None or (retry_failed and label.failed is not None)

    def _count(self, label: Label) -> None:
        self.labels[label.row] = label
        (self.failing.discard if label.failed is None else self.failing.add)(label.row)
        self.misread.update((label.row, what) for what in label.misread)
        self.calls += label.calls
        self.prompt_tokens += label.prompt_tokens
        self.completion_tokens += label.completion_tokens
        self.cost_picousd += label.cost_picousd

    def _write(self, name: str, data: bytes) -> None:
        """All of it or nothing."""
        draft = self.folder / f".{name}.part"
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.folder / name)

    def _take_lock(self) -> None:
        self._lock = (self.folder / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise DistillationFailed(
                f"{self.folder.name} is being run by another process. Wait for it, or give this one another `name`.",
                param="name",
            ) from None


def share(some: int, of_all: int) -> float:
    """As one division of whole numbers: nine of ten are 0.9, as a file spells it."""
    return some / of_all if of_all else 1.0
