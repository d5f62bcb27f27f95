"""`stillroom keys`: make, list and revoke API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from stillroom.cli.client import connect, segment
from stillroom.cli.options import Data, Json
from stillroom.cli.output import as_json, note, say, table, when

app = typer.Typer(help="API keys of the running server.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")], json: Json = False, data: Data = None
) -> None:
    """Make a key. It is printed once: only its hash is kept."""
    made = connect(data).post("/v1/stillroom/keys", {"name": name})
    if json:
        as_json(made)
        return
    say(made["key"])
    note(f"{made['id']}: keep the key above now, it cannot be shown again.")


@app.command("list")
def list_(json: Json = False, data: Data = None) -> None:
    """List the keys, without their secrets."""
    found = connect(data).get("/v1/stillroom/keys")["data"]
    if json:
        as_json(found)
        return
    rows = [(k["id"], k["name"], k["shown"] + "…", when(k["created_at"]), when(k["revoked_at"])) for k in found]
    table(("ID", "NAME", "KEY", "CREATED", "REVOKED"), rows, "No keys.")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], data: Data = None) -> None:
    """End a key."""
    connect(data).delete(f"/v1/stillroom/keys/{segment(key_id)}")
    say(f"{key_id} is revoked.")
