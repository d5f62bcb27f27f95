"""Teacher beside student: what the runs of an eval say of their models, in one object.

The teacher's side is what was stored: its answers, how long they took, what they cost. Each run's
side is what its model answered to the same prompts. Items are read a few hundred at a time, so that
a report of a large run takes little memory.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stillroom import billing
from stillroom.config import Price
from stillroom.evals.comparison import STUDENT_FIRST, TEACHER_FIRST, Preference, preference
from stillroom.evals.owner import Evals
from stillroom.evals.reporting.statistics import Share, percentile, share, sign_test
from stillroom.evals.table import Eval, OutputItem, Run
from stillroom.graders.subject import text_of
from stillroom.jobs import State

WORST = 12  # disagreements shown of a run
SLICES = 40  # metadata values shown of a run
SMALLEST_SLICE = 5  # items; fewer say nothing
CALLS = 1000

EarningOf = Callable[[list[str], str | None], "Earning | None"]
"""When a student, by its name, earns its training by answering instead of these teachers; None for no student."""

PAIRWISE = (TEACHER_FIRST, STUDENT_FIRST)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Milliseconds from the request to the whole answer."""

    p50_ms: int | None
    p95_ms: int | None


@dataclass(frozen=True, kw_only=True)
class Expense:
    """Tokens of one call on average, and what 1,000 such calls cost; None when no price is known."""

    prompt_tokens: float
    completion_tokens: float
    microusd_per_1000_calls: int | None


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How one criterion came out. `errored` items could not be graded and are in neither figure; `problem`
    is the most frequent reason."""

    name: str
    type: str
    passed: Share | None
    mean_score: float | None
    errored: int
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A judge's preference over all pairs, seen from the student."""

    wins: int
    ties: int
    losses: int
    win_or_tie: Share | None


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The items with one metadata value."""

    key: str
    value: str
    agreement: Share


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An item on which student and teacher differ; `score` is the mean of the graders', 0 to 1 at worst to best."""

    completion_id: str | None
    prompt: str
    teacher: str
    student: str
    score: float
    metadata: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is known of the items and the model's training. `tuned`: the model was trained here. `trained_on`:
    None when nobody knows; `left_out`: prompts that were trained on, and therefore not asked."""

    tuned: bool
    trained_on: int | None
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Earning:
    """When the training is earned at the teacher's traffic of late: in `days`, on the UTC `date`; both None, with
    the `reason`, when it never is. A student's day has its hosting in it."""

    training_microusd: int
    teacher_microusd_per_day: int
    student_microusd_per_day: int
    days: float | None
    date: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One run's model. `agreement` is exact: the same text but for space around it, the same tool calls."""

    run_id: str
    name: str
    model: str | None
    status: str
    items: int
    graded: int
    errored: int
    unanswered: int
    problem: str | None
    """Why items were not answered, most frequently."""
    agreement: Share | None
    criteria: list[Criterion]
    judged: Judged | None
    speed: Speed
    expense: Expense
    training: Training | None
    earning: Earning | None
    slices: list[Slice]
    worst: list[Disagreement]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The stored side. `models` says who answered how many of the items."""

    models: dict[str, int]
    items: int
    speed: Speed
    expense: Expense


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs on the items that both answered: where only one of them agrees with the teacher."""

    run_id: str
    beside_run_id: str
    items: int
    only_this_agrees: int
    only_beside_agrees: int
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report page shows."""

    eval_id: str
    name: str
    created_at: int
    criteria: list[str]
    judges: list[str]
    teacher: Teacher | None
    sides: list[Side]
    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)


def make(
    evals: Evals, definition: Eval, runs: Iterable[Run], prices: Mapping[str, Price], earning: EarningOf
) -> Report:
    """The report over an eval's runs, in their order. `prices` are by the names that are called."""
    teacher = _TeacherSide(prices)
    sides = []
    agreed: dict[str, dict[str, bool]] = {}
    for run in runs:
        side = _RunSide(definition, run, prices)
        for item in evals.walk(run):
            side.add(item)
            teacher.add(item)
        sides.append(side.result())
        agreed[run.id] = side.agreed
    stored = teacher.result()
    judges = sorted({one["model"] for one in definition.testing_criteria if "model" in one})
    if stored is not None:
        sides = [replace(side, earning=earning(list(stored.models), side.model)) for side in sides]
    return Report(
        eval_id=definition.id,
        name=definition.name,
        created_at=int(time.time()),
        criteria=[criterion["name"] for criterion in definition.testing_criteria],
        judges=judges,
        teacher=stored,
        sides=sides,
        pairs=_pairs({side.run_id: agreed[side.run_id] for side in sides if _unseen(side)}),
        notes=[*_judge_notes(judges, stored), *[note for side in sides for note in _notes(side)]],
    )


