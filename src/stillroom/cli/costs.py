"""`stillroom usage`, `prices` and `budget`: what was used, what it costs, how much may be spent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from stillroom.cli.client import connect
from stillroom.cli.options import Data, Json, since
from stillroom.cli.output import as_json, note, say, table, when

budget = typer.Typer(help="The project's budget.", no_args_is_help=True)

USAGE = "/v1/stillroom/usage"
PRICES = "/v1/stillroom/prices"
BUDGET = "/v1/stillroom/budget"
MICRO = 1_000_000
MOST_USD = 1_000_000_000
COUNTED = {
    "EVENTS": "events",
    "PROMPT": "prompt_tokens",
    "CACHED": "cached_tokens",
    "COMPLETION": "completion_tokens",
    "SAVED": "saved_prompt_tokens",
    "TRAINED": "trained_tokens",
    "HOSTED S": "hosted_seconds",
}


def usage(
    by: Annotated[
        str, typer.Option("--by", help="day, deployment, model, key or kind; several with commas between them.")
    ] = "kind,model",
    since_: Annotated[
        str | None, typer.Option("--since", metavar="T", help="Only from 30m, 2h, 7d ago, or an ISO time.")
    ] = None,
    json: Json = False,
    data: Data = None,
) -> None:
    """What was used and what it cost."""
    query = {"group_by": by, **({} if since_ is None else {"since": since(since_)})}
    found = connect(data).get(USAGE, query)["data"]
    if json:
        as_json(found)
        return
    groups = [*dict.fromkeys(by.split(","))]
    rows = [
        (
            *(row[group] or "-" for group in groups),
            *(row[name] for name in COUNTED.values()),
            _dollars(row["cost_microusd"]),
        )
        for row in found
    ]
    columns = (*(group.upper() for group in groups), *COUNTED, "USD")
    table(columns, rows, "Nothing was used.")
    if found:
        note(f"In all: {_dollars(sum(row['cost_microusd'] for row in found))} USD.")


def prices(json: Json = False, data: Data = None) -> None:
    """The price book: USD per million tokens and per hosted hour, and where each is set."""
    found = connect(data).get(PRICES)["data"]
    if json:
        as_json(found)
        return
    columns = ("NAME", "KIND", "INPUT", "CACHED", "OUTPUT", "TRAINING", "HOUR", "SOURCE")
    rows = [
        (
            row["name"],
            row["kind"],
            *(f"{row['usd_per_million'][name]:g}" for name in ("input", "cached_input", "output", "training")),
            f"{row['usd_per_hosting_hour']:g}",
            row["source"],
        )
        for row in found
    ]
    table(columns, rows, "Nothing has a price.")


@budget.command()
def show(json: Json = False, data: Data = None) -> None:
    """The budget and what is spent of it."""
    _print(connect(data).get(BUDGET), json)


def _amount(usd: float) -> float:
    if not 0 <= usd <= MOST_USD:  # NaN is neither
        raise typer.BadParameter(f"{usd:g} is no amount of USD from 0 to {MOST_USD:,}.")
    return usd


# Without the setting, -5 would be taken for an option.
@budget.command("set", context_settings={"ignore_unknown_options": True})
def set_(
    usd: Annotated[float, typer.Argument(metavar="USD", help="How much may be spent.", callback=_amount)],
    period: Annotated[
        Literal["month", "total"], typer.Option("--period", help="month: each calendar month in UTC; total: for good.")
    ] = "month",
    json: Json = False,
    data: Data = None,
) -> None:
    """Set the budget. When it is spent, new fine-tuning jobs and eval runs are refused; answers go on."""
    _print(connect(data).put(BUDGET, {"usd": usd, "period": period}, {}), json)


@budget.command()
def remove(data: Data = None) -> None:
    """End the budget."""
    connect(data).delete(BUDGET)
    say("The budget is removed.")


def _print(state: dict[str, Any], json: bool) -> None:
    if json:
        as_json(state)
        return
    period = "this month" if state["period"] == "month" else "in total"
    say(f"{_dollars(state['spent_microusd'])} of {_dollars(state['limit_microusd'])} USD are spent {period}.")
    if state["ends_at"]:
        note(f"The next month begins at {when(state['ends_at'])}.")


def _dollars(micro: int) -> str:
    """Exactly, from the integer."""
    return f"{micro // MICRO}.{micro % MICRO:06d}"
