"""The stored completions' tables and every query on them.

A conversation's fixed beginning (system prompt, tools, response format) repeats over thousands of
completions, so it is stored once, addressed by its content, and counted by reference; what is left
is compressed. Metadata is kept twice: as JSON for display, and inverted, one row for each
(key, value) with its exact count and one for each completion that has it, for filters.

Numbers (see `ids.py`) are ordered by time; every list is ordered by them, so that a cursor is the
last number seen and stays right when rows are deleted.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zstandard
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from stillroom.store.tables import RowId, metadata

LEADING_ROLES = ("system", "developer")
SHARED_FIELDS = ("tools", "functions", "response_format")
COMPRESSION_LEVEL = 3
CHUNK = 500  # rows fetched at a time when many are walked

prefixes = Table(
    "prefixes",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("references", BigInteger, nullable=False),
    UniqueConstraint("project", "hash"),
)

completions = Table(
    "completions",
    metadata,
    Column("number", RowId, primary_key=True, autoincrement=False),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # The name that was called, which is what people filter by; the answer has the upstream's.
    Column("model", String(256), nullable=False),
    Column("status", String(16), nullable=False),
    Column("prefix", ForeignKey("prefixes.id"), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("first_token_ms", Integer, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("metadata", Text, nullable=False),
    # Which compression dictionary the body needs; none yet.
    Column("dictionary", Integer),
    Column("body", LargeBinary, nullable=False),
    Index("ix_completions_project_number", "project", "number"),
    Index("ix_completions_project_model_number", "project", "model", "number"),
)

metadata_pairs = Table(
    "metadata_pairs",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", String(512), nullable=False),
    Column("count", BigInteger, nullable=False),
    UniqueConstraint("project", "key", "value"),
)

completion_metadata = Table(
    "completion_metadata",
    metadata,
    Column("pair", ForeignKey("metadata_pairs.id"), primary_key=True),
    Column("completion", ForeignKey("completions.number"), primary_key=True),
    Index("ix_completion_metadata_completion", "completion"),
    sqlite_with_rowid=False,
)


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


class Status(enum.StrEnum):
    """Whether the answer is whole; only completed ones are used for training."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


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
    latency_ms: int


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which completions: all given conditions must hold. Times are seconds since the epoch."""

    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    numbers: tuple[int, ...] | None = None
    status: Status | None = None
    created_after: int | None = None
    created_before: int | None = None


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
        "metadata": _encode_metadata(new.metadata),
        "body": packed.body,
    }
    connection.execute(_INSERT, values)
    _index_metadata(connection, new.project, new.number, new.metadata)


def get(connection: Connection, project: int, number: int) -> StoredCompletion | None:
    """The completion, or None when the project has none of that number."""
    rows = connection.execute(_whole().where(completions.c.project == project, completions.c.number == number))
    row = rows.first()
    return _stored(row) if row else None


def page(
    connection: Connection, project: int, chosen: Filter, *, after: int | None, descending: bool, limit: int
) -> list[StoredCompletion]:
    """Up to `limit` completions beyond the cursor, in order of their numbers."""
    numbers = _numbers(connection, project, chosen, after=after, descending=descending, limit=limit)
    return _by_numbers(connection, numbers)


def walk(
    connection: Connection, project: int, chosen: Filter, *, descending: bool = False
) -> Iterator[StoredCompletion]:
    """All matching completions in order, a few hundred in memory at a time."""
    after: int | None = None
    while numbers := _numbers(connection, project, chosen, after=after, descending=descending, limit=CHUNK):
        yield from _by_numbers(connection, numbers)
        after = numbers[-1]


def merge_metadata(
    connection: Connection, project: int, number: int, changes: Mapping[str, str] | None
) -> dict[str, str] | None:
    """Adds the pairs to the completion's own, or clears all for None. None when there is no such row."""
    query = select(completions.c.metadata).where(completions.c.project == project, completions.c.number == number)
    old = connection.execute(query).scalar()
    if old is None:
        return None
    merged: dict[str, str] = {} if changes is None else {**msgspec.json.decode(old), **changes}
    _unindex_metadata(connection, number)
    statement = update(completions).where(completions.c.number == number)
    connection.execute(statement.values(metadata=_encode_metadata(merged)))
    _index_metadata(connection, project, number, merged)
    return merged


def remove(connection: Connection, project: int, number: int) -> bool:
    """Deletes one completion; False when the project has none of that number."""
    query = select(completions.c.prefix).where(completions.c.project == project, completions.c.number == number)
    prefix = connection.execute(query).scalar()
    if prefix is None:
        return False
    _unindex_metadata(connection, number)
    connection.execute(delete(completions).where(completions.c.number == number))
    connection.execute(
        update(prefixes).where(prefixes.c.id == prefix).values({prefixes.c.references: prefixes.c.references - 1})
    )
    connection.execute(delete(prefixes).where(prefixes.c.id == prefix, prefixes.c.references <= 0))
    return True


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


