"""What the teachers cost, what the students cost, what a student would have cost, and how well it agrees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stillroom import __version__, billing, catalog
from stillroom.api.costs import shown_budget
from stillroom.api.deployments import Window, last_days
from stillroom.api.wire import Call, Reply
from stillroom.billing import By, Kind, Total, day_of, rounded_microusd
from stillroom.billing.break_even import Traffic, instead_picousd, is_traffic
from stillroom.catalog import Deployment, DeploymentState, Model
from stillroom.clock import DAY_SECONDS
from stillroom.completions import figures
from stillroom.config import FINE_TUNED, SCRATCH, Settings, Student
from stillroom.errors import NotFound
from stillroom.evals.agreement import Agreement


@dataclass(frozen=True, kw_only=True)
class _Bill:
    """The ledger of the window, sorted by who answered and by what was counted."""

    teachers: list[Total]
    students: list[Total]
    """Their hosting is among it."""
    training: list[Total]
    evaluation: list[Total]


def show(call: Call) -> Reply:
    """The last 30 days: teachers' and students' calls and cost, what a student would have cost, agreement, budget."""
    return Reply(body=call.platform.overviews.get(call.project, lambda: _overview(call)))


def _overview(call: Call) -> dict[str, Any]:
    window = last_days()
    by = (By.DAY, By.KIND, By.MODEL, By.DEPLOYMENT, By.KEY)
    bill = _sorted(call.platform.settings, billing.totals(call.platform.database, call.project, by, since=window.since))
    with call.platform.database.read() as connection:
        stored = figures.stored(connection, call.project)
        tuned = catalog.models_by_name(connection, call.project)
        deployed = [(each, tuned.get(each.model)) for each in catalog.list_deployments(connection, call.project)]
    agreement = call.platform.agreements.newest(call.project)
    everything = (*bill.teachers, *bill.students, *bill.training, *bill.evaluation)
    return {
        "object": "stillroom.overview",
        "window": window.shown(),
        "stored": stored,
        "stored_at_least": stored >= figures.MOST_COUNTED,
        "teachers": _teachers(bill),
        "students": _students(bill),
        "per_day": _per_day(window, bill),
        "would_have": _would_have(call.platform.settings, window, bill, deployed),
        "agreement": _agreement(agreement) if agreement else None,
        "jobs_running": call.platform.fine_tuning.count_running(call.project),
        "training_microusd": _cost(bill.training),
        "evaluation_microusd": _cost(bill.evaluation),
        "spent_microusd": _cost(everything),
        "budget": _budget(call),
        "version": __version__,
    }


def _sorted(settings: Settings, totals: Iterable[Total]) -> _Bill:
    bill = _Bill(teachers=[], students=[], training=[], evaluation=[])
    for total in totals:
        match total.group[By.KIND]:
            case Kind.TRAINING:
                bill.training.append(total)
            case Kind.EVALUATION:
                bill.evaluation.append(total)
            case _ if _is_student(settings, str(total.group[By.MODEL])):
                bill.students.append(total)
            case _:
                bill.teachers.append(total)
    return bill


def _is_student(settings: Settings, model: str) -> bool:
    """What is neither is a teacher that was taken out of the configuration: it still has its traffic."""
    if model in settings.teachers:
        return False
    return model == SCRATCH or model in settings.students or model.startswith(FINE_TUNED)


def _teachers(bill: _Bill) -> list[dict[str, Any]]:
    """Those that were called most come first."""
    found = [
        {
            "name": name,
            "calls": sum(total.events for total in totals),
            "prompt_tokens": sum(total.prompt_tokens for total in totals),
            "completion_tokens": sum(total.completion_tokens for total in totals),
            "cost_microusd": _cost(totals),
        }
        for (name,), totals in _grouped(bill.teachers, By.MODEL).items()
    ]
    return sorted(found, key=lambda each: (-each["calls"], each["name"]))


def _students(bill: _Bill) -> list[dict[str, Any]]:
    """By the name that was called; hosting that is no single deployment's has the model's own."""
    found = []
    for (name, model), totals in _grouped(bill.students, By.DEPLOYMENT, By.MODEL).items():
        answers = [total for total in totals if total.group[By.KIND] == Kind.ANSWER]
        hosting = [total for total in totals if total.group[By.KIND] == Kind.HOSTING]
        calls = sum(total.events for total in answers)
        costs = {"cost_microusd": _cost(answers), "hosting_microusd": _cost(hosting)}
        found.append({"name": name or model, "model": model, "calls": calls, **costs})
    return sorted(found, key=lambda each: (-each["calls"], each["name"]))


def _per_day(window: Window, bill: _Bill) -> list[dict[str, Any]]:
    """Every day of the window, those without a call too."""
    teachers, students = _grouped(bill.teachers, By.DAY), _grouped(bill.students, By.DAY)
    return [
        {
            "day": day,
            "teacher_microusd": _cost(teachers.get((day,), [])),
            "student_microusd": _cost(students.get((day,), [])),
            "teacher_calls": _calls(teachers.get((day,), [])),
            "student_calls": _calls(students.get((day,), [])),
        }
        for day in (day_of(second) for second in range(window.since, window.until + 1, DAY_SECONDS))
    ]


def _would_have(
    settings: Settings, window: Window, bill: _Bill, deployed: list[tuple[Deployment, Model | None]]
) -> dict[str, Any] | None:
    """The calls of the teacher that was called most, at the price of the newest fine-tune that is deployed,
    hosted since the first of those calls' day."""
    ready = [(model, each) for each, model in deployed if model and each.state is DeploymentState.SUCCEEDED]
    calls = [total for total in bill.teachers if is_traffic(total)]
    if not ready or not calls:
        return None
    model, student = max(ready, key=lambda pair: (pair[0].number, pair[1].name))
    grouped = _grouped(calls, By.MODEL)
    (teacher,) = max(grouped, key=lambda name: (_calls(grouped[name]), str(name)))
    traffic = _traffic(str(teacher), grouped[teacher,], window)
    instead = instead_picousd(traffic, settings.students.get(model.base, Student()).price)
    return {
        "student": student.name,
        "teacher": teacher,
        "since": traffic.since,
        "calls": traffic.calls,
        "teacher_microusd": rounded_microusd(traffic.cost_picousd),
        "student_microusd": rounded_microusd(instead),
        "saved_microusd": rounded_microusd(traffic.cost_picousd - instead),
    }


