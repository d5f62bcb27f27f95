"""Removes and tags stored completions, one or many in a transaction, by their numbers.

What is to be looked up is looked up once for all, and every statement names its rows by key: a join that
finds them costs a hundred times more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import BindParameter, Connection, Delete, Update, bindparam, delete, func, insert, select, update

from stillroom.chat import METADATA_PAIRS
from stillroom.completions import search, soft_labels
from stillroom.completions.schema import completion_metadata, completions, metadata_pairs, prefixes
from stillroom.store.tables import as_json

Pair = tuple[str, str]
Pairs = Mapping[str, str]

# Built once: building a statement costs more than running it.
_row, _link, _pair, _prefix = completions.c, completion_metadata.c, metadata_pairs.c, prefixes.c
_these: BindParameter[list[int]] = bindparam("these", expanding=True)
_PREFIXES_OF = select(_row.number, _row.prefix).where(_row.project == bindparam("of"), _row.number.in_(_these))
_METADATA_OF = select(_row.number, _row.metadata).where(_row.project == bindparam("of"), _row.number.in_(_these))
_PAIRS_OF = select(_link.pair, func.count()).where(_link.completion.in_(_these)).group_by(_link.pair)
_PAIR_ID = select(_pair.id).where(
    _pair.project == bindparam("of"), _pair.key == bindparam("named"), _pair.value == bindparam("as")
)
_DELETE_LINKS = delete(completion_metadata).where(_link.completion.in_(_these))
_DELETE_LINK = delete(completion_metadata).where(_link.pair == bindparam("has"), _link.completion == bindparam("this"))
_INSERT_LINK = insert(completion_metadata)
_DELETE_ROWS = delete(completions).where(_row.number.in_(_these))
_SET_METADATA = update(completions).where(_row.number == bindparam("this")).values(metadata=bindparam("merged"))
_INSERT_PAIR = insert(metadata_pairs).returning(_pair.id)
_COUNT_PAIRS = update(metadata_pairs).where(_pair.id.in_(_these)).values({_pair.count: _pair.count + bindparam("more")})
_DELETE_PAIRS = delete(metadata_pairs).where(_pair.id.in_(_these), _pair.count <= 0)
_COUNT_PREFIXES = (
    update(prefixes).where(_prefix.id.in_(_these)).values({_prefix.references: _prefix.references + bindparam("more")})
)
_DELETE_PREFIXES = delete(prefixes).where(_prefix.id.in_(_these), _prefix.references <= 0)


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """How many rows have their new metadata, were not there, and would have had more than 16 pairs."""

    done: int
    not_found: int
    too_many_pairs: int


def remove_many(connection: Connection, project: int, numbers: Sequence[int]) -> int:
    """Deletes those of the completions that the project has; gives how many those were."""
    found = [tuple(row) for row in connection.execute(_PREFIXES_OF, {"of": project, "these": numbers})]
    if not found:
        return 0
    mine = [number for number, _ in found]
    pairs = {pair: -times for pair, times in connection.execute(_PAIRS_OF, {"these": mine})}
    search.forget_many(connection, project, mine)
    connection.execute(_DELETE_LINKS, {"these": mine})
    soft_labels.remove(connection, mine)
    connection.execute(_DELETE_ROWS, {"these": mine})
    _count(connection, _COUNT_PAIRS, _DELETE_PAIRS, pairs)
    freed = Counter(prefix for _, prefix in found)
    _count(connection, _COUNT_PREFIXES, _DELETE_PREFIXES, {prefix: -times for prefix, times in freed.items()})
    return len(mine)


def tag_many(connection: Connection, project: int, numbers: Sequence[int], changes: Mapping[str, str | None]) -> Tagged:
    """Adds or changes the pairs of those of the completions that the project has; None takes a key away."""
    rows = connection.execute(_METADATA_OF, {"of": project, "these": numbers}).all()
    old = {number: msgspec.json.decode(text, type=dict[str, str]) for number, text in rows}
    merged = {number: _merged(pairs, changes) for number, pairs in old.items()}
    fitting = [number for number in merged if len(merged[number]) <= METADATA_PAIRS]
    changed = [number for number in fitting if merged[number] != old[number]]
    if changed:
        set_metadata(connection, project, {number: (old[number], merged[number]) for number in changed})
    return Tagged(done=len(fitting), not_found=len(numbers) - len(old), too_many_pairs=len(old) - len(fitting))


def set_metadata(connection: Connection, project: int, changes: Mapping[int, tuple[Pairs, Pairs]]) -> None:
    """Gives completions other metadata: by their numbers, the pairs they have, and those they shall have."""
    texts = [{"this": number, "merged": as_json(new)} for number, (_, new) in changes.items()]
    connection.execute(_SET_METADATA, texts)
    lost = [(number, pair) for number, (old, new) in changes.items() for pair in old.items() - new.items()]
    gained = [(number, pair) for number, (old, new) in changes.items() for pair in new.items() - old.items()]
    _relink(connection, project, lost, gained)


def _merged(pairs: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in {**pairs, **changes}.items() if value is not None}


def _relink(
    connection: Connection, project: int, lost: Sequence[tuple[int, Pair]], gained: Sequence[tuple[int, Pair]]
) -> None:
    """Brings the inverted metadata and its counts after what rows have lost and gained."""
    ids = _pair_ids(connection, project, {pair for _, pair in (*lost, *gained)})
    if lost:
        connection.execute(_DELETE_LINK, [{"has": ids[pair], "this": number} for number, pair in lost])
    if gained:
        connection.execute(_INSERT_LINK, [{"pair": ids[pair], "completion": number} for number, pair in gained])
    change = Counter(ids[pair] for _, pair in gained)
    change.subtract(ids[pair] for _, pair in lost)
    _count(connection, _COUNT_PAIRS, _DELETE_PAIRS, change)


def _pair_ids(connection: Connection, project: int, pairs: Iterable[Pair]) -> dict[Pair, int]:
    """The id of each pair; those that are new are made, counting no completion yet."""
    found: dict[Pair, int] = {}
    for key, value in pairs:
        known = connection.execute(_PAIR_ID, {"of": project, "named": key, "as": value}).scalar()
        if known is None:
            row = {"project": project, "key": key, "value": value, "count": 0}
            known = connection.execute(_INSERT_PAIR, row).scalar_one()
        found[key, value] = int(known)
    return found


def _count(connection: Connection, add: Update, remove: Delete, change: Mapping[int, int]) -> None:
    """Adds to the counts of these rows; those that nothing has any more are gone."""
    by_change: defaultdict[int, list[int]] = defaultdict(list)
    for row, more in change.items():
        by_change[more].append(row)
    for more, rows in by_change.items():
        connection.execute(add, {"these": rows, "more": more})
    if less := [row for row, more in change.items() if more < 0]:
        connection.execute(remove, {"these": less})
