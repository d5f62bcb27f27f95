"""Stored completions: list, retrieve, update, delete, and their messages."""

from __future__ import annotations

from typing import Any

from stillroom import chat, ids
from stillroom.api.wire import Call, Reply, listing
from stillroom.completions import table
from stillroom.errors import InvalidRequest, NotFound, shortened

PAGE, LARGEST_PAGE = 20, 100
SHOWN_PARAMETERS = (
    "seed",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "tools",
    "tool_choice",
    "response_format",
)


def list_completions(call: Call) -> Reply:
    """List stored completions, filtered by model and metadata, and, which is ours, by `search`."""
    limit = call.limit(PAGE, LARGEST_PAGE)
    chosen = table.Filter(
        model=call.query.get("model"), metadata=call.metadata_filter(), search=call.query.get("search")
    )
    after, descending = cursor(call, "after"), call.descending("asc")
    with call.platform.database.read() as connection:
        found = table.page(connection, call.project, chosen, after=after, descending=descending, limit=limit + 1)
    page = [shown(stored) for stored in found[:limit]]
    return Reply(body=listing(page, len(found) > limit))


def retrieve(call: Call) -> Reply:
    """Retrieve a stored completion."""
    return Reply(body=shown(find(call)))


def update(call: Call) -> Reply:
    """Add metadata to a stored completion; null clears all of it."""
    body = call.json()
    if "metadata" not in body:
        raise InvalidRequest(
            "Missing required parameter: 'metadata'.", param="metadata", code="missing_required_parameter"
        )
    changes = body["metadata"]
    chat.check_metadata(changes)
    number = _number(call)

    def write(connection: Any) -> dict[str, str] | None:
        merged = table.merge_metadata(connection, call.project, number, changes)
        chat.check_metadata(merged)
        return merged

    if call.platform.writer.write(write) is None:
        raise _not_found(call)
    return Reply(body=shown(find(call)))


def delete(call: Call) -> Reply:
    """Delete a stored completion."""
    number = _number(call)
    if not call.platform.writer.write(lambda c: table.remove(c, call.project, number)):
        raise _not_found(call)
    return Reply(body={"object": "chat.completion.deleted", "id": call.parameters["id"], "deleted": True})


def list_messages(call: Call) -> Reply:
    """List the messages that were sent to get a stored completion."""
    limit, descending = call.limit(PAGE, LARGEST_PAGE), call.descending("asc")
    messages = [
        _message(call.parameters["id"], index, message) for index, message in enumerate(find(call).request["messages"])
    ]
    if descending:
        messages.reverse()
    if after := call.query.get("after"):
        position = next((i for i, message in enumerate(messages) if message["id"] == after), None)
        if position is None:
            raise InvalidRequest(f"Invalid 'after': no message {after!r} in this completion.", param="after")
        messages = messages[position + 1 :]
    return Reply(body=listing(messages[:limit], len(messages) > limit))


def shown(stored: table.StoredCompletion) -> dict[str, Any]:
    """A stored completion as the API gives it: the completion and what it was asked with."""
    request = stored.request
    item = {
        **stored.response,
        "id": ids.completion_id(stored.number),
        "object": "chat.completion",
        "created": stored.response.get("created") or stored.created_at,
        "model": stored.response.get("model") or stored.model,
        "metadata": stored.metadata,
        # The name that was called, which `model=` filters by; `model` is the upstream's.
        "requested_model": stored.model,
        "input_user": request.get("user"),
        **{name: request.get(name) for name in SHOWN_PARAMETERS},
    }
    if stored.status is table.Status.INCOMPLETE:
        item["status"] = stored.status.value
    return item


def _message(completion_id: str, index: int, message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    text = content if parts is None else text_of(content)
    return {**message, "id": f"{completion_id}-{index}", "content": text, "content_parts": parts}


def text_of(content: Any) -> str:
    """A message's text, that of its parts joined; empty where there is none."""
    if isinstance(content, list):
        return "".join(map(_text_of, content))
    return content if isinstance(content, str) else ""


def _text_of(part: Any) -> str:
    """A content part's text; empty for an image, and for whatever shape a caller has sent instead."""
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else ""


def cursor(call: Call, name: str) -> int | None:
    """The completion that a field of the query names; None without the field."""
    text = call.query.get(name)
    if not text:
        return None
    number = ids.completion_number(text)
    if number is None:
        raise InvalidRequest(f"Invalid '{name}': {shortened(text)!r} is not the id of a stored completion.", param=name)
    return number


def _number(call: Call) -> int:
    number = ids.completion_number(call.parameters["id"])
    if number is None:
        raise _not_found(call)
    return number


def find(call: Call) -> table.StoredCompletion:
    """The completion that the path names. Raises NotFound."""
    with call.platform.database.read() as connection:
        found = table.get(connection, call.project, _number(call))
    if found is None:
        raise _not_found(call)
    return found


def _not_found(call: Call) -> NotFound:
    return NotFound(f"Completion {shortened(call.parameters['id'])} not found.", param="completion_id")
