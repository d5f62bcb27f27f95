"""Many stored completions at once, below `/v1/stillroom`: tag or delete them, take them elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from stillroom import chat, ids
from stillroom.api import filters
from stillroom.api.extensions import body_as
from stillroom.api.filters import CompletionFilter, filter_of, filter_of_query, numbers_of
from stillroom.api.wire import Call, Reply, listing
from stillroom.completions.bulk import Action, BulkAction, Order
from stillroom.completions.schema import Filter
from stillroom.datasets import export as exporting
from stillroom.datasets.answers import PLAIN, Reasoning, Style
from stillroom.datasets.export import Form
from stillroom.errors import InvalidRequest
from stillroom.jobs import State

MOST_IDS = 10_000
UNDO_SECONDS = 60
PAGE, LARGEST_PAGE = 20, 100
FILE_TYPE = "application/jsonl"


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `filter` (which may be empty: {}, for all) or `ids`. `metadata` is for "tag": it is added to what
    each completion has, and null takes a key away. `undo_seconds` is for "delete": so long it only waits."""

    action: Literal["tag", "delete"]
    filter: CompletionFilter | None = None
    ids: list[str] | None = None
    metadata: dict[str, str | None] | None = None
    undo_seconds: Annotated[int, msgspec.Meta(ge=0, le=UNDO_SECONDS)] = 0


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `filter` (which may be empty: {}, for all) or `ids`. A line of "training" is an example as in a
    selection's file, of "full" the request, the answer and all else that is kept; `soft_labels` only when they are asked
    for, packed. `reasoning` is for "training", as a selection has it."""

    filter: CompletionFilter | None = None
    ids: list[str] | None = None
    format: Literal["training", "full"] = "full"
    reasoning: Reasoning = Reasoning.STRIP
    soft_labels: bool = False


def create(call: Call) -> Reply:
    """Tag or delete many stored completions, by a filter or by their ids, in the background."""
    asked = body_as(call, BulkRequest)
    action = Action(asked.action)
    _check_changes(asked, action)
    if action is Action.TAG and asked.undo_seconds:
        raise InvalidRequest("'undo_seconds' is for deleting; a tag can be changed back.", param="undo_seconds")
    order = Order(
        action=action,
        chosen=_chosen(asked.filter, asked.ids),
        changes=asked.metadata,
        undo_seconds=asked.undo_seconds,
    )
    return Reply(body=shown(call.platform.bulk_actions.start(call.project, order)))


def retrieve(call: Call) -> Reply:
    """Retrieve a bulk action, how far it has come, and which completions it is about."""
    action = call.platform.bulk_actions.get(call.project, call.parameters["id"])
    return Reply(body={**shown(action), **_meant(action)})


def list_actions(call: Call) -> Reply:
    """List the project's bulk actions, newest first."""
    limit = call.limit(PAGE, LARGEST_PAGE)
    found, more = call.platform.bulk_actions.page(call.project, after=call.query.get("after"), limit=limit)
    return Reply(body=listing([shown(action) for action in found], more))


def cancel(call: Call) -> Reply:
    """End a bulk action where it is; while it waits, nothing has been touched."""
    return Reply(body=shown(call.platform.bulk_actions.cancel(call.project, call.parameters["id"])))


def export(call: Call) -> Reply:
    """Download stored completions as JSON lines, oldest first: `format` training or full, and the filter."""
    wanted = call.query.get("format", Form.FULL.value)
    if wanted not in [form.value for form in Form]:
        raise InvalidRequest(f"Invalid 'format': {wanted[:40]!r}. Expected one of {', '.join(Form)}.", param="format")
    return _exported(call, filter_of_query(call, "format"), Form(wanted), PLAIN)


def export_chosen(call: Call) -> Reply:
    """Download the stored completions that a filter or ids name as JSON lines, oldest first."""
    asked = body_as(call, ExportRequest)
    style = Style(reasoning=asked.reasoning, soft_labels=asked.soft_labels)
    return _exported(call, _chosen(asked.filter, asked.ids), Form(asked.format), style)


def shown(action: BulkAction) -> dict[str, Any]:
    """An action as the API gives it."""
    left_out = {"not_found": action.not_found, "too_many_pairs": action.too_many_pairs}
    return {
        "id": action.id,
        "object": "stillroom.bulk_action",
        "action": action.action.value,
        "status": _status(action),
        "created_at": action.created_at,
        "starts_at": action.starts_at,
        "finished_at": action.finished_at,
        "matched": action.matched,
        "done": action.done,
        "skipped": sum(left_out.values()),
        "skipped_because": left_out,
        "metadata": action.changes,
        "error": action.error,
    }


def _meant(action: BulkAction) -> dict[str, Any]:
    """The completions by a filter or by their ids, as the action was asked for, with the newest that it takes."""
    chosen = action.chosen
    if chosen.numbers is not None:
        return {"filter": None, "ids": [ids.completion_id(number) for number in chosen.numbers]}
    newest = action.bound if chosen.up_to is None else min(chosen.up_to, action.bound)
    return {"filter": filters.shown(replace(chosen, up_to=newest)), "ids": None}


def _status(action: BulkAction) -> str:
    if action.state is State.QUEUED:
        # One that was interrupted is in the queue too, but waits for nobody's undoing.
        return "waiting" if action.started_at is None else "running"
    return action.state.value


def _check_changes(asked: BulkRequest, action: Action) -> None:
    if action is Action.DELETE:
        if asked.metadata is not None:
            raise InvalidRequest("'metadata' is for the action \"tag\".", param="metadata")
        return
    if not asked.metadata:
        raise InvalidRequest(
            "The action \"tag\" needs 'metadata': at least one pair to add, or a key with null to take away.",
            param="metadata",
            code="missing_required_parameter",
        )
    chat.check_metadata({key: value for key, value in asked.metadata.items() if value is not None})
    gone = [key for key, value in asked.metadata.items() if value is None]
    if len(gone) > chat.METADATA_PAIRS:
        raise InvalidRequest(
            f"'metadata' takes {len(gone)} keys away by null; a tag can take away up to {chat.METADATA_PAIRS}, as many as "
            "a completion has.",
            param="metadata",
            code="object_above_max_properties",
        )
    chat.check_metadata(dict.fromkeys(gone, ""))


def _chosen(conditions: CompletionFilter | None, named: list[str] | None) -> Filter:
    if (conditions is None) == (named is None):
        raise InvalidRequest("Give either 'filter' (which may be empty: {}, for all) or 'ids'.", param="filter")
    if conditions is not None:
        return filter_of(conditions)
    assert named is not None
    if not 1 <= len(named) <= MOST_IDS:
        raise InvalidRequest(
            f"'ids' has {len(named)} entries; it takes from 1 to {MOST_IDS}. A filter names more.", param="ids"
        )
    return Filter(numbers=numbers_of(named))


def _exported(call: Call, chosen: Filter, form: Form, style: Style) -> Reply:
    name = f"completions-{form.value}-{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl"
    headers = {"content-type": FILE_TYPE, "content-disposition": f'attachment; filename="{name}"'}
    stream = exporting.lines(call.platform.database, call.project, chosen, form, style)
    return Reply(stream=stream, headers=headers)
