"""What an upstream does not take is left out and asked again, and remembered for a while.

Two things are asked for that the caller did not ask for: the usage of a stream, and logprobs to keep. A call
must not fail for them. Nothing of a refused try is billed: a refusal is no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from stillroom.chat import Answer
from stillroom.config import GatewaySettings
from stillroom.errors import TeacherFailed, TeacherRefused
from stillroom.gateway.ask import ask
from stillroom.gateway.soft_labels import Wish
from stillroom.serving.models import Target

log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 3600.0  # for logprobs, which one request may make impossible and another not
FEW = 5  # alternatives: more than this many of those who know any refuse
MAY_BE_LOGPROBS = {400, 403, 404, 422, 501}  # a refusal for another reason comes again, without them


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for beyond the caller's words; `top_logprobs` None: what he says himself.
    `unsure`: the logprobs were left out, and it is not known yet that they were the reason."""

    usage: bool = False
    top_logprobs: int | None = None
    unsure: bool = False


class Tolerance:
    """What upstreams have refused. Lives on the event loop."""

    def __init__(self, limits: GatewaySettings, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._without_usage: set[str] = set()
        self._most_logprobs: dict[str, tuple[int, float]] = {}
        self._suspected: dict[str, float] = {}

    async def ask(
        self, target: Target, body: Callable[[Asked], bytes], *, wish: Wish | None, stream: bool
    ) -> tuple[Answer, Asked]:
        """An answer with status 200, and what was asked for in the end. Raises as `ask` does."""
        asked = self._plan(target.model, wish, stream=stream)
        while True:
            try:
                answer = await ask(target.upstream, body(asked), self._limits)
            except TeacherRefused as refusal:
                less = self._less(target.model, wish, asked, refusal)
                if less is None:
                    raise
                asked = less
            else:
                if asked.unsure:
                    self._suspect(target.model)
                return answer, asked

    def most_logprobs(self, model: str) -> int | None:
        """How many alternatives the model is asked for at most, because it refused more; None for no such bound."""
        most, until = self._most_logprobs.get(model, (None, 0.0))
        return most if self._monotonic() < until else None

    def try_anew(self, model: str) -> None:
        """Forgets what the model refused."""
        self._most_logprobs.pop(model, None)
        self._suspected.pop(model, None)

    def refused_above(self, model: str, most: int) -> None:
        """For a while the model is asked for no more alternatives than this; with 0 for no logprobs."""
        known = self.most_logprobs(model)
        fewest = most if known is None else min(known, most)
        self._most_logprobs[model] = (fewest, self._monotonic() + REMEMBERED_SECONDS)
        asked = f"{fewest} alternatives a token" if fewest else "no logprobs"
        log.warning("'%s' refuses the logprobs that are to be kept. For an hour it is asked for %s.", model, asked)

    def _suspect(self, model: str) -> None:
        """After a refusal that says nothing of logprobs, of a request that was answered without them. One such request
        may be odd in itself, and the soft labels of all others should not be lost for it; two within the hour count."""
        now = self._monotonic()
        if now < self._suspected.get(model, now):
            self.refused_above(model, 0)
        self._suspected[model] = now + REMEMBERED_SECONDS

    def _plan(self, model: str, wish: Wish | None, *, stream: bool) -> Asked:
        return Asked(usage=stream and model not in self._without_usage, top_logprobs=self._top(model, wish))

    def _top(self, model: str, wish: Wish | None) -> int | None:
        """How many alternatives to ask for; None when the caller's own words ask for enough, or too many were refused."""
        if wish is None:
            return None
        most = self.most_logprobs(model)
        wanted = wish.alternatives if most is None else min(wish.alternatives, most)
        return wanted if wanted > (wish.own or 0) else None

    def _less(self, model: str, wish: Wish | None, asked: Asked, refusal: TeacherRefused) -> Asked | None:
        """What to ask for after this refusal; None when that would be the same again."""
        if asked.usage and refusal.details["status"] == 400 and "stream_options" in refusal.message:
            self._without_usage.add(model)
            return replace(asked, usage=False)
        if asked.top_logprobs is None:
            return None
        if names_logprobs(refusal):
            self.refused_above(model, FEW if asked.top_logprobs > FEW else 0)
            return replace(asked, top_logprobs=self._top(model, wish))
        if refusal.details["status"] in MAY_BE_LOGPROBS:
            return replace(asked, top_logprobs=None, unsure=True)
        return None


def names_logprobs(problem: TeacherFailed) -> bool:
    """Whether an upstream's error is about logprobs, as far as it says."""
    body = problem.details.get("body")
    param = body["error"].get("param") if isinstance(body, dict) else None
    return "logprob" in problem.message.lower() or "logprob" in str(param)