def _unindex_metadata(connection: Connection, number: int) -> None:
    query = select(completion_metadata.c.pair).where(completion_metadata.c.completion == number)
    pairs = list(connection.execute(query).scalars())
    connection.execute(delete(completion_metadata).where(completion_metadata.c.completion == number))
    count = {metadata_pairs.c.count: metadata_pairs.c.count - 1}
    connection.execute(update(metadata_pairs).where(metadata_pairs.c.id.in_(pairs)).values(count))
    connection.execute(delete(metadata_pairs).where(metadata_pairs.c.id.in_(pairs), metadata_pairs.c.count <= 0))


def _numbers(
    connection: Connection, project: int, chosen: Filter, *, after: int | None, descending: bool, limit: int
) -> list[int]:
    query = _numbers_query(connection, project, chosen, after=after, descending=descending)
    return [] if query is None else [row[0] for row in connection.execute(query.limit(limit))]


def _numbers_query(
    connection: Connection, project: int, chosen: Filter, *, after: int | None, descending: bool
) -> Select[int] | None:
    """The numbers that match, in order; None when no row can match."""
    pairs = _pairs_rarest_first(connection, project, chosen.metadata)
    if len(pairs) < len(chosen.metadata):
        return None
    if pairs:
        # The rarest pair's own index yields the order; each further pair is one look-up a row.
        number: ColumnElement[int] = completion_metadata.c.completion
        query = select(number).where(completion_metadata.c.pair == pairs[0])
        for pair in pairs[1:]:
            other = completion_metadata.alias()
            query = query.where(exists().where(other.c.pair == pair, other.c.completion == number))
        if _looks_at_row(chosen):
            query = query.join(completions, completions.c.number == number)
    else:
        number = completions.c.number
        query = select(number).where(completions.c.project == project)
    if after is not None:
        query = query.where(number < after if descending else number > after)
    return query.where(*_conditions(chosen)).order_by(number.desc() if descending else number.asc())


def _looks_at_row(chosen: Filter) -> bool:
    return bool(_conditions(chosen))


def _conditions(chosen: Filter) -> list[ColumnElement[bool]]:
    row = completions.c
    found: list[ColumnElement[bool]] = []
    if chosen.model is not None:
        found.append(row.model == chosen.model)
    if chosen.status is not None:
        found.append(row.status == chosen.status.value)
    if chosen.created_after is not None:
        found.append(row.created_at >= chosen.created_after)
    if chosen.created_before is not None:
        found.append(row.created_at < chosen.created_before)
    if chosen.numbers is not None:
        found.append(or_(*[row.number.in_(part) for part in _parts(chosen.numbers)]))
    return found


def _parts(numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [numbers[i : i + CHUNK] for i in range(0, len(numbers), CHUNK)] or [()]


def _pairs_rarest_first(connection: Connection, project: int, pairs: Mapping[str, str]) -> list[int]:
    if not pairs:
        return []
    row = metadata_pairs.c
    # One index search a pair; for `(key, value) IN (...)` SQLite would read all pairs of the project.
    wanted = or_(*[and_(row.project == project, row.key == key, row.value == value) for key, value in pairs.items()])
    return list(connection.execute(select(row.id).where(wanted).order_by(row.count)).scalars())


def _whole() -> Select[Any]:
    return select(completions, prefixes.c.body.label("prefix_body")).join(
        prefixes, prefixes.c.id == completions.c.prefix
    )


def _by_numbers(connection: Connection, numbers: list[int]) -> list[StoredCompletion]:
    rows = connection.execute(_whole().where(completions.c.number.in_(numbers)))
    found = {row.number: _stored(row) for row in rows}
    return [found[number] for number in numbers if number in found]


def _stored(row: Row[Any]) -> StoredCompletion:
    expand = zstandard.ZstdDecompressor().decompress
    prefix = msgspec.json.decode(expand(row.prefix_body))
    body = msgspec.json.decode(expand(row.body))
    messages = prefix.pop("messages") + body["request"].pop("messages")
    return StoredCompletion(
        number=row.number,
        created_at=row.created_at,
        model=row.model,
        status=Status(row.status),
        metadata=msgspec.json.decode(row.metadata),
        request={"messages": messages, **body["request"], **prefix},
        response=body["response"],
        latency_ms=row.latency_ms,
    )


def _encode_metadata(pairs: Mapping[str, str]) -> str:
    return msgspec.json.encode(pairs).decode()