class _TeacherSide:
    """Gathers the stored side, each completion once though several runs asked it."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices
        self._seen: set[str] = set()
        self._models: Counter[str] = Counter()
        self._latencies: list[int] = []
        self._spent = _Spent()

    def add(self, item: OutputItem) -> None:
        reference, key = item.body.get("reference"), item.body["item"].get("id")
        if reference is None or key in self._seen:
            return
        self._seen.add(key)
        self._models[reference["model"]] += 1
        self._latencies.append(reference["latency_ms"])
        self._spent.add(reference.get("usage") or {}, self._prices.get(reference["model"]))

    def result(self) -> Teacher | None:
        if not self._seen:
            return None
        return Teacher(
            models=dict(self._models),
            items=len(self._seen),
            speed=_speed(self._latencies),
            expense=self._spent.result(),
        )


class _RunSide:
    """Gathers one run."""

    def __init__(self, definition: Eval, run: Run, prices: Mapping[str, Price]) -> None:
        self._run = run
        self._price = prices.get(run.model or "")
        self._places = [i for i, one in enumerate(definition.testing_criteria) if one["name"] not in PAIRWISE]
        self._criteria = [_Graded(definition.testing_criteria[place]) for place in self._places]
        self._preferences: Counter[Preference] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._slices: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._latencies: list[int] = []
        self._spent = _Spent()
        self._worst: list[tuple[float, int, Disagreement]] = []
        self.agreed: dict[str, bool] = {}

    def add(self, item: OutputItem) -> None:
        results = item.body["results"]
        if not results and item.body["sample"]["error"]:
            self._unanswered[item.body["sample"]["error"]["message"]] += 1
        if results:
            for graded, place in zip(self._criteria, self._places, strict=True):
                graded.add(results[place])
            if (preferred := preference(results)) is not None:
                self._preferences[preferred] += 1
        if item.body.get("latency_ms") is not None:
            self._latencies.append(item.body["latency_ms"])
        if self._run.model is not None and results:
            self._spent.add(item.body["sample"]["usage"], self._price)
        if item.body.get("agrees") is not None:
            self._compare(item, agrees=item.body["agrees"])

    def _compare(self, item: OutputItem, *, agrees: bool) -> None:
        asked = item.body["item"]
        self.agreed[asked["id"]] = agrees
        for pair in asked["metadata"].items():
            self._slices[pair][0] += agrees
            self._slices[pair][1] += 1
        if not agrees:
            scores = [one["score"] for one in item.body["results"] if one["problem"] is None]
            score = sum(scores) / len(scores) if scores else 0.0
            heapq.heappush(self._worst, (-score, -item.number, _disagreement(item, score)))
            if len(self._worst) > WORST:
                heapq.heappop(self._worst)

    def result(self) -> Side:
        run = self._run
        lineage = run.lineage if run.model is not None else None
        return Side(
            run_id=run.id,
            name=run.name,
            model=run.model,
            status=run.state.value,
            items=run.counts.total,
            graded=run.counts.passed + run.counts.failed,
            errored=run.counts.errored,
            unanswered=self._unanswered.total(),
            problem=_commonest(self._unanswered),
            agreement=share(sum(self.agreed.values()), len(self.agreed)),
            criteria=[graded.result() for graded in self._criteria],
            judged=self._judged(),
            speed=_speed(self._latencies),
            expense=self._spent.result(),
            training=_training(lineage),
            earning=None,
            slices=self._shown_slices(),
            worst=[one for _, _, one in sorted(self._worst, key=lambda kept: (-kept[0], -kept[1]))],
        )

    def _judged(self) -> Judged | None:
        wins, ties, losses = (self._preferences[one] for one in (Preference.WIN, Preference.TIE, Preference.LOSS))
        if wins + ties + losses == 0:
            return None
        total = wins + ties + losses
        return Judged(wins=wins, ties=ties, losses=losses, win_or_tie=share(wins + ties, total))

    def _shown_slices(self) -> list[Slice]:
        """The largest ones that say something, and not the one that is everything."""
        found = []
        for (key, value), (agreeing, total) in self._slices.items():
            agreement = share(agreeing, total)
            if agreement is not None and SMALLEST_SLICE <= total < len(self.agreed):
                found.append(Slice(key=key, value=value, agreement=agreement))
        largest = sorted(found, key=lambda one: -one.agreement.total)[:SLICES]
        return sorted(largest, key=lambda one: (one.key, one.agreement.share, one.value))


class _Graded:
    """Gathers one criterion's results."""

    def __init__(self, criterion: Mapping[str, Any]) -> None:
        self._name, self._type = criterion["name"], criterion["type"]
        self._passed = self._graded = 0
        self._problems: Counter[str] = Counter()
        self._sum = 0.0

    def add(self, result: Mapping[str, Any]) -> None:
        if result["problem"] is not None:
            self._problems[result["problem"]["details"]] += 1
            return
        self._graded += 1
        self._passed += result["passed"]
        self._sum += result["score"]

    def result(self) -> Criterion:
        return Criterion(
            name=self._name,
            type=self._type,
            passed=share(self._passed, self._graded),
            mean_score=self._sum / self._graded if self._graded else None,
            errored=self._problems.total(),
            problem=_commonest(self._problems),
        )


