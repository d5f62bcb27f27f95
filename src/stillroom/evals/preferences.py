"""Preference pairs out of eval runs: the teacher's stored answer over what a student answered instead.

Only items made of stored completions have a teacher's answer to prefer. A run's items are read twice, once to see
which of them make a pair, and once to write those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from stillroom.datasets.preferences import TOOLS, Found, conversation_of, is_prefilled, pair, told, what
from stillroom.evals.owner import Evals
from stillroom.evals.table import Outcome, OutputItem, Run

CONDITIONS = ("model", "metadata", "created_after", "created_before", "search", "up_to")


def of_runs(evals: Evals, runs: Sequence[Run], *, failed_only: bool = False) -> Found:
    """Pairs of the items that a run's model answered otherwise than its teacher; `failed_only` leaves out those that
    passed the graders all the same."""
    skipped: Counter[str] = Counter()
    models: Counter[str] = Counter()
    pairs: dict[bytes, list[tuple[str, int]]] = {}
    wrong: set[tuple[bytes, bytes]] = set()
    for run in runs:
        for found in evals.walk(run):
            reason = _why_not(found, failed_only)
            if reason is None:
                conversation = _conversation(found)
                answer = (conversation, what(_answer(found)))
                if answer not in wrong:
                    wrong.add(answer)
                    pairs.setdefault(conversation, []).append((run.id, found.item))
                    models[found.body["reference"]["model"]] += 1
                    continue
                reason = "repeated"
            skipped[reason] += 1
    return Found(
        pairs=pairs,
        rows=lambda keys: _rows(evals, runs, keys),
        skipped=skipped,
        told=told(_conditions(runs), models),
    )


def _why_not(found: OutputItem, failed_only: bool) -> str | None:
    """Why the item makes no pair; None when it does."""
    body = found.body
    if not body.get("reference"):
        return "no_reference" if body["sample"].get("error") is None else "unanswered"
    if not body["sample"]["output"]:
        return "unanswered"
    if is_prefilled(body["item"]["input"]):
        return "prefilled"
    if body.get("agrees") or what(_answer(found)) == what(body["reference"]["message"]):
        return "agrees"
    return "passed" if failed_only and found.outcome is not Outcome.FAIL else None


def _answer(found: OutputItem) -> dict[str, Any]:
    """What the run's model said."""
    answer: dict[str, Any] = found.body["sample"]["output"][0]
    return answer


def _conversation(found: OutputItem) -> bytes:
    return conversation_of(found.body["item"]["input"], found.body["item"].get("tools"))


def _rows(evals: Evals, runs: Sequence[Run], keys: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    wanted = set(keys)
    for run in runs:
        for found in evals.walk(run):
            if (run.id, found.item) in wanted:
                item = found.body["item"]
                tools = {name: item[name] for name in TOOLS if item.get(name) is not None}
                yield pair(item["input"], tools, found.body["reference"]["message"], _answer(found))


def _conditions(runs: Sequence[Run]) -> dict[str, Any]:
    """Which stored completions the first run asked about."""
    source = runs[0].data_source.get("source") or {}
    return {**{name: source.get(name) for name in CONDITIONS}, "metadata": source.get("metadata") or {}}
