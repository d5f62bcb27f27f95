"""Graders tried out alone: run on one answer, or only checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from stillroom.api.wire import Call, Reply
from stillroom.errors import InvalidRequest
from stillroom.graders import order
from stillroom.graders.problem import Problem, flags
from stillroom.worker.grade_once import grade_once


async def run(call: Call) -> Reply:
    """Grade one answer by one grader."""
    body = call.json()
    grader = _grader(body)
    answer, item = body.get("model_sample"), body.get("item") or {}
    if not isinstance(answer, str):
        raise InvalidRequest("'model_sample' must be the answer to grade, as a string.", param="model_sample")
    if not isinstance(item, dict):
        raise InvalidRequest("'item' must be an object.", param="item")
    await asyncio.to_thread(_check, call, grader)
    async with call.platform.evals.trying:
        began = time.monotonic()
        found = await grade_once(call.platform, call.principal, grader, answer, item)
        return Reply(body=_graded(grader, found, time.monotonic() - began))


def validate(call: Call) -> Reply:
    """Check a grader without running it."""
    grader = _grader(call.json())
    _check(call, grader)
    return Reply(body={"grader": grader})


def _grader(body: Mapping[str, Any]) -> dict[str, Any]:
    grader = body.get("grader")
    if not isinstance(grader, dict):
        raise InvalidRequest("'grader' must be an object.", param="grader", code="missing_required_parameter")
    return grader


def _check(call: Call, grader: Mapping[str, Any]) -> None:
    call.platform.evals.check_grader(call.project, order.read(grader, param="grader"), "grader")


def _graded(grader: Mapping[str, Any], found: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    (result,) = found["results"]
    problem = msgspec.convert(result["problem"], Problem | None)
    usage = found["usage"]
    return {
        "reward": result["score"],
        "metadata": {
            "name": result["name"],
            "type": grader["type"],
            "errors": flags(problem),
            "execution_time": seconds,
            "scores": result["sub_scores"] or {result["name"]: result["score"]},
            "token_usage": sum(used["total_tokens"] for used in usage.values()) if usage else None,
            "sampled_model_name": next(iter(usage), None),
        },
        "sub_rewards": result["sub_scores"] or {},
        "model_grader_token_usage_per_model": usage,
    }
