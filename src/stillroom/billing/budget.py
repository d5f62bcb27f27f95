"""A project's budget: how much may be spent before new jobs and eval runs are refused.

Answers go on whatever is spent, for a caller's service must not stop over a bill; they carry a
warning. What they are told is a few seconds old at most, and asking costs them no query. Owns the
table `budgets`; what was spent is the ledger's to say.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, Connection, ForeignKey, String, Table, delete, insert, select, update

from stillroom.billing.ledger import rounded_microusd
from stillroom.billing.usage import day_of, spent_picousd
from stillroom.clock import Clock
from stillroom.config import MICRO
from stillroom.errors import BudgetSpent, NotFound
from stillroom.store.database import Database
from stillroom.store.tables import metadata
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

WARN_PERCENT = 80
LOOK_SECONDS = 5.0  # how old a state may be that answers are told
LOOK_SHARE = 20  # looking takes a twentieth of the time at most: large sums are taken less often
SET = "stillroom budget set USD"

budgets = Table(
    "budgets",
    metadata,
    Column("project", ForeignKey("projects.id"), primary_key=True, autoincrement=False),
    Column("limit_microusd", BigInteger, nullable=False),
    Column("period", String(8), nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)


class Period(enum.StrEnum):
    """How long a budget is for: a calendar month in UTC, or for good."""

    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, kw_only=True)
class BudgetState:
    """A budget and what is spent of it. `begins_at` and `ends_at` bound the period in seconds since
    the epoch; a total has no end."""

    limit_microusd: int
    spent_picousd: int
    period: Period
    begins_at: int
    ends_at: int | None
    updated_at: int

    @property
    def spent_microusd(self) -> int:
        return rounded_microusd(self.spent_picousd)

    @property
    def is_spent(self) -> bool:
        return self.spent_picousd >= self.limit_microusd * MICRO

    @property
    def is_nearly_spent(self) -> bool:
        return self.spent_picousd * 100 >= self.limit_microusd * MICRO * WARN_PERCENT

    def sentence(self) -> str:
        """How much of it is spent, and until when it lasts."""
        spent, limit = _usd(self.spent_microusd), _usd(self.limit_microusd)
        if self.ends_at is None:
            return f"{spent} of {limit} USD are spent in total."
        return f"{spent} of {limit} USD are spent this month, which ends on {day_of(self.ends_at)} at 00:00 UTC."


@dataclass(frozen=True, kw_only=True)
class _Known:
    state: BudgetState | None
    until: float


class Budgets:
    """The budgets of all projects. All methods but `known` block; none of them is for the event loop."""

    def __init__(self, database: Database, writer: Writer, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._known: dict[int, _Known] = {}
        self._looking: set[int] = set()
        self._told: set[tuple[int, str, bool]] = set()

    def put(self, project: int, limit_microusd: int, period: Period) -> BudgetState:
        """Sets the budget, or changes it."""
        row = {"limit_microusd": limit_microusd, "period": period.value, "updated_at": int(self._clock.now())}

        def write(connection: Connection) -> None:
            if not connection.execute(update(budgets).where(budgets.c.project == project).values(**row)).rowcount:
                connection.execute(insert(budgets).values(project=project, **row))

        self._writer.write(write)
        return self.get(project)

    def get(self, project: int) -> BudgetState:
        """Raises NotFound when the project has no budget."""
        state = self._look(project)
        if state is None:
            raise NotFound(f"This project has no budget. Set one with `{SET}`.", param="budget")
        return state

    def remove(self, project: int) -> bool:
        """False when there was none."""
        gone = self._writer.write(lambda c: c.execute(delete(budgets).where(budgets.c.project == project)).rowcount)
        self._look(project)
        return gone == 1

    def refuse_if_spent(self, project: int) -> None:
        """For what begins to cost now. Raises BudgetSpent."""
        state = self._look(project)
        if state is not None and state.is_spent:
            remedy = f"Raise it with `{SET}`, or end it with `stillroom budget remove`."
            raise BudgetSpent(f"The project's budget is spent: {state.sentence()} {remedy}", param="budget")

    async def known(self, project: int) -> BudgetState | None:
        """The state as it was a moment ago; None without a budget. For the event loop: only a
        project's first call waits for the database, later ones at most begin a look of their own."""
        known = self._known.get(project)
        if known is None:
            return await asyncio.to_thread(self._look, project)
        if known.until < self._clock.monotonic() and project not in self._looking:
            self._looking.add(project)
            looking = asyncio.get_running_loop().run_in_executor(None, self._look, project)
            looking.add_done_callback(lambda done: self._looked(project, done))
        return known.state

    def _looked(self, project: int, done: asyncio.Future[BudgetState | None]) -> None:
        self._looking.discard(project)
        if not done.cancelled() and (error := done.exception()):
            log.warning("the budget of project %s could not be looked up: %s", project, error)

    def _look(self, project: int) -> BudgetState | None:
        began = time.monotonic()
        with self._database.read() as connection:
            state = self._read(connection, project)
        pause = max(LOOK_SECONDS, LOOK_SHARE * (time.monotonic() - began))
        self._known[project] = _Known(state=state, until=self._clock.monotonic() + pause)
        if state is not None and state.is_nearly_spent:
            self._tell(project, state)
        return state

    def _read(self, connection: Connection, project: int) -> BudgetState | None:
        row = connection.execute(select(budgets).where(budgets.c.project == project)).first()
        if row is None:
            return None
        period = Period(row.period)
        begins_at, ends_at = _month(self._clock.now()) if period is Period.MONTH else (0, None)
        return BudgetState(
            limit_microusd=row.limit_microusd,
            spent_picousd=spent_picousd(connection, project, begins_at, ends_at),
            period=period,
            begins_at=begins_at,
            ends_at=ends_at,
            updated_at=row.updated_at,
        )

    def _tell(self, project: int, state: BudgetState) -> None:
        """One line a day when a budget is nearly spent, and one when it is."""
        told = (project, day_of(self._clock.now()), state.is_spent)
        if told not in self._told:
            self._told = {each for each in self._told if each[1] == told[1]} | {told}
            log.warning("the budget of project %s: %s", project, state.sentence())


def _month(now: float) -> tuple[int, int]:
    """Where the UTC month of a time begins and ends."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return int(first.timestamp()), int(after.timestamp())


def _usd(micro: int) -> str:
    """Cents, unless they would hide what there is."""
    return f"{micro / MICRO:.2f}" if micro % (MICRO // 100) == 0 else f"{micro / MICRO:.6f}"
