"""`stillroom completions`: look at, export and delete stored completions."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from stillroom.cli import bulk
from stillroom.cli.client import Client, connect, segment
from stillroom.cli.options import Data, Json, Metadata, metadata, since
from stillroom.cli.output import as_json, first_line, note, pairs, say, table, when

app = typer.Typer(help="Stored completions of the running server.", no_args_is_help=True)

Model = Annotated[str | None, typer.Option("--model", help="Only answers called under this name.")]
Since = Annotated[str | None, typer.Option("--since", metavar="T", help="Only from 30m, 2h, 7d ago, or an ISO time.")]
Search = Annotated[
    str | None, typer.Option("--search", metavar="TEXT", help='Only where all these words, or "phrases", are said.')
]
PATH = "/v1/chat/completions"
NONE_MATCH = "No stored completions match."


@app.command("list")
def list_(
    metadata_: Metadata = None,
    model: Model = None,
    since_: Since = None,
    search: Search = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    json: Json = False,
    data: Data = None,
) -> None:
    """List stored completions, newest first."""
    found = list(_newest(connect(data), _conditions(metadata_, model, since_, search), limit))
    if json:
        as_json(found)
        return
    rows = [
        (c["id"], when(c["created"]), c["requested_model"], _status(c), pairs(c["metadata"]), first_line(_answer(c)))
        for c in found
    ]
    table(("ID", "CREATED", "MODEL", "STATUS", "METADATA", "ANSWER"), rows, NONE_MATCH)


@app.command()
def show(completion_id: Annotated[str, typer.Argument(metavar="ID")], json: Json = False, data: Data = None) -> None:
    """Show one stored completion as a conversation."""
    reached = connect(data)
    path = f"{PATH}/{segment(completion_id)}"
    found, messages = reached.get(path), reached.get(f"{path}/messages", {"limit": 100})["data"]
    if json:
        as_json({**found, "messages": messages})
        return
    for message in messages:
        say(f"[{message['role']}] {message['content'] or ''}")
    say(f"[assistant] {_answer(found)}")
    usage = found.get("usage") or {}
    tokens = f"{usage.get('prompt_tokens')}+{usage.get('completion_tokens')} tokens"
    note(
        f"{found['requested_model']}  {_status(found)}  {when(found['created'])}  {tokens}  {pairs(found['metadata'])}"
    )


@app.command()
def export(
    metadata_: Metadata = None,
    model: Model = None,
    since_: Since = None,
    search: Search = None,
    format_: Annotated[
        str, typer.Option("--format", help="full: all that is kept of each; training: examples to train on.")
    ] = "full",
    soft_labels: Annotated[
        bool, typer.Option("--soft-labels", help="With what teachers weighed at each token, packed, where it is kept.")
    ] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="The JSONL file to write; - for standard output.")
    ] = "-",
    data: Data = None,
) -> None:
    """Write stored completions as JSON lines, oldest first."""
    body = {"filter": _conditions(metadata_, model, since_, search), "format": format_, "soft_labels": soft_labels}
    exported = connect(data).download(bulk.EXPORT, body)
    first = next(exported, b"")  # a refusal shall not leave an empty file behind
    count = 0
    with _opened(output) if output != "-" else nullcontext(sys.stdout.buffer) as target:
        for piece in chain([first], exported):
            target.write(piece)
            count += piece.count(b"\n")
    note(f"{bulk.completions(count)} exported.")


@app.command()
def tag(
    pairs_: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="The metadata to add; KEY= takes it away.")
    ],
    metadata_: Metadata = None,
    model: Model = None,
    since_: Since = None,
    search: Search = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Add metadata to all stored completions that match the filters."""
    reached = connect(data)
    changes = {key: value or None for key, value in metadata(pairs_).items()}
    conditions = _conditions(metadata_, model, since_, search)
    if not conditions:
        raise typer.BadParameter("name at least one filter; without one, every completion would be tagged.")
    many = bulk.how_many(reached, conditions)
    if many is None:
        note(NONE_MATCH)
        return
    if not yes and not typer.confirm(f"Tag {many}?", err=True):
        raise typer.Exit(1)
    action = bulk.carry_out(reached, {"action": "tag", "filter": conditions, "metadata": changes}, "Tagging")
    say(f"{bulk.completions(action['done'])} tagged{bulk.left_out(action)}.")


@app.command()
def delete(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones; or use the filters.")] = None,
    metadata_: Metadata = None,
    model: Model = None,
    since_: Since = None,
    search: Search = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Delete stored completions, by id or all that match the filters."""
    reached = connect(data)
    conditions = _conditions(metadata_, model, since_, search)
    if not ids and not conditions:
        raise typer.BadParameter("name the completions, or at least one filter.")
    many = bulk.completions(len(ids)) if ids else bulk.how_many(reached, conditions)
    if many is None:
        note(NONE_MATCH)
        return
    if not yes and not typer.confirm(f"Delete {many} for good?", err=True):
        raise typer.Exit(1)
    if ids:
        for completion_id in ids:
            reached.delete(f"{PATH}/{segment(completion_id)}")
        say(f"{bulk.completions(len(ids))} deleted.")
        return
    action = bulk.carry_out(reached, {"action": "delete", "filter": conditions}, "Deleting")
    say(f"{bulk.completions(action['done'])} deleted.")


def _conditions(given: list[str] | None, model: str | None, since_: str | None, search: str | None) -> dict[str, Any]:
    """The filter that the options make; empty when there are none. One that was given empty matches nothing."""
    found = {"metadata": metadata(given), "model": model, "created_after": since(since_), "search": search}
    return {name: value for name, value in found.items() if value not in (None, {})}


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("wb")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}.", param_hint="--output") from error


def _newest(reached: Client, conditions: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {f"metadata[{key}]": value for key, value in conditions.get("metadata", {}).items()}
    query |= {name: conditions[name] for name in ("model", "search") if name in conditions}
    earliest = conditions.get("created_after", 0)
    for completion in reached.pages(PATH, {**query, "order": "desc"}, limit):
        if completion["created"] < earliest:
            return
        yield completion


def _status(completion: dict[str, Any]) -> str:
    return str(completion.get("status", "completed"))


def _answer(completion: dict[str, Any]) -> str:
    message = (completion["choices"] or [{"message": {}}])[0]["message"]
    return str(message.get("content") or jsonlib.dumps(message.get("tool_calls") or "", ensure_ascii=False))
