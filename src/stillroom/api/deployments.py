"""Deployments with their traffic, speed and price: what the ledger and the stored completions say of each name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stillroom import billing, catalog
from stillroom.api.costs import seconds
from stillroom.api.wire import Call, Reply
from stillroom.billing import By, Kind, Total, rounded_microusd
from stillroom.catalog import Deployment, DeploymentState, Model
from stillroom.clock import DAY_SECONDS
from stillroom.completions.figures import Latencies
from stillroom.config import SCRATCH, Price
from stillroom.evals.reporting.statistics import percentile
from stillroom.serving.prices import Sort, price_book

WINDOW_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `since` to now, in seconds since the epoch."""

    since: int
    until: int

    def shown(self) -> dict[str, int]:
        return {"since": self.since, "until": self.until}


async def list_deployments(call: Call) -> Reply:
    """List deployments with their traffic, latency, hosting and cost since `since`; of 30 days unless told otherwise."""
    loaded = call.platform.hosting.loaded_names(call.project)  # the event loop's own, so not from the thread
    return await asyncio.to_thread(_listed, call, loaded)


def last_days() -> Window:
    """Today and the days before it, whole ones in UTC: sums of whole days are there already."""
    now = int(time.time())
    return Window(since=(now // DAY_SECONDS - WINDOW_DAYS + 1) * DAY_SECONDS, until=now)


def _listed(call: Call, loaded: frozenset[str]) -> Reply:
    window, since = last_days(), seconds(call, "since")
    if since is not None:
        window = Window(since=since, until=window.until)
    project, database = call.project, call.platform.database
    totals = billing.totals(database, project, (By.DAY, By.DEPLOYMENT, By.KIND), since=window.since)
    with database.read() as connection:
        found = catalog.list_deployments(connection, project)
        tuned = catalog.models_by_name(connection, project)
        speeds = {
            each.name: call.platform.speeds.of(connection, project, each.name, since=window.since) for each in found
        }
        book = price_book(call.platform.settings, connection, project)
    prices = {priced.name: priced.price for priced in book if priced.sort is Sort.DEPLOYMENT}
    data = [
        {
            **_described(call, each, tuned.get(each.model), loaded),
            **_used([total for total in totals if total.group[By.DEPLOYMENT] == each.name]),
            **_priced(prices[each.name]),
            **_speed(speeds[each.name]),
        }
        for each in found
    ]
    return Reply(body={"object": "list", "data": data, "has_more": False, "window": window.shown()})


def _described(call: Call, deployment: Deployment, tuned: Model | None, loaded: frozenset[str]) -> dict[str, Any]:
    settings = call.platform.settings
    is_base = deployment.model in settings.students and deployment.model not in settings.teachers
    is_base = is_base or deployment.model == SCRATCH
    failed = deployment.state is DeploymentState.FAILED
    return {
        "object": "stillroom.deployment",
        "name": deployment.name,
        "model": deployment.model,
        "base": tuned.base if tuned else deployment.model if is_base else None,
        "job": tuned.job if tuned else None,
        "dropped_prompt": _dropped(tuned),
        "state": deployment.state.value,
        "error": {"code": "DeploymentFailed", "message": deployment.error} if failed else None,
        "created_at": deployment.created_at,
        # A teacher has nothing to load, so it is as ready as a student that is.
        "loaded": deployment.model in loaded or (tuned is None and deployment.model in settings.teachers),
    }


def _dropped(tuned: Model | None) -> dict[str, Any] | None:
    """The system prompt that the model is asked without, and what that saves each call that has it."""
    if tuned is None or tuned.dropped_prompt is None:
        return None
    return {"text": tuned.dropped_prompt, "tokens": tuned.dropped_prompt_tokens}


def _used(totals: Iterable[Total]) -> dict[str, Any]:
    answers, hosting = [], []
    for total in totals:
        if total.group[By.KIND] == Kind.ANSWER:
            answers.append(total)
        elif total.group[By.KIND] == Kind.HOSTING:
            hosting.append(total)
    return {
        "calls": sum(total.events for total in answers),
        "prompt_tokens": sum(total.prompt_tokens for total in answers),
        "completion_tokens": sum(total.completion_tokens for total in answers),
        "saved_prompt_tokens": sum(total.saved_tokens for total in answers),
        "cost_microusd": rounded_microusd(sum(total.cost_picousd for total in answers)),
        "hosted_seconds": sum(total.hosted_seconds for total in hosting),
        "hosting_microusd": rounded_microusd(sum(total.cost_picousd for total in hosting)),
        "calls_per_day": [{"day": total.group[By.DAY], "calls": total.events} for total in answers],
    }


def _priced(price: Price) -> dict[str, Any]:
    return {
        "price": {"input": price.input, "output": price.output},
        "usd_per_hosting_hour": price.hosting_hour,
    }


def _speed(found: Latencies) -> dict[str, Any]:
    if not found.total_ms:
        return {"latency_ms": None, "first_token_ms": None}
    whole = found.total_ms
    return {
        "latency_ms": {"p50": percentile(whole, 50), "p95": percentile(whole, 95), "calls": len(whole)},
        "first_token_ms": {"p50": percentile(found.first_token_ms, 50)},
    }
