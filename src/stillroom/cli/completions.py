"""`stillroom completions`: look at, export and delete stored completions."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from stillroom.cli.client import Client, connect, segment
from stillroom.cli.options import Data, Json, Metadata, metadata, since
from stillroom.cli.output import as_json, first_line, note, pairs, say, table, when

app = typer.Typer(help="Stored completions of the running server.", no_args_is_help=True)

Model = Annotated[str | None, typer.Option("--model", help="Only answers called under this name.")]
Since = Annotated[str | None, typer.Option("--since", metavar="T", help="Only from 30m, 2h, 7d ago, or an ISO time.")]
PATH = "/v1/chat/completions"


@app.command("list")
def list_(
    metadata_: Metadata = None,
    model: Model = None,
    since_: Since = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    json: Json = False,
    data: Data = None,
) -> None:
    """List stored completions, newest first."""
    found = list(_matching(connect(data), metadata_, model, since_, limit=limit, order="desc"))
    if json:
        as_json(found)
        return
    rows = [
        (c["id"], when(c["created"]), c["requested_model"], _status(c), pairs(c["metadata"]), first_line(_answer(c)))
        for c in found
    ]
    table(("ID", "CREATED", "MODEL", "STATUS", "METADATA", "ANSWER"), rows, "No stored completions match.")


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
    output: Annotated[
        str, typer.Option("--output", "-o", help="The JSONL file to write; - for standard output.")
    ] = "-",
    data: Data = None,
) -> None:
    """Write stored completions as JSON lines: each completion with the messages it was asked with."""
    reached = connect(data)
    target = sys.stdout if output == "-" else _opened(output)
    count = 0
    try:
        for completion in _matching(reached, metadata_, model, since_, limit=None, order="asc"):
            messages = list(reached.pages(f"{PATH}/{segment(completion['id'])}/messages", {}))
            target.write(jsonlib.dumps({**completion, "messages": messages}, ensure_ascii=False) + "\n")
            count += 1
    finally:
        if target is not sys.stdout:
            target.close()
    note(f"{count} completions exported.")


@app.command()
def delete(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones; or use the filters.")] = None,
    metadata_: Metadata = None,
    model: Model = None,
    since_: Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
) -> None:
    """Delete stored completions, by id or all that match the filters."""
    reached = connect(data)
    if not ids and not (metadata_ or model or since_):
        raise typer.BadParameter("name the completions, or at least one filter.")
    chosen = ids or [c["id"] for c in _matching(reached, metadata_, model, since_, limit=None, order="asc")]
    if not yes and not typer.confirm(f"Delete {len(chosen)} completions for good?", err=True):
        raise typer.Exit(1)
    for completion_id in chosen:
        reached.delete(f"{PATH}/{segment(completion_id)}")
    say(f"{len(chosen)} completions deleted.")


def _opened(path: str) -> TextIO:
    try:
        return Path(path).open("w", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}.", param_hint="--output") from error


def _matching(
    reached: Client, given: list[str] | None, model: str | None, since_: str | None, *, limit: int | None, order: str
) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {f"metadata[{key}]": value for key, value in metadata(given).items()}
    earliest = since(since_)
    query |= {"order": order, **({"model": model} if model else {})}
    for completion in reached.pages(PATH, query, limit):
        if earliest is None or completion["created"] >= earliest:
            yield completion
        elif order == "desc":
            return


def _status(completion: dict[str, Any]) -> str:
    return str(completion.get("status", "completed"))


def _answer(completion: dict[str, Any]) -> str:
    message = (completion["choices"] or [{"message": {}}])[0]["message"]
    return str(message.get("content") or jsonlib.dumps(message.get("tool_calls") or "", ensure_ascii=False))
