"""Which stored completions, as callers say it: as JSON in a body, or as fields of a query."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from stillroom import bodies, chat, ids
from stillroom.api.wire import METADATA_FILTER, Call, whole_number
from stillroom.completions.table import Filter, Status
from stillroom.errors import InvalidRequest, shortened

Seconds = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]  # what a database column can be compared with


class SelectionFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which stored completions: all conditions must hold. Times are seconds since the epoch. `search`:
    words, and "phrases" in quotes, that must all be in the messages or the answer. `up_to`: the id of a
    completion, itself included; none that began after it."""

    model: str | None = None
    metadata: dict[str, str] = {}
    created_after: Seconds | None = None
    created_before: Seconds | None = None
    search: str | None = None
    up_to: str | None = None


class CompletionFilter(SelectionFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As for a selection, and by `status`."""

    status: Literal["completed", "incomplete"] | None = None


def filter_of(conditions: SelectionFilter) -> Filter:
    """Raises InvalidRequest for metadata that no completion can have, and for `up_to` that is no id of one."""
    chat.check_metadata(conditions.metadata)
    status = conditions.status if isinstance(conditions, CompletionFilter) else None
    return Filter(
        model=conditions.model,
        metadata=conditions.metadata,
        status=None if status is None else Status(status),
        created_after=conditions.created_after,
        created_before=conditions.created_before,
        search=conditions.search,
        up_to=None if conditions.up_to is None else _number_of(conditions.up_to, "up_to"),
    )


def shown(chosen: Filter) -> dict[str, Any]:
    """The conditions of a filter as a body has them; those that are not given are left out."""
    conditions = {
        "model": chosen.model,
        "metadata": dict(chosen.metadata) or None,
        "status": None if chosen.status is None else chosen.status.value,
        "created_after": chosen.created_after,
        "created_before": chosen.created_before,
        "search": chosen.search,
        "up_to": None if chosen.up_to is None else ids.completion_id(chosen.up_to),
    }
    return {name: value for name, value in conditions.items() if value is not None}


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
    return tuple(sorted({_number_of(text, "ids") for text in named}))


def _number_of(text: str, param: str) -> int:
    number = ids.completion_number(text)
    if number is None:
        raise InvalidRequest(f"{shortened(text)!r} is not the id of a stored completion.", param=param)
    return number
