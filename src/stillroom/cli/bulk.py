"""A bulk action as the commands ask for one: how many it is about, and a bar until it has ended."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from stillroom.cli.client import Client
from stillroom.cli.output import err, note
from stillroom.errors import StillroomError

COUNT = "/v1/stillroom/completions/count"
START = "/v1/stillroom/completions/bulk"
EXPORT = "/v1/stillroom/completions/export"
ACTIONS = "/v1/stillroom/bulk_actions"
ENDED = ("succeeded", "failed", "cancelled")
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.05, 0.5


class BulkActionFailed(StillroomError):
    """A bulk action did not come to its end."""

    code = "bulk_action_failed"


def completions(count: int) -> str:
    """So many of them, as one says it."""
    return f"{count} completion{'' if count == 1 else 's'}"


def how_many(reached: Client, conditions: dict[str, Any]) -> str | None:
    """The completions that a filter matches, as one says it; None when there are none."""
    flat = {name: value for name, value in conditions.items() if name != "metadata" and value is not None}
    pairs = {f"metadata[{key}]": value for key, value in conditions.get("metadata", {}).items()}
    found = reached.get(COUNT, {**flat, **pairs})
    if not found["count"]:
        return None
    return f"at least {completions(found['count'])}" if found["at_least"] else completions(found["count"])


def carry_out(reached: Client, asked: dict[str, Any], doing: str) -> dict[str, Any]:
    """Starts the action and waits until it has ended, a restart of the server included.

    Raises BulkActionFailed unless it succeeds; what is done by then stays done.
    """
    action = reached.post(START, asked)
    look = FIRST_LOOK_SECONDS
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task(doing, total=action["matched"])
        try:
            while action["status"] not in ENDED:
                time.sleep(look)
                look = min(look * 2, LOOK_SECONDS)
                action = reached.patiently(f"{ACTIONS}/{action['id']}")
                progress.update(bar, total=action["matched"], completed=action["done"] + action["skipped"])
        except KeyboardInterrupt:
            note(f"{action['id']} goes on in the server.")
            raise
    if action["status"] != "succeeded":
        reason = f": {action['error']['message']}" if action["error"] else ""
        raise BulkActionFailed(f"{action['id']} is {action['status']} after {completions(action['done'])}{reason}")
    return action


def left_out(action: dict[str, Any]) -> str:
    """What was not done and why, as the end of a sentence; empty when all was."""
    because = action["skipped_because"]
    parts = []
    if because["not_found"]:
        parts.append(f"{because['not_found']} were not there")
    if because["too_many_pairs"]:
        parts.append(f"{because['too_many_pairs']} would have had more than 16 pairs and are as they were")
    return "".join(f"; {part}" for part in parts)