class _Spent:
    """Sums tokens and what they cost."""

    def __init__(self) -> None:
        self._calls = self._prompt = self._completion = self._picousd = 0
        self._priced = True

    def add(self, usage: Mapping[str, Any], price: Price | None) -> None:
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        cached = usage.get("cached_tokens") or (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        self._calls += 1
        self._prompt += prompt
        self._completion += completion
        if price is None:
            self._priced = False
            return
        entry = billing.Entry(
            project=0,
            kind=billing.Kind.ANSWER,
            model="",
            prompt_tokens=prompt,
            cached_tokens=min(cached, prompt),
            completion_tokens=completion,
        )
        self._picousd += billing.cost_picousd(entry, price)

    def result(self) -> Expense:
        calls = max(1, self._calls)
        cost = billing.rounded_microusd(self._picousd * CALLS // calls) if self._priced and self._calls else None
        return Expense(
            prompt_tokens=self._prompt / calls, completion_tokens=self._completion / calls, microusd_per_1000_calls=cost
        )


def _training(lineage: Mapping[str, Any] | None) -> Training | None:
    if lineage is None:
        return None
    return Training(tuned=lineage["tuned"], trained_on=lineage["trained_on"], left_out=lineage["left_out"])


def _commonest(reasons: Counter[str]) -> str | None:
    return reasons.most_common(1)[0][0] if reasons else None


def _unseen(side: Side) -> bool:
    """Whether its figures are of items that it was not trained on, so that it can be compared with others."""
    return side.training is not None and side.training.trained_on == 0


def _speed(latencies: list[int]) -> Speed:
    ordered = sorted(latencies)
    return Speed(p50_ms=percentile(ordered, 50), p95_ms=percentile(ordered, 95))


def _disagreement(item: OutputItem, score: float) -> Disagreement:
    asked, output = item.body["item"], item.body["sample"]["output"]
    return Disagreement(
        completion_id=asked["id"],
        prompt=_last_said(asked["input"]),
        teacher=_said(item.body["reference"]["message"]),
        student=_said(output[0]) if output else "",
        score=score,
        metadata=asked["metadata"],
    )


def _last_said(messages: list[dict[str, Any]]) -> str:
    return next((text_of(message) for message in reversed(messages) if message.get("role") == "user"), "")


def _said(message: Mapping[str, Any]) -> str:
    calls = [call.get("function") or {} for call in message.get("tool_calls") or []]
    return "\n".join([text_of(message), *(f"{call.get('name')}({call.get('arguments')})" for call in calls)]).strip()


def _pairs(agreed: Mapping[str, Mapping[str, bool]]) -> list[Pair]:
    """Each run beside each earlier one, on the items that both answered."""
    runs = [run for run, answers in agreed.items() if answers]
    found = []
    for place, beside in enumerate(runs):
        for run in runs[place + 1 :]:
            both = agreed[run].keys() & agreed[beside].keys()
            only_this = sum(agreed[run][key] and not agreed[beside][key] for key in both)
            only_beside = sum(agreed[beside][key] and not agreed[run][key] for key in both)
            found.append(
                Pair(
                    run_id=run,
                    beside_run_id=beside,
                    items=len(both),
                    only_this_agrees=only_this,
                    only_beside_agrees=only_beside,
                    p_value=sign_test(only_this, only_beside),
                )
            )
    return found


def _judge_notes(judges: list[str], teacher: Teacher | None) -> list[str]:
    own = [judge for judge in judges if teacher is not None and judge in teacher.models]
    if not own:
        return []
    return [
        f"{own[0]} judges answers beside its own, and may prefer its own way of saying things: ask another model too."
    ]


def _notes(side: Side) -> list[str]:
    """What a reader must know before believing a side's figures."""
    found = []
    if side.training is not None and side.training.trained_on is None:
        found.append(f"{side.name}: it is not known what {side.model} was trained on; some items may be among that.")
    elif side.training is not None and side.training.trained_on:
        found.append(
            f"{side.name}: {side.model} was trained on {side.training.trained_on} of the {side.items} items. "
            "Its figures are too good; compare on held-out items instead."
        )
    if side.unanswered:
        found.append(
            f"{side.name}: {side.unanswered} of {side.items} items have no answer, mostly because: {side.problem}"
        )
    for one in side.criteria:
        if one.errored:
            found.append(
                f"{side.name}: “{one.name}” could not grade {one.errored} of {side.items} items, mostly because: {one.problem}"
            )
    if side.status != State.SUCCEEDED:
        found.append(f"{side.name}: the run is {side.status}; the figures are of the items it had graded.")
    return found
