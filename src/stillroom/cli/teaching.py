"""`stillroom teachers`: who can be asked, and what each can do."""

from __future__ import annotations

from typing import Annotated

import typer

from stillroom.cli.client import connect, segment
from stillroom.cli.options import Data, Json
from stillroom.cli.output import as_json, err, note, say, table

app = typer.Typer(help="The teachers of the running server's configuration.", no_args_is_help=True)

TEACHERS = "/v1/stillroom/teachers"
ANSWERS = {True: "yes", False: "no", None: "?"}


@app.command("list")
def list_(json: Json = False, data: Data = None) -> None:
    """List teachers, and how many alternatives at each token are kept of their stored answers."""
    found = connect(data).get(TEACHERS)["data"]
    if json:
        as_json(found)
        return
    rows = [[each[name] for name in ("name", "model", "top_logprobs")] for each in found]
    table(("TEACHER", "MODEL", "TOP LOGPROBS"), rows, "The configuration names no teachers.")
    for each in found:
        if each["refuses_above"] is not None:
            note(f"{each['name']} refused more than {each['refuses_above']} alternatives within the last hour.")


@app.command()
def probe(
    name: Annotated[str, typer.Argument(metavar="TEACHER", help="As the configuration names it.")],
    json: Json = False,
    data: Data = None,
) -> None:
    """Find out what a teacher can do, by asking it some small questions; they are metered like any call.

    Exit status 1 when it does not answer.
    """
    reached = connect(data)
    with err.status(f"asking {name} ..."):
        found = reached.post(f"{TEACHERS}/{segment(name)}/probe")
    if json:
        as_json(found)
    else:
        rows = [(each["name"].replace("_", " "), ANSWERS[each["can"]], each["detail"]) for each in found["checks"]]
        table(("CAN IT", "", "WHAT SHOWED"), rows, "")
        say(found["advice"])
        note(f"{found['calls']} calls were answered; they cost {found['cost_usd']:.6f} USD.")
    if not found["checks"][0]["can"]:
        raise typer.Exit(1)
