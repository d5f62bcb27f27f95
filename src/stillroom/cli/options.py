"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from typing import Annotated

import typer

from stillroom.clock import moment

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
    try:
        return moment(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--since") from None
