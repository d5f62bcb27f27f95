"""What teachers weighed at each token of a stored answer: kept beside the completion, gone with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select

from stillroom import logprobs
from stillroom.completions.schema import soft_labels

_label = soft_labels.c
_these: BindParameter[list[int]] = bindparam("these", expanding=True)
_INSERT = insert(soft_labels)
_DELETE = delete(soft_labels).where(_label.completion.in_(_these))
_BODIES = select(_label.completion, _label.body).where(_label.completion.in_(_these))
_SIZES = select(_label.tokens, _label.alternatives, func.length(_label.body).label("bytes")).where(
    _label.completion == bindparam("this")
)


@dataclass(frozen=True, kw_only=True)
class SoftLabels:
    """The labels of one answer: how many tokens it has, the most alternatives at one of them, and all that packed."""

    tokens: int
    alternatives: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What there is of a completion's labels."""

    tokens: int
    alternatives: int
    bytes: int


def pack(content: Sequence[Any]) -> SoftLabels:
    """The labels ready to be written, of OpenAI's `logprobs.content`; not in the writer's thread."""
    found = logprobs.positions(content)
    alternatives = max((len(position.top) for position in found), default=0)
    return SoftLabels(tokens=len(found), alternatives=alternatives, body=logprobs.packed(found))


def add(connection: Connection, completion: int, labels: SoftLabels) -> None:
    """Keeps the labels of a completion that has been stored in the same transaction."""
    row = {"tokens": labels.tokens, "alternatives": labels.alternatives, "body": labels.body}
    connection.execute(_INSERT, {"completion": completion, **row})


def of(connection: Connection, completions: Sequence[int]) -> Mapping[int, bytes]:
    """The packed labels of those completions that have some, by number."""
    return {row.completion: row.body for row in connection.execute(_BODIES, {"these": completions})}


def of_one(connection: Connection, completion: int) -> bytes | None:
    """The packed labels of a completion; None when it has none."""
    return of(connection, [completion]).get(completion)


def sizes(connection: Connection, completion: int) -> Sizes | None:
    """None when the completion has none."""
    row = connection.execute(_SIZES, {"this": completion}).mappings().first()
    return Sizes(**row) if row else None


def remove(connection: Connection, completions: Sequence[int]) -> None:
    """Before the completions themselves are removed."""
    connection.execute(_DELETE, {"these": completions})
