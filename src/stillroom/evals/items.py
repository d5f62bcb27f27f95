"""A run's items, written down once before the run begins, so that a run that goes on sees the same.

One JSON line each: `item`, and `sample` where there is an answer already. An item made of a stored
completion has `input` (the messages), `output_text`, `output` and what else was stored of it; the
same line keeps the teacher's side of the comparison in `reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stillroom import chat, ids
from stillroom.completions import table
from stillroom.datasets.files import Files
from stillroom.datasets.lineage import Lineage, digest
from stillroom.datasets.selection import example
from stillroom.errors import InvalidRequest, StillroomError
from stillroom.evals.order import FileContent, FileId, RunOrder, StoredCompletions, held_out_jobs
from stillroom.evals.prompt import REPEATED
from stillroom.evals.table import Run
from stillroom.evals.usage import tokens
from stillroom.graders.subject import sample_of_completion
from stillroom.store.database import Database

BOM = b"\xef\xbb\xbf"


class NoItems(StillroomError):
    """The run's data source gives nothing to grade."""

    code = "no_items"


@dataclass(frozen=True, kw_only=True)
class Laid:
    """How many items there are, and what is known of them and the model's training.

    `tuned`: the model was trained here. `trained_on` counts items whose prompt it was trained on, None when
    nobody knows; `left_out` those that were held out from; `unusable` stored completions without a whole answer.
    """

    total: int
    tuned: bool = False
    trained_on: int | None = 0
    left_out: int = 0
    unusable: int = 0


class Items:
    """Lays out the items of runs."""

    def __init__(self, database: Database, files: Files, lineage: Lineage) -> None:
        self._database = database
        self._files = files
        self._lineage = lineage

    def lay_out(self, run: Run, order: RunOrder, config: dict[str, Any], path: Path) -> Laid:
        """Writes the run's items to the path. Raises NoItems when there are none."""
        draft = path.with_suffix(".part")
        with draft.open("wb") as lines:
            if isinstance(order.source, StoredCompletions):
                laid = self._stored(run, order.source, config, lines)
            else:
                laid = Laid(total=self._given(run, order, lines))
        if laid.total == 0:
            draft.unlink()
            raise NoItems(_why_none(order, laid))
        draft.rename(path)
        return laid

    def _given(self, run: Run, order: RunOrder, lines: Any) -> int:
        count = 0
        rows = order.source.content if isinstance(order.source, FileContent) else self._rows(run.project, order)
        for row in rows:
            lines.write(msgspec.json.encode(row) + b"\n")
            count += 1
        return count

    def _rows(self, project: int, order: RunOrder) -> Iterator[dict[str, Any]]:
        assert isinstance(order.source, FileId)
        return read_file(self._files.path(project, order.source.id))

    def _stored(self, run: Run, source: StoredCompletions, config: dict[str, Any], lines: Any) -> Laid:
        avoided = self._trained_on(held_out_jobs(source))
        known = self._lineage.trained_on(run.project, run.model) if run.model else frozenset()
        total = left_out = unusable = seen = 0
        for stored in self._matching(run.project, source, config):
            prompt = digest(stored.request["messages"])
            if example(stored) is None:
                unusable += 1
            elif prompt in avoided:
                left_out += 1
            else:
                lines.write(msgspec.json.encode(_item(stored)) + b"\n")
                total += 1
                seen += known is not None and prompt in known
                if source.limit is not None and total == source.limit:
                    break
        return Laid(
            total=total,
            tuned=known is None or bool(known),
            trained_on=None if known is None else seen,
            left_out=left_out,
            unusable=unusable,
        )

    def _trained_on(self, jobs: tuple[str, ...]) -> frozenset[bytes]:
        found: set[bytes] = set()
        for job in jobs:
            digests = self._lineage.of_job(job)
            if digests is None:
                raise NoItems(
                    f"What {job} was trained on is not known any more: it ran before stillroom kept that.",
                    param="data_source.source.held_out_from",
                )
            found |= digests
        return frozenset(found)

    def _matching(
        self, project: int, source: StoredCompletions, config: dict[str, Any]
    ) -> Iterator[table.StoredCompletion]:
        chosen = table.Filter(
            model=source.model,
            metadata={**(config.get("metadata") or {}), **(source.metadata or {})},
            status=table.Status.COMPLETED,
            created_after=source.created_after,
            created_before=source.created_before,
            search=source.search,
            up_to=None if source.up_to is None else ids.completion_number(source.up_to),
        )
        with self._database.read() as connection:
            # The newest when there is a limit; else as they came.
            yield from table.walk(connection, project, chosen, descending=source.limit is not None)


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an uploaded file of items. Raises InvalidRequest naming the line that is none."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(BOM).strip()
            if text:
                yield _row(text, number)


def check_file(path: Path) -> None:
    """Raises InvalidRequest when the file cannot be drawn from."""
    if sum(1 for _ in read_file(path)) == 0:  # every line is read
        raise InvalidRequest("The file has no items.", param="data_source.source.id")


def _row(text: bytes, number: int) -> dict[str, Any]:
    row = _decoded(text)
    if not isinstance(row, dict) or not isinstance(row.get("item"), dict):
        raise InvalidRequest(
            f'Line {number} of the file is not an item: expected a JSON object like {{"item": {{...}}}}.',
            param="data_source.source.id",
        )
    if not isinstance(row.get("sample"), (dict, type(None))):
        raise InvalidRequest(f"Line {number} of the file: 'sample' must be an object.", param="data_source.source.id")
    return {"item": row["item"], "sample": row.get("sample")}


def _decoded(text: bytes) -> Any:
    try:
        return chat.decode(text)
    except InvalidRequest:
        return None


def _item(stored: table.StoredCompletion) -> dict[str, Any]:
    sample = sample_of_completion(stored.response)
    message = stored.response["choices"][0]["message"]
    item = {
        "input": stored.request["messages"],
        "output_text": sample["output_text"],
        "output_tools": sample["output_tools"],
        "output": [message],
        "id": ids.completion_id(stored.number),
        "model": stored.model,
        "created_at": stored.created_at,
        "metadata": stored.metadata,
        **{name: stored.request[name] for name in REPEATED if stored.request.get(name) is not None},
    }
    reference = {
        "message": message,
        "model": stored.model,
        "latency_ms": stored.latency_ms,
        "usage": tokens(stored.response),
    }
    return {"item": item, "sample": sample, "reference": reference}


def _why_none(order: RunOrder, laid: Laid) -> str:
    if not isinstance(order.source, StoredCompletions):
        return "The data source has no items."
    if laid.left_out:
        return (
            f"All {laid.left_out} stored completions that match were trained on, so none is held out. Store more, or "
            "hold some out from training (`stillroom distill --validation 0.1`)."
        )
    if laid.unusable:
        return f"None of the {laid.unusable} stored completions that match has an answer that can be compared."
    return "No stored completion matches the data source's filters."
