"""Preference pairs: a better and a worse answer to the same conversation -> a training file for the method `dpo`.

Pairs are found (`Found`) and then written. Here they are found among stored completions, where two filters say which
answers are better and which worse: those of two models, or those that people marked. Evals find theirs in
`evals/preferences.py`. The rows are OpenAI's, in an ordinary file.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection

from stillroom import ids
from stillroom.completions import table
from stillroom.datasets.check import said
from stillroom.datasets.files import File, Files
from stillroom.datasets.lineage import DIGEST_BYTES, digest
from stillroom.datasets.selection import CUT_SHORT, MINIMUM, example
from stillroom.errors import InvalidRequest
from stillroom.store.database import Database

PREFERENCE = "preference"
PREFERRED, REJECTED = "preferred", "rejected"
"""The metadata by which a person's choice is known: `preference=preferred`, `preference=rejected`."""
ANSWER = ("content", "refusal", "tool_calls", "function_call")
TOOLS: tuple[str, ...] = ("tools", "parallel_tool_calls")
FEW = 100
CHUNK = 100  # pairs read at a time
WHY = {
    "incomplete": "were incomplete",
    "empty": "had neither text nor calls",
    "cut_short": "were cut short and cannot be the better answer",
    "functions": "had `functions`, which pairs cannot have",
    "prefilled": "were asked with the beginning of their answer, which pairs cannot have",
    "same_answer": "said the same as the better answer",
    "no_counterpart": "had no counterpart in the same conversation",
    "unanswered": "were not answered",
    "no_reference": "have no stored answer beside them",
    "agrees": "were answered as the teacher did",
    "passed": "passed their graders",
    "repeated": "had the same wrong answer as another",
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pairs there are: by conversation, keys that `rows` makes the rows of. `skipped` counts, by a reason of
    `WHY`, what was looked at and left out; `told` is what the file remembers of where it comes from."""

    pairs: Mapping[bytes, Sequence[Any]]
    rows: Callable[[Sequence[Any]], Iterator[dict[str, Any]]] = field(repr=False)
    skipped: Mapping[str, int]
    told: Mapping[str, Any]

    @property
    def count(self) -> int:
        return sum(map(len, self.pairs.values()))


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """What was made of pairs that were found."""

    training_file: File
    validation_file: File | None
    pairs: int
    validation_pairs: int
    warnings: list[str]


def of_stored(database: Database, project: int, preferred: table.Filter, rejected: table.Filter) -> Found:
    """Pairs of stored answers, one of each filter, to the same conversation. Of several to one conversation, the
    newest is paired with the newest, the next with the next; none is in two pairs."""
    skipped: Counter[str] = Counter()
    with database.read() as connection:
        better = _answers(connection, project, preferred, skipped, CUT_SHORT)
        worse = _answers(connection, project, rejected, skipped, ())
    pairs: dict[bytes, list[tuple[int, int]]] = {}
    models: Counter[str] = Counter()
    for conversation, ours in better.items():
        theirs = worse.pop(conversation, {})
        newest = sorted(ours, key=ours.__getitem__, reverse=True)
        others = sorted((answer for what, answer in theirs.items() if what not in ours), reverse=True)
        found = [(ours[best], worst) for best, worst in zip(newest, others, strict=False)]
        skipped["same_answer"] += len(theirs) - len(others)
        # A better answer whose equal is counted there had a counterpart.
        alone = [what for what in newest[len(found) :] if what not in theirs]
        skipped["no_counterpart"] += len(alone) + len(others) - len(found)
        models.update(model for (_, model), _ in found)
        if found:
            pairs[conversation] = [(best[0], worst[0]) for best, worst in found]
    skipped["no_counterpart"] += sum(map(len, worse.values()))
    return Found(
        pairs=pairs,
        rows=lambda keys: _rows(database, keys),
        skipped=+skipped,
        told=told(_conditions(preferred), models),
    )


def write(
    files: Files,
    project: int,
    found: Found,
    *,
    validation_fraction: float = 0.0,
    seed: int = 0,
    filename: str | None = None,
) -> Preferences:
    """Writes the pairs to a training file and, by `seed`, those of a fraction of the conversations to a validation
    file instead. Raises InvalidRequest when fewer than 10 would be trained on."""
    held_out = set(random.Random(seed).sample(list(found.pairs), round(len(found.pairs) * validation_fraction)))
    training = [key for conversation, keys in found.pairs.items() if conversation not in held_out for key in keys]
    validation = [key for conversation in found.pairs if conversation in held_out for key in found.pairs[conversation]]
    if len(training) < MINIMUM:
        raise InvalidRequest(_too_few(found, len(training)), param="preferred", code="invalid_n_examples")
    stem = (filename or "preferences").removesuffix(".jsonl")
    made = _write(files, project, f"{stem}.jsonl", found, training)
    beside = _write(files, project, f"{stem}-validation.jsonl", found, validation) if validation else None
    few = f"{len(training)} pairs are few; hundreds make a difference that is seen."
    return Preferences(
        training_file=made,
        validation_file=beside,
        pairs=made.examples or 0,
        validation_pairs=(beside.examples or 0) if beside else 0,
        warnings=[few] if len(training) < FEW else [],
    )


def pair(
    messages: Sequence[Mapping[str, Any]],
    tools: Mapping[str, Any],
    better: Mapping[str, Any],
    worse: Mapping[str, Any],
) -> dict[str, Any]:
    """A row. `tools`: the fields that a conversation has besides its messages."""
    return {
        "input": {"messages": list(messages), **tools},
        "preferred_output": [_answer(better)],
        "non_preferred_output": [_answer(worse)],
    }


def is_prefilled(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation ends with the beginning of its answer."""
    return bool(messages) and messages[-1].get("role") == "assistant"


def conversation_of(messages: Sequence[Mapping[str, Any]], tools: Any) -> bytes:
    """What a conversation before its answer is known by."""
    known = digest(messages) + msgspec.json.encode(tools or None, order="sorted")
    return hashlib.blake2b(known, digest_size=DIGEST_BYTES).digest()


def what(message: Mapping[str, Any]) -> bytes:
    """What an answer is known by; space around it makes no difference."""
    text, *rest = said(message)
    known = [text.strip() if isinstance(text, str) else text, *rest]
    return hashlib.blake2b(msgspec.json.encode(known, order="sorted"), digest_size=DIGEST_BYTES).digest()


def told(conditions: Mapping[str, Any], models: Mapping[str, int]) -> dict[str, Any]:
    """What a file of pairs remembers: which stored completions the better answers are, and whose."""
    return {"filter": dict(conditions), "models": dict(models), "preferences": True}


def _answers(
    connection: Connection, project: int, chosen: table.Filter, skipped: Counter[str], unfit: Sequence[str]
) -> dict[bytes, dict[bytes, tuple[int, str]]]:
    """The matching answers, by conversation and by what they say: the newest number of each, and who gave it. Those
    whose finish_reason is `unfit` are skipped."""
    found: dict[bytes, dict[bytes, tuple[int, str]]] = {}
    for stored in table.walk(connection, project, chosen):
        row = example(stored)
        if stored.status is not table.Status.COMPLETED:
            skipped["incomplete"] += 1
        elif row is None:
            skipped["empty"] += 1
        elif "functions" in row:
            skipped["functions"] += 1
        elif stored.response["choices"][0].get("finish_reason") in unfit:
            skipped["cut_short"] += 1
        elif is_prefilled(row["messages"][:-1]):
            skipped["prefilled"] += 1
        else:
            *messages, answer = row["messages"]
            answers = found.setdefault(conversation_of(messages, row.get("tools")), {})
            answers[what(answer)] = (stored.number, stored.model)
    return found


def _rows(database: Database, keys: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        with database.read() as connection:
            wanted = [number for numbers in part for number in numbers]
            examples = {each.number: example(each) for each in table.by_numbers(connection, wanted)}
        for better, worse in part:
            ours, theirs = examples.get(better), examples.get(worse)
            if ours is not None and theirs is not None:  # else it was deleted meanwhile
                *messages, answer = ours["messages"]
                tools = {name: ours[name] for name in TOOLS if name in ours}
                yield pair(messages, tools, answer, theirs["messages"][-1])


def _answer(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", **{name: message[name] for name in ANSWER if message.get(name) is not None}}


def _conditions(chosen: table.Filter) -> dict[str, Any]:
    return {
        "model": chosen.model,
        "metadata": dict(chosen.metadata),
        "created_after": chosen.created_after,
        "created_before": chosen.created_before,
        "search": chosen.search,
        "up_to": None if chosen.up_to is None else ids.completion_id(chosen.up_to),
    }


def _write(files: Files, project: int, name: str, found: Found, keys: Sequence[Any]) -> File:
    lines = (msgspec.json.encode(row) + b"\n" for row in found.rows(keys))
    return files.create(project, name, "fine-tune", lines, selection=found.told)


def _too_few(found: Found, training: int) -> str:
    split = f"; the split leaves {training} of them to train on" if training != found.count else ""
    left_out = "".join(f" {count} {WHY[reason]}." for reason, count in found.skipped.items())
    because = f" Of what was looked at:{left_out}" if left_out else " Nothing matches."
    pairs = "1 preference pair" if found.count == 1 else f"{found.count} preference pairs"
    return f"There are {pairs}{split}; a fine-tuning job needs at least {MINIMUM}.{because}"
