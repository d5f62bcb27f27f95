"""One question to a model: through the gateway, metered, paid once, and asked again when the model is overloaded.

Each has a name of its own, by which the gateway keeps its answer: a run that was killed between an answer and the
journal asks again, and gets what was kept. What is asked is part of the name, so that another question never gets it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stillroom import auth, billing, chat
from stillroom.assembly import Platform
from stillroom.chat import MOST_TOP_LOGPROBS, Usage
from stillroom.config import DistillationSettings
from stillroom.distillation.allowance import MOST_TOKENS, Allowance
from stillroom.distillation.problems import DistillationFailed
from stillroom.distillation.throttle import LONGEST_PAUSE_SECONDS, TOLD_SECONDS, Throttle
from stillroom.errors import StudentUnavailable, TeacherFailed, TeacherRefused, TeacherTimeout
from stillroom.gateway.complete import Call
from stillroom.gateway.tolerance import FEW, names_logprobs
from stillroom.serving.models import Target

TRY_AGAIN = {408, 409, 413, 425, 429, 500, 502, 503, 504, 529}
OVERLOADED = {429, 503, 529}
NOT_FOUND = 404
REFUSES_ALL = (401, 403, NOT_FOUND)  # no other row would fare better
KEY_LETTERS = 64
LIMIT, NEWER_LIMIT = LIMITS = ("max_tokens", "max_completion_tokens")  # of an answer's tokens


class Unanswered(Exception):
    """The model did not answer this question; `status` is None when nothing came back at all. `is_gone`: it might
    have been any question. `names_logprobs`: it was refused for the logprobs that it asked for."""

    def __init__(self, reason: str, status: int | None, *, is_gone: bool, names_logprobs: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.is_gone = is_gone
        self.names_logprobs = names_logprobs


class RefusesAll(DistillationFailed):
    """The model refuses whoever asks like this."""

    code = "teacher_refuses"


class NoSoftLabels(DistillationFailed):
    """The teacher does not tell how likely it held its words, from which the student was to learn."""

    code = "no_soft_labels"


@dataclass(kw_only=True)
class Spent:
    """What the questions of one row came to."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_picousd: int = 0

    def add(self, usage: Usage, cost: int) -> None:
        self.calls += 1
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.cost_picousd += cost


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The first choice of an answer."""

    message: Mapping[str, Any]
    finish_reason: str | None
    logprobs: Mapping[str, Any] | None
    completion: Mapping[str, Any]


class Asker:
    """Whoever is asked in one run. Lives on the event loop."""

    def __init__(
        self, platform: Platform, key_id: str, throttle: Throttle, allowance: Allowance, tell: Callable[[str], None]
    ) -> None:
        self._platform = platform
        self._tell = tell
        self._told_at = 0.0
        self._settings: DistillationSettings = platform.settings.distillation
        self._key_id = key_id
        self._throttle = throttle
        self._allowance = allowance
        self._targets: dict[str, Target] = {}
        self._newer: set[str] = set()
        """Those that know the newer limit alone."""
        self.answers = 0
        """How many came in this process."""
        self.has_weighed = False
        """Whether one of them had logprobs."""

    async def meet(self, model: str) -> Target:
        """Who answers under the name; a student is loaded first. Raises ModelNotFound."""
        if model not in self._targets:
            project = auth.DEFAULT_PROJECT
            self._targets[model] = await self._platform.models.resolve(project, model, by_model_name=True)
        return self._targets[model]

    async def alternatives(self, model: str) -> int:
        """How many alternatives to each token to ask the model for. Raises NoSoftLabels when it has refused any."""
        target = await self.meet(model)
        wanted = target.top_logprobs or MOST_TOP_LOGPROBS
        most = self._platform.gateway.tolerance.most_logprobs(target.model)
        found = wanted if most is None else min(wanted, most)
        if not found:
            raise NoSoftLabels(
                f"'{model}' refuses to tell `logprobs`, which soft_label_weight learns from. Leave it out, or name another "
                "teacher.",
                param="hyperparameters.soft_label_weight",
            )
        return found

    async def refused_alternatives(self, model: str, number: int) -> None:
        """The model has refused to tell so many alternatives."""
        target = await self.meet(model)
        tolerance, most = self._platform.gateway.tolerance, FEW if number > FEW else 0
        known = tolerance.most_logprobs(target.model)
        if known is None or most < known:  # else others were told before us
            tolerance.refused_above(target.model, most)

    async def ask(self, body: Mapping[str, Any], *, key: str, spent: Spent) -> Reply:
        """The answer. Raises Unanswered when there is none, BudgetReached before one could cost too much."""
        model = body["model"]
        target = await self.meet(model)
        limited = self._limited(body, target)
        try:
            return await self._ask(target, limited, key, spent)
        except Unanswered as unanswered:
            # A reasoning model knows the newer limit alone, and names it.
            if limited is body or NEWER_LIMIT in limited or NEWER_LIMIT not in unanswered.reason:
                raise
        self._newer.add(model)
        return await self._ask(target, self._limited(body, target), key, spent)

    async def _ask(self, target: Target, body: Mapping[str, Any], key: str, spent: Spent) -> Reply:
        model = body["model"]
        data = msgspec.json.encode(body)
        request = chat.parse_request(data)
        name = f"distillation/{key}/{hashlib.sha256(data).hexdigest()[:16]}"
        tries = 1
        while True:
            answers = self.answers
            try:
                return await self._once(target, model, request, len(data), name, spent)
            except (TeacherFailed, StudentUnavailable) as error:
                unanswered = _unanswered(error)
                self._refuse_all(model, unanswered)
                pause = self._pause(error, unanswered, tries)
            # To be told to wait is no failure while others are served.
            tries += not (unanswered.status in OVERLOADED and self.answers > answers)
            if pause is None or tries > self._settings.attempts:
                raise unanswered
            if self.answers == answers and unanswered.status not in OVERLOADED:
                self._tell_of_waiting(model, unanswered, pause)
            await asyncio.sleep(pause)

    def _limited(self, body: Mapping[str, Any], target: Target) -> Mapping[str, Any]:
        """Within a budget no answer is without a limit."""
        if not self._allowance.bounds(target.price) or _most_tokens(body):
            return body
        return {**body, NEWER_LIMIT if body["model"] in self._newer else limit_of(body): MOST_TOKENS}

    async def _once(
        self, target: Target, model: str, request: chat.ChatRequest, size: int, key: str, spent: Spent
    ) -> Reply:
        async with self._throttle.place() as taken_at:
            aside = await self._allowance.set_aside(target.price, size, _most_tokens(request.body))
            paid = 0
            try:
                completion, replayed = await self._complete(model, request, key, taken_at)
                usage = chat.usage_of(completion, request)
                cost = self._cost(target, usage)
                paid = 0 if replayed else cost
            finally:
                await asyncio.shield(self._allowance.settle(aside, paid))
        self.answers += 1
        await self._throttle.went_well()
        spent.add(usage, cost)
        choice = completion["choices"][0]
        return Reply(
            message=choice["message"],
            finish_reason=choice.get("finish_reason"),
            logprobs=choice.get("logprobs"),
            completion=completion,
        )

    async def _complete(
        self, model: str, request: chat.ChatRequest, key: str, taken_at: float
    ) -> tuple[dict[str, Any], bool]:
        """The completion, and whether it was paid for before."""
        call = Call(
            request=request,
            name=model,
            project=auth.DEFAULT_PROJECT,
            key_id=self._key_id,
            request_id=key,
            by_model_name=True,
            idempotency_key=key,
        )
        try:
            done = await self._platform.gateway.complete(call)
        except (TeacherFailed, StudentUnavailable) as error:
            if _status_of(error) in OVERLOADED or isinstance(error, TeacherTimeout):
                self._throttle.ease(taken_at, _told_seconds(error))
            raise
        return msgspec.json.decode(done.body), done.replayed

    def _cost(self, target: Target, usage: Usage) -> int:
        entry = billing.Entry(
            project=auth.DEFAULT_PROJECT,
            kind=billing.Kind.ANSWER,
            model=target.model,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
        return billing.cost_picousd(entry, target.price)

    def _tell_of_waiting(self, model: str, unanswered: Unanswered, pause: float) -> None:
        """Nobody else was answered meanwhile either."""
        if pause >= 1 and time.monotonic() - self._told_at > TOLD_SECONDS:
            self._told_at = time.monotonic()
            self._tell(f"'{model}' does not answer: {unanswered.reason} Asking again in {pause:.0f} seconds.")

    def _refuse_all(self, model: str, unanswered: Unanswered) -> None:
        if unanswered.status in REFUSES_ALL and not self.answers:
            what = "`base_url` and `model`" if unanswered.status == NOT_FOUND else "`api_key`"
            raise RefusesAll(
                f"'{model}' refuses to answer: {unanswered.reason} Look at {what} of [teachers.\"{model}\"], or at the "
                "endpoint in the file.",
                param="teacher",
            )

    def _pause(self, error: TeacherFailed | StudentUnavailable, unanswered: Unanswered, tries: int) -> float | None:
        """Seconds until another try; None when there should be none."""
        if unanswered.status is not None and unanswered.status not in TRY_AGAIN:
            return None
        told = _told_seconds(error)
        if told is not None:
            return min(told, LONGEST_PAUSE_SECONDS)
        return min(LONGEST_PAUSE_SECONDS, self._settings.retry_seconds * 2.0 ** (tries - 1)) * random.uniform(0.8, 1.2)


def key_of(name: str, run: str) -> str:
    """What a run's answers are known by in the ledger, in the place of a key."""
    return f"{billing.LABELLING}{name[:40]}/{run[:8]}"[:KEY_LETTERS]


