"""Stored completions as the portal looks at them: lists newest first, counts, and what to filter by.

OpenAI's own calls on stored completions are in `stored_completions.py`, actions on many at once in
`bulk_actions.py`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from stillroom import ids
from stillroom.api.filters import filter_of_query
from stillroom.api.stored_completions import cursor, find, text_of
from stillroom.api.wire import Call, Reply, listing
from stillroom.billing import Kind, costs_of
from stillroom.completions import search, soft_labels, table
from stillroom.completions.conversations import answer_of, first_choice, functions_of, objects
from stillroom.completions.facets import Counts, Facet
from stillroom.completions.table import StoredCompletion
from stillroom.config import MICRO

PAGE, LARGEST_PAGE = 50, 200
PREVIEW_LETTERS = 200


def list_completions(call: Call) -> Reply:
    """List stored completions newest first, with what each was asked, what it answered and what it cost."""
    chosen = filter_of_query(call, "limit", "after", "before")
    limit = call.limit(PAGE, LARGEST_PAGE)
    after, before = cursor(call, "after"), cursor(call, "before")
    with call.platform.database.read() as connection:
        numbers = table.numbers(
            connection, call.project, chosen, after=after, newer_than=before, descending=True, limit=limit + 1
        )
        rows = table.without_beginnings(connection, numbers[:limit])
        items = _priced(connection, call.project, [_item(stored) for stored in rows])
        waiting = None if chosen.search is None else search.pending_count(connection, call.project)
    body = listing(items, len(numbers) > limit)
    return Reply(body=body if waiting is None else {**body, "search_pending": waiting})


def retrieve(call: Call) -> Reply:
    """Retrieve a stored completion whole: what was sent, what was answered, and what it cost."""
    stored = find(call)
    with call.platform.database.read() as connection:
        (item,) = _priced(connection, call.project, [_item(stored)])
        labels = soft_labels.sizes(connection, stored.number)
    whole = {"request": stored.request, "response": stored.response, "soft_labels": labels and asdict(labels)}
    return Reply(body={**item, "object": "stillroom.completion.detail", **whole})


def count(call: Call) -> Reply:
    """Count stored completions; beyond what is quick to count, `at_least` is true."""
    counted = call.platform.tallies.count(call.project, filter_of_query(call))
    return Reply(body={"object": "stillroom.count", "count": counted.number, "at_least": counted.at_least})


def facets(call: Call) -> Reply:
    """What stored completions have in common: their models, statuses and metadata, and how often."""
    found = call.platform.tallies.facets(call.project, filter_of_query(call))
    return Reply(
        body={
            "object": "stillroom.facets",
            "sampled": found.sampled,
            "models": _counts(found.models),
            "statuses": _counts(found.statuses),
            "metadata": [_facet(facet) for facet in found.metadata],
        }
    )


def _priced(connection: Connection, project: int, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    costs = costs_of(connection, project, Kind.ANSWER, [item["id"] for item in items])
    return [{**item, "cost_microusd": costs[item["id"]] / MICRO if item["id"] in costs else None} for item in items]


def _item(stored: StoredCompletion) -> dict[str, Any]:
    """What a list shows of a completion, but for its cost."""
    choice = first_choice(stored.response)
    said, reason = answer_of(choice), choice.get("finish_reason")
    called = [function.get("name") for function in functions_of(said)]
    return {
        "id": ids.completion_id(stored.number),
        "object": "stillroom.completion",
        "created_at": stored.created_at,
        "model": stored.model,
        "status": stored.status.value,
        "finish_reason": reason if isinstance(reason, str) else None,
        "metadata": stored.metadata,
        "prompt_tokens": stored.prompt_tokens,
        "completion_tokens": stored.completion_tokens,
        "latency_ms": stored.latency_ms,
        "first_token_ms": stored.first_token_ms,
        "question": _question(stored.request)[:PREVIEW_LETTERS],
        "answer": text_of(said.get("content"))[:PREVIEW_LETTERS],
        "tool_calls": [name for name in called if isinstance(name, str)],
    }


def _question(request: dict[str, Any]) -> str:
    asked = [message for message in objects(request.get("messages")) if message.get("role") == "user"]
    return text_of(asked[-1].get("content")) if asked else ""


def _counts(counts: Counts) -> list[dict[str, Any]]:
    return [{"value": value, "count": count} for value, count in counts]


def _facet(facet: Facet) -> dict[str, Any]:
    return {"key": facet.key, "values": _counts(facet.values), "more": facet.more}
