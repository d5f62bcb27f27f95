"""What was used and what it cost, what things are priced at, and the project's budget: `/v1/stillroom`."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any, Literal

import msgspec

from stillroom import billing
from stillroom.api.extensions import body_as
from stillroom.api.wire import Call, Reply
from stillroom.billing import BudgetState, By, Period, Total
from stillroom.config import MICRO
from stillroom.errors import InvalidRequest, NotFound
from stillroom.serving.prices import Priced, price_book

BY_DEFAULT = (By.KIND, By.MODEL)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
NUMBERS = (
    "events",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "saved_prompt_tokens",
    "trained_tokens",
    "hosted_seconds",
    "cost_microusd",
    "cost_usd",
)


class BudgetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`usd` may be spent in each calendar month (UTC), or in total."""

    usd: Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000)]
    period: Literal["month", "total"] = "month"


def usage(call: Call) -> Reply:
    """What was used and what it cost, `group_by` day, deployment, model, key, kind (or some of them,
    with commas), from `since` to before `until` (seconds since the epoch), in `format` json or csv."""
    by = _groups(call)
    is_csv = _is_csv(call)
    since, until = seconds(call, "since"), seconds(call, "until")
    totals = billing.totals(call.platform.database, call.project, by, since=since or 0, until=until)
    names = {key.id: key.name for key in call.platform.keys.of_project(call.project)} if By.KEY in by else {}
    shown = [_shown(total, names) for total in totals]
    if is_csv:
        headers = {"content-type": "text/csv; charset=utf-8", "content-disposition": 'attachment; filename="usage.csv"'}
        return Reply(body=_as_csv(by, shown), headers=headers)
    return Reply(body={"object": "list", "data": shown, "has_more": False})


def prices(call: Call) -> Reply:
    """The price book: what every teacher, student, model and deployment is counted at, and where that is set."""
    with call.platform.database.read() as connection:
        book = price_book(call.platform.settings, connection, call.project)
    return Reply(body={"object": "list", "data": [_shown_price(priced) for priced in book], "has_more": False})


def get_budget(call: Call) -> Reply:
    """The project's budget and what is spent of it."""
    return Reply(body=shown_budget(call.platform.budgets.get(call.project)))


def put_budget(call: Call) -> Reply:
    """Set the project's budget: when it is spent, new fine-tuning jobs and eval runs are refused."""
    asked = body_as(call, BudgetRequest)
    state = call.platform.budgets.put(call.project, billing.microusd(asked.usd), Period(asked.period))
    return Reply(body=shown_budget(state))


def delete_budget(call: Call) -> Reply:
    """End the project's budget."""
    if not call.platform.budgets.remove(call.project):
        raise NotFound("This project has no budget.", param="budget")
    return Reply(body={"object": "stillroom.budget.deleted", "deleted": True})


def _groups(call: Call) -> tuple[By, ...]:
    text = call.query.get("group_by")
    if text is None:
        return BY_DEFAULT
    words = list(dict.fromkeys(text.split(",")))
    try:
        return tuple(By(word) for word in words)
    except ValueError:
        raise InvalidRequest(
            f"Invalid 'group_by': {text[:60]!r}. Expected some of {', '.join(By)}, with commas between them.",
            param="group_by",
        ) from None


def _is_csv(call: Call) -> bool:
    text = call.query.get("format", "json")
    if text not in ("json", "csv"):
        raise InvalidRequest(f"Invalid 'format': {text[:40]!r}. Expected 'json' or 'csv'.", param="format")
    return text == "csv"


def _as_csv(by: tuple[By, ...], rows: list[dict[str, Any]]) -> bytes:
    """The rows under the names that they have in JSON; what has no value is an empty cell."""
    groups = [name for each in by for name in (("key_id", "key") if each is By.KEY else (each.value,))]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, [*groups, *NUMBERS], extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue().encode()


def _cell(value: Any) -> Any:
    """Names are their owners' choice: one that a spreadsheet would take for a formula begins with a quote."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def seconds(call: Call, name: str) -> int | None:
    """The time that a query's field names; None without one. Raises InvalidRequest for what is no time."""
    return call.number(name, "seconds since the epoch")


def _shown(total: Total, key_names: dict[str, str]) -> dict[str, Any]:
    group: dict[str, str | None] = {}
    for by, value in total.group.items():
        if by is By.KEY:
            group["key_id"] = value
            group["key"] = key_names.get(value, value) if value is not None else None
        else:
            group[by.value] = value
    return {
        "object": "stillroom.usage",
        **group,
        "events": total.events,
        "prompt_tokens": total.prompt_tokens,
        "cached_tokens": total.cached_tokens,
        "completion_tokens": total.completion_tokens,
        "saved_prompt_tokens": total.saved_tokens,
        "trained_tokens": total.trained_tokens,
        "hosted_seconds": total.hosted_seconds,
        "cost_microusd": total.cost_microusd,
        "cost_usd": total.cost_usd,
    }


def _shown_price(priced: Priced) -> dict[str, Any]:
    price = priced.price
    per_million = {
        "input": price.input,
        "cached_input": price.input if price.cached_input is None else price.cached_input,
        "output": price.output,
        "training": price.training,
    }
    return {
        "object": "stillroom.price",
        "name": priced.name,
        "kind": priced.sort.value,
        "of": priced.of,
        "usd_per_million": per_million,
        "microusd_per_million": {name: billing.microusd(usd) for name, usd in per_million.items()},
        "usd_per_hosting_hour": price.hosting_hour,
        "microusd_per_hosting_hour": billing.microusd(price.hosting_hour),
        "source": priced.source,
    }


def shown_budget(state: BudgetState) -> dict[str, Any]:
    """As the API shows it."""
    return {
        "object": "stillroom.budget",
        "usd": state.limit_microusd / MICRO,
        "limit_microusd": state.limit_microusd,
        "spent_microusd": state.spent_microusd,
        "spent": state.is_spent,
        "period": state.period.value,
        "begins_at": state.begins_at,
        "ends_at": state.ends_at,
        "updated_at": state.updated_at,
    }