def spent_before(platform: Platform, key_id: str, since: int) -> int:
    """What the ledger has of the run, in pico-USD: the journal may not know of its last answers."""
    totals = billing.totals(platform.database, auth.DEFAULT_PROJECT, (billing.By.KEY,), since=since)
    return sum(total.cost_picousd for total in totals if total.group[billing.By.KEY] == key_id)


def _unanswered(error: TeacherFailed | StudentUnavailable) -> Unanswered:
    status = _status_of(error)
    words = error.message
    if status is not None:
        bare = words.endswith(f"answered with status {status}.")  # it has said no more than that
        words = f"status {status}." if bare else f"status {status}: {words}"
    is_gone = status is None or status in TRY_AGAIN or status in REFUSES_ALL
    about_logprobs = isinstance(error, TeacherRefused) and names_logprobs(error)
    return Unanswered(words, status, is_gone=is_gone, names_logprobs=about_logprobs)


def _status_of(error: TeacherFailed | StudentUnavailable) -> int | None:
    return error.details["status"] if isinstance(error, TeacherRefused) else None


def _told_seconds(error: TeacherFailed | StudentUnavailable) -> float | None:
    headers = error.details["headers"] if isinstance(error, TeacherRefused) else {}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return None if math.isnan(seconds) else max(0.0, seconds)
    return None


def limit_of(asked: Mapping[str, Any]) -> str:
    """The name under which a request's limit is set: reasoning models know the newer one alone."""
    return NEWER_LIMIT if "reasoning_effort" in asked else LIMIT


def _most_tokens(body: Mapping[str, Any]) -> int:
    """0 for no limit."""
    return max((int(body[name]) for name in LIMITS if body.get(name) is not None), default=0)
