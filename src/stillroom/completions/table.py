"""Stored completions: kept, read, changed and deleted.

A conversation's fixed beginning (system prompt, tools, response format) repeats over thousands of
completions, so it is stored once, addressed by its content, and counted by reference; what is left
is compressed. Metadata is kept twice: as JSON for display, and inverted, one row for each
(key, value) with its exact count and one for each completion that has it, for filters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from stillroom.completions import batch, search
from stillroom.completions.matching import CHUNK, numbers
from stillroom.completions.schema import (
    Filter,
    Status,
    completion_metadata,
    completions,
    metadata_pairs,
    prefixes,
)
from stillroom.store.tables import as_json

__all__ = [
    "CHUNK",
    "Filter",
    "NewCompletion",
    "Packed",
    "Status",
    "StoredCompletion",
    "add",
    "bodies",
    "by_numbers",
    "completion_metadata",
    "completions",
    "get",
    "merge_metadata",
    "metadata_pairs",
    "newest_number",
    "numbers",
    "one_by_one",
    "pack",
    "page",
    "prefixes",
    "remove",
    "unpacked",
    "walk",
    "without_beginnings",
]

LEADING_ROLES = ("system", "developer")
SHARED_FIELDS = ("tools", "functions", "response_format")
COMPRESSION_LEVEL = 3

# What every stored call runs is built once: building a statement costs more than running it.
_INSERT = insert(completions)
_INSERT_METADATA = insert(completion_metadata)
_INSERT_PREFIX = insert(prefixes).returning(prefixes.c.id)
_INSERT_PAIR = insert(metadata_pairs).returning(metadata_pairs.c.id)
_REFER = (
    update(prefixes)
    .where(prefixes.c.project == bindparam("of"), prefixes.c.hash == bindparam("to"))
    .values({prefixes.c.references: prefixes.c.references + 1})
    .returning(prefixes.c.id)
)
_COUNT_PAIR = (
    update(metadata_pairs)
    .where(
        metadata_pairs.c.project == bindparam("of"),
        metadata_pairs.c.key == bindparam("named"),
        metadata_pairs.c.value == bindparam("as"),
    )
    .values({metadata_pairs.c.count: metadata_pairs.c.count + 1})
    .returning(metadata_pairs.c.id)
)
_WHOLE = select(completions, prefixes.c.body.label("prefix_body")).join(prefixes, prefixes.c.id == completions.c.prefix)
_THESE = completions.c.number.in_(bindparam("these", expanding=True))
_BODIES = select(completions.c.number, completions.c.body).where(_THESE).order_by(completions.c.number.desc())
# By whether the newest come first.
_THESE_WHOLE = {
    False: _WHOLE.where(_THESE).order_by(completions.c.number),
    True: _WHOLE.where(_THESE).order_by(completions.c.number.desc()),
}
_ROWS = select(completions).where(_THESE).order_by(completions.c.number.desc())


@dataclass(frozen=True, kw_only=True)
class NewCompletion:
    """A completion about to be stored: the request as sent, without `store` and `metadata`."""

    number: int
    project: int
    created_at: int
    model: str
    status: Status
    request: Mapping[str, Any]
    response: Mapping[str, Any]
    metadata: Mapping[str, str]
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: int
    latency_ms: int


@dataclass(frozen=True, kw_only=True)
class StoredCompletion:
    """A completion as it was stored; `request` has its messages whole again."""

    number: int
    created_at: int
    model: str
    status: Status
    metadata: dict[str, str]
    request: dict[str, Any]
    response: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: int
    latency_ms: int


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A completion's request and response as they are stored."""

    prefix_hash: bytes
    prefix_body: bytes
    body: bytes


def pack(request: Mapping[str, Any], response: Mapping[str, Any]) -> Packed:
    """Splits the shared beginning off and compresses both parts. Needs no connection."""
    messages = request.get("messages") or []
    lead = next((i for i, m in enumerate(messages) if m.get("role") not in LEADING_ROLES), len(messages))
    shared = {name: request[name] for name in SHARED_FIELDS if name in request}
    prefix = msgspec.json.encode({"messages": messages[:lead], **shared})
    rest = {name: value for name, value in request.items() if name not in SHARED_FIELDS}
    body = msgspec.json.encode({"request": {**rest, "messages": messages[lead:]}, "response": response})
    compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress
    return Packed(prefix_hash=hashlib.sha256(prefix).digest(), prefix_body=compress(prefix), body=compress(body))


def unpacked(part: bytes, unpacker: zstandard.ZstdDecompressor | None = None) -> dict[str, Any]:
    """One of the two parts that `pack` makes. Of `body`, the request has only the messages and
    parameters that are not shared. To make an unpacker costs more than it does: who has many parts makes one."""
    found: dict[str, Any] = msgspec.json.decode((unpacker or zstandard.ZstdDecompressor()).decompress(part))
    return found


def add(connection: Connection, new: NewCompletion, packed: Packed) -> None:
    """Stores one completion."""
    values = {
        "number": new.number,
        "project": new.project,
        "created_at": new.created_at,
        "model": new.model,
        "status": new.status.value,
        "prefix": _refer_to_prefix(connection, new.project, packed),
        "prompt_tokens": new.prompt_tokens,
        "completion_tokens": new.completion_tokens,
        "first_token_ms": new.first_token_ms,
        "latency_ms": new.latency_ms,
        "metadata": as_json(new.metadata),
        "body": packed.body,
    }
    connection.execute(_INSERT, values)
    _index_metadata(connection, new.project, new.number, new.metadata)
    search.enqueue(connection, new.project, new.number)


