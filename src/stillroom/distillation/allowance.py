"""What may still be spent: every question is set aside at the most it can cost before it is asked.

That is one token for each byte of its text, and as many tokens as its answer may have. So what the answers cost never
exceeds the budget, as long as whoever answers keeps to `max_tokens`.
"""

from __future__ import annotations

import asyncio

from stillroom import billing
from stillroom.config import MICRO, Price
from stillroom.distillation.problems import DistillationFailed

MOST_TOKENS = 4096  # of an answer within a budget, when the file sets no limit


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

    def bounds(self, price: Price) -> bool:
        """Whether answers at this price may only have so many tokens."""
        return self._limit is not None and price.output > 0

    async def set_aside(self, price: Price, question_bytes: int, max_tokens: int) -> int:
        """Waits until the question fits beside those under way; gives what is set aside. Raises BudgetReached."""
        if self._limit is None:
            return 0
        entry = billing.Entry(
            project=0,
            kind=billing.Kind.ANSWER,
            model="",
            prompt_tokens=question_bytes,  # no tokenizer makes more tokens than bytes
            completion_tokens=max_tokens,
        )
        most = billing.cost_picousd(entry, price)
        async with self._settled:
            while self.spent + self._aside + most > self._limit:
                if not self._aside:
                    raise self._reached(most)
                await self._settled.wait()
            self._aside += most
        return most

    async def settle(self, aside: int, cost: int) -> None:
        """The question cost so much; nothing when it came to nothing."""
        self.spent += cost
        if self._limit is None:
            return
        async with self._settled:
            self._aside -= aside
            self._settled.notify_all()

    def _reached(self, most: int) -> BudgetReached:
        assert self._limit is not None
        spent, limit, next_one = (each / billing.PICO for each in (self.spent, self._limit, most))
        return BudgetReached(
            f"`budget_usd` is {limit:g}: {spent:.6f} USD are spent, and another question could cost {next_one:.6f} USD. "
            "What was answered is kept: raise `budget_usd` and run the same command to go on.",
            param="budget_usd",
        )
