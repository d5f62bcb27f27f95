"""What may still be spent: every question is set aside at the most it can cost before it is asked.

So the sum never exceeds the budget, whatever the answers turn out to be. What a question is set aside for is what its
text can cost at most, and its answer: as many tokens as may be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stillroom import billing
from stillroom.chat import BYTES_PER_TOKEN
from stillroom.config import MICRO, Price
from stillroom.distillation.problems import DistillationFailed

UNBOUNDED_TOKENS = 4096  # set aside for an answer when no limit is asked for, until longer ones are seen
LEARNED_AFTER = 20  # questions, until what they cost tells what the next will
MARGIN = 1.25  # times the most tokens a byte that were seen


class BudgetReached(DistillationFailed):
    """Another question could exceed the budget; what was answered is kept."""

    code = "budget_reached"


class Allowance:
    """One budget; None is without end. Lives on the event loop."""

    def __init__(self, limit_microusd: int | None, spent_picousd: int) -> None:
        self._limit = None if limit_microusd is None else limit_microusd * MICRO
        self.spent = spent_picousd
        self._aside = 0
        self._settled = asyncio.Condition()
        self._seen = 0
        self._tokens_per_byte = 0.0
        self._longest = UNBOUNDED_TOKENS

    async def set_aside(self, price: Price, question_bytes: int, max_tokens: int | None) -> int:
        """Waits until the question fits beside those under way; gives what is set aside. Raises BudgetReached."""
        if self._limit is None:
            return 0
        async with self._settled:
            while True:
                most = self._most(price, question_bytes, max_tokens)
                if self.spent + self._aside + most <= self._limit:
                    self._aside += most
                    return most
                if not self._aside:
                    raise self._reached(most)
                await self._settled.wait()

    async def settle(self, aside: int, cost: int, question_bytes: int, tokens: Sequence[int]) -> None:
        """The question cost so much, of so many tokens asked and answered; none when it came to nothing."""
        self.spent += cost
        if self._limit is None:
            return
        if tokens[0]:
            self._seen += 1
            self._tokens_per_byte = max(self._tokens_per_byte, tokens[0] / question_bytes)
            self._longest = max(self._longest, 2 * tokens[1])
        async with self._settled:
            self._aside -= aside
            self._settled.notify_all()

    def _most(self, price: Price, question_bytes: int, max_tokens: int | None) -> int:
        per_byte = 1.0  # no tokenizer makes more tokens than bytes
        if self._seen >= LEARNED_AFTER:
            per_byte = min(1.0, max(self._tokens_per_byte * MARGIN, 1 / BYTES_PER_TOKEN))
        entry = billing.Entry(
            project=0,
            kind=billing.Kind.ANSWER,
            model="",
            prompt_tokens=round(question_bytes * per_byte),
            completion_tokens=max_tokens or self._longest,
        )
        return billing.cost_picousd(entry, price)

    def _reached(self, most: int) -> BudgetReached:
        assert self._limit is not None
        spent, limit, next_one = (each / billing.PICO for each in (self.spent, self._limit, most))
        return BudgetReached(
            f"`budget_usd` is {limit:g}: {spent:.6f} USD are spent, and another question could cost {next_one:.6f} USD. "
            "What was answered is kept: raise `budget_usd` and run the same command to go on.",
            param="budget_usd",
        )