def get(connection: Connection, project: int, number: int) -> StoredCompletion | None:
    """The completion, or None when the project has none of that number."""
    rows = connection.execute(_WHOLE.where(completions.c.project == project, completions.c.number == number))
    row = rows.first()
    unpacker = zstandard.ZstdDecompressor()
    return _stored(row, unpacked(row.prefix_body, unpacker), unpacker) if row else None


def page(
    connection: Connection, project: int, chosen: Filter, *, after: int | None, descending: bool, limit: int
) -> list[StoredCompletion]:
    """Up to `limit` completions beyond the cursor, in order of their numbers."""
    found = numbers(connection, project, chosen, after=after, descending=descending, limit=limit)
    return by_numbers(connection, found)


def walk(
    connection: Connection, project: int, chosen: Filter, *, descending: bool = False
) -> Iterator[StoredCompletion]:
    """All matching completions in order, one in memory at a time."""
    after: int | None = None
    while found := numbers(connection, project, chosen, after=after, descending=descending, limit=CHUNK):
        yield from one_by_one(connection, found, descending=descending)
        after = found[-1]


def by_numbers(connection: Connection, wanted: Sequence[int]) -> list[StoredCompletion]:
    """Those completions that there are, in the order they are asked for."""
    found = {stored.number: stored for stored in one_by_one(connection, wanted)}
    return [found[number] for number in wanted if number in found]


def one_by_one(
    connection: Connection, wanted: Sequence[int], *, descending: bool = False
) -> Iterator[StoredCompletion]:
    """Those completions that there are, in the order of their numbers, each unpacked when it is asked for: a few
    may take as much memory as thousands of others."""
    unpacker = zstandard.ZstdDecompressor()
    for row in connection.execute(_THESE_WHOLE[descending], {"these": wanted}):
        yield _stored(row, unpacked(row.prefix_body, unpacker), unpacker)


def without_beginnings(connection: Connection, wanted: Sequence[int]) -> Iterator[StoredCompletion]:
    """As `one_by_one`, newest first, but their requests lack the fixed beginnings: enough to show what was
    asked last, for a third of the work."""
    unpacker = zstandard.ZstdDecompressor()
    for row in connection.execute(_ROWS, {"these": wanted}):
        yield _stored(row, {"messages": []}, unpacker)


def bodies(connection: Connection, wanted: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """What is stored of those completions besides their fixed beginnings, newest first, as it is asked for."""
    return ((number, body) for number, body in connection.execute(_BODIES, {"these": wanted}))


def newest_number(connection: Connection, project: int) -> int | None:
    row = completions.c
    return connection.execute(select(func.max(row.number)).where(row.project == project)).scalar()


def merge_metadata(
    connection: Connection, project: int, number: int, changes: Mapping[str, str] | None
) -> dict[str, str] | None:
    """Adds the pairs to the completion's own, or clears all for None. None when there is no such row."""
    query = select(completions.c.metadata).where(completions.c.project == project, completions.c.number == number)
    old = connection.execute(query).scalar()
    if old is None:
        return None
    had: dict[str, str] = msgspec.json.decode(old)
    merged = {} if changes is None else {**had, **changes}
    batch.set_metadata(connection, project, {number: (had, merged)})
    return merged


def remove(connection: Connection, project: int, number: int) -> bool:
    """Deletes one completion; False when the project has none of that number."""
    return batch.remove_many(connection, project, [number]) == 1


def _refer_to_prefix(connection: Connection, project: int, packed: Packed) -> int:
    found = connection.execute(_REFER, {"of": project, "to": packed.prefix_hash}).scalar()
    if found is None:
        row = {"project": project, "hash": packed.prefix_hash, "body": packed.prefix_body, "references": 1}
        found = connection.execute(_INSERT_PREFIX, row).scalar_one()
    return int(found)


def _index_metadata(connection: Connection, project: int, number: int, pairs: Mapping[str, str]) -> None:
    for key, value in pairs.items():
        pair = connection.execute(_COUNT_PAIR, {"of": project, "named": key, "as": value}).scalar()
        if pair is None:
            row = {"project": project, "key": key, "value": value, "count": 1}
            pair = connection.execute(_INSERT_PAIR, row).scalar_one()
        connection.execute(_INSERT_METADATA, {"pair": pair, "completion": number})


def _stored(row: Row[Any], prefix: dict[str, Any], unpacker: zstandard.ZstdDecompressor) -> StoredCompletion:
    body = unpacked(row.body, unpacker)
    messages = prefix.pop("messages") + body["request"].pop("messages")
    return StoredCompletion(
        number=row.number,
        created_at=row.created_at,
        model=row.model,
        status=Status(row.status),
        metadata=msgspec.json.decode(row.metadata),
        request={"messages": messages, **body["request"], **prefix},
        response=body["response"],
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        first_token_ms=row.first_token_ms,
        latency_ms=row.latency_ms,
    )