def _traffic(teacher: str, totals: list[Total], window: Window) -> Traffic:
    first = min(str(total.group[By.DAY]) for total in totals)
    return Traffic(
        models=(teacher,),
        since=int(datetime.fromisoformat(first).replace(tzinfo=UTC).timestamp()),
        until=window.until,
        calls=_calls(totals),
        prompt_tokens=sum(total.prompt_tokens for total in totals),
        completion_tokens=sum(total.completion_tokens for total in totals),
        cost_picousd=sum(total.cost_picousd for total in totals),
    )


def _agreement(found: Agreement) -> dict[str, Any]:
    return {
        "eval": found.eval,
        "run": found.run,
        "model": found.model,
        "teacher": found.teacher,
        "rate": found.agreeing.share,
        "low": found.agreeing.low,
        "high": found.agreeing.high,
        "items": found.agreeing.total,
        "created_at": found.created_at,
        "report": f"/v1/stillroom/evals/{found.eval}/report?format=html",
    }


def _budget(call: Call) -> dict[str, Any] | None:
    try:
        return shown_budget(call.platform.budgets.get(call.project))
    except NotFound:
        return None


def _grouped(totals: Iterable[Total], *by: By) -> dict[tuple[str | None, ...], list[Total]]:
    found: dict[tuple[str | None, ...], list[Total]] = {}
    for total in totals:
        found.setdefault(tuple(total.group[each] for each in by), []).append(total)
    return found


def _calls(totals: Iterable[Total]) -> int:
    return sum(total.events for total in totals if total.group[By.KIND] == Kind.ANSWER)


def _cost(totals: Iterable[Total]) -> int:
    return rounded_microusd(sum(total.cost_picousd for total in totals))
