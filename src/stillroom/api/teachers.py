"""The configured teachers, and what they can do: `/v1/stillroom/teachers`."""

from __future__ import annotations

from typing import Any

from stillroom.api.wire import Call, Reply
from stillroom.billing import PICO, rounded_microusd
from stillroom.config import Teacher
from stillroom.gateway import complete
from stillroom.gateway import probe as probing
from stillroom.gateway.probe import Found


async def list_teachers(call: Call) -> Reply:
    """List teachers: the model that answers for each, and how many alternatives at each token are kept of its stored answers."""
    teachers = sorted(call.platform.settings.teachers.items())
    data = [_shown(call, name, teacher) for name, teacher in teachers]
    return Reply(body={"object": "list", "data": data, "has_more": False})


async def probe(call: Call) -> Reply:
    """Find out what a teacher can do, by asking it some small questions; they are metered like any call."""
    name = call.parameters["name"]
    target = call.platform.models.teacher(name)
    asked = complete.Call(
        request=probing.first_question(name),
        name=name,
        project=call.project,
        key_id=call.principal.key_id,
        request_id=call.request_id,
        by_model_name=False,
        target=target,
    )
    found = await probing.probe(call.platform.gateway, asked)
    call.platform.gateway.tolerance.try_anew(target.model)
    return Reply(body=_found(found))


def _shown(call: Call, name: str, teacher: Teacher) -> dict[str, Any]:
    # Every project's keys see this: nothing of where a teacher is, nor of how it is reached.
    return {
        "object": "stillroom.teacher",
        "name": name,
        "model": teacher.model or name,
        "top_logprobs": teacher.top_logprobs,
        "refuses_above": call.platform.gateway.tolerance.most_logprobs(name),
    }


def _found(found: Found) -> dict[str, Any]:
    return {
        "object": "stillroom.teacher_probe",
        "teacher": found.teacher,
        "top_logprobs": found.top_logprobs,
        "checks": [{"name": each.name, "can": each.can, "detail": each.detail} for each in found.checks],
        "advice": found.advice,
        "calls": found.calls,
        "cost_microusd": rounded_microusd(found.cost_picousd),
        "cost_usd": found.cost_picousd / PICO,
    }
