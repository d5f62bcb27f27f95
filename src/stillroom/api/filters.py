"""Which stored completions, as callers say it: as JSON in a body, or as fields of a query."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stillroom import bodies, chat, ids
from stillroom.api.wire import METADATA_FILTER, Call, whole_number
from stillroom.completions.table import Filter, Status
from stillroom.errors import InvalidRequest, shortened

Seconds = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]  # what a database column can be compared with


class SelectionFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which stored completions: all conditions must hold. Times are seconds since the epoch. `search`:
    words, and "phrases" in quotes, that must all be in the messages or the answer."""

    model: str | None = None
    metadata: dict[str, str] = {}
    created_after: Seconds | None = None
    created_before: Seconds | None = None
    search: str | None = None


class CompletionFilter(SelectionFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As for a selection, and by `status`."""

    status: Literal["completed", "incomplete"] | None = None


def filter_of(conditions: SelectionFilter) -> Filter:
    """Raises InvalidRequest for metadata that no completion can have."""
    chat.check_metadata(conditions.metadata)
    status = conditions.status if isinstance(conditions, CompletionFilter) else None
    return Filter(
        model=conditions.model,
        metadata=conditions.metadata,
        status=None if status is None else Status(status),
        created_after=conditions.created_after,
        created_before=conditions.created_before,
        search=conditions.search,
    )


def filter_of_query(call: Call, *others: str) -> Filter:
    """The filter that the query's fields are, besides `others`. Raises InvalidRequest for unknown fields."""
    fields: dict[str, object] = {"metadata": call.metadata_filter()}
    for name, text in call.query.items():
        if name in ("created_after", "created_before"):
            number = whole_number(text)
            fields[name] = text if number is None else number
        elif name not in others and not name.startswith(METADATA_FILTER):
            fields[name] = text
    return filter_of(bodies.read(fields, CompletionFilter))


def numbers_of(named: list[str]) -> tuple[int, ...]:
    """The numbers behind completions' ids, in order. Raises InvalidRequest for what is none."""
    found = set()
    for text in named:
        number = ids.completion_number(text)
        if number is None:
            raise InvalidRequest(f"{shortened(text)!r} is not the id of a stored completion.", param="ids")
        found.add(number)
    return tuple(sorted(found))
