"""What teachers weighed at each token of a stored answer: kept beside the completion, gone with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
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


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


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


def pack(told: Sequence[bytes]) -> SoftLabels | None:
    """The labels ready to be written, of the JSON of OpenAI's `choices[].logprobs`, one after the other; None when
    they tell of no token. Neither for the event loop nor for the writer's thread."""
    # Each by itself: all of them as objects would take a hundred times the memory of what becomes of them.
    found = logprobs.positions(map(msgspec.json.decode, chain.from_iterable(map(_entries, told))))
    if not found:
        return None
    alternatives = max((len(position.top) for position in found), default=0)
    return SoftLabels(tokens=len(found), alternatives=alternatives, body=logprobs.packed(found))


def _entries(told: bytes) -> Sequence[msgspec.Raw]:
    try:
        return msgspec.json.decode(told, type=_Logprobs).content or ()
    except msgspec.ValidationError:
        return ()


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
