"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Annotated

import typer

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="The data folder of the server to talk to. Default: the server that STILLROOM_URL names, "
        "else the folder that the configuration names.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Only with this metadata; may be repeated.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done; exit 0 only on success.")]

AGO = re.compile(r"(\d+)([smhd])")
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def metadata(given: list[str] | None) -> dict[str, str]:
    """`key=value` texts as a mapping."""
    found: dict[str, str] = {}
    for text in given or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint="--metadata")
        found[key] = value
    return found


def since(text: str | None) -> int | None:
    """`2h`, `7d` or an ISO time, as seconds since the epoch."""
    if text is None:
        return None
    if ago := AGO.fullmatch(text):
        return int(time.time()) - int(ago[1]) * UNIT_SECONDS[ago[2]]
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither like 30m, 2h, 7d nor an ISO time.", param_hint="--since"
        ) from None
