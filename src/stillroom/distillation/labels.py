"""Rows to labels: each row is asked for, several at once, and what came of it goes into the journal."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stillroom.assembly import Platform
from stillroom.distillation.allowance import Allowance
from stillroom.distillation.asking import Asker, key_of, spent_before
from stillroom.distillation.interview import Interview
from stillroom.distillation.journal import Journal, Label, share
from stillroom.distillation.problems import DistillationFailed, InvalidJobFile
from stillroom.distillation.rows import Row
from stillroom.distillation.spec import DPO, Spec
from stillroom.distillation.throttle import Throttle
from stillroom.errors import ModelNotFound

GIVEN_UP = 20  # rows in a row that nobody answered, until the teacher counts as gone
RATE_SECONDS = 30.0  # what the rate is measured over


class TeacherGone(DistillationFailed):
    """The teacher has not answered for so long that asking on would only fail every row."""

    code = "teacher_gone"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the labels are. `seconds_left` is None until that can be told."""

    done: int
    failed: int
    total: int
    rows_per_second: float
    cost_picousd: int
    seconds_left: float | None
    at_once: int


Watch = Callable[[Progress | str], None]


class Labelling:
    """The rows of one run that are still to be asked for."""

    def __init__(self, platform: Platform, spec: Spec, journal: Journal, watch: Watch) -> None:
        self._spec = spec
        self._journal = journal
        self._watch = watch
        self.throttle = Throttle(spec.at_once, watch)
        key_id = key_of(spec.name, journal.state.run)
        self._allowance = Allowance(spec.budget_microusd, spent_before(platform, key_id, journal.state.began_at))
        self._asker = Asker(platform, key_id, self.throttle, self._allowance, watch)
        self._unanswered: list[Label] = []
        self._finished: deque[float] = deque()
        self._left = 0

    async def run(self, *, retry_failed: bool) -> None:
        """Asks for every row that has no label yet. Raises BudgetReached, TeacherGone, RefusesAll,
        NoSoftLabels, InvalidJobFile."""
        waiting = self._journal.waiting(retry_failed=retry_failed)
        if not waiting:
            return
        await self._meet()
        rows = iter(waiting)
        self._left = len(waiting)
        self._tell()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._spec.at_once, len(waiting))):
                    group.create_task(self._work(rows))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        self._commit_unanswered()

    async def _meet(self) -> None:
        """Whoever is going to be asked must be there."""
        spec = self._spec
        asked = {"teacher": spec.teacher, "curation.best_of_n.judge": spec.judge}
        asked |= {spec.student_key: spec.student} if spec.method == DPO else {}
        for key, model in asked.items():
            try:
                if model:
                    await self._asker.meet(model)
            except ModelNotFound as error:
                remedy = "Configure it under [teachers], or name a deployment, a fine-tuned model, or a student with weights."
                if key == spec.student_key:
                    remedy = (
                        "dpo needs a student that answers already: train it by imitation first, and name that model."
                    )
                raise InvalidJobFile(
                    f"`{key}` is {model!r}, which cannot be asked: {error.message} {remedy}",
                    param=key,
                ) from error

    async def _work(self, rows: Iterator[Row]) -> None:
        for row in rows:
            label, is_gone = await Interview(row, self._spec, self._journal, self._asker).label()
            if is_gone:
                self._unanswered.append(label)
                self._give_up_if_gone(label)
            else:
                self._commit_unanswered()
                self._journal.add(label)
            self._left -= 1
            self._finished.append(time.monotonic())
            self._tell()

    def _commit_unanswered(self) -> None:
        """Others were answered, so it was the rows, and not the teacher."""
        for label in self._unanswered:
            self._journal.add(label)
        self._unanswered.clear()

    def _give_up_if_gone(self, label: Label) -> None:
        if label.status is None and not self._asker.answers:
            raise TeacherGone(
                f"'{self._spec.teacher}' has not answered at all: {label.failed} No row counts as failed: run the same "
                "command when the teacher is there.",
                param="teacher",
            )
        if len(self._unanswered) < GIVEN_UP:
            return
        journal = self._journal
        ratio = share(len(journal.labels) - len(journal.failing), len(journal.labels) + GIVEN_UP)
        raise TeacherGone(
            f"'{self._spec.teacher}' has left {GIVEN_UP} rows in a row unanswered; the last time: "
            f"{self._unanswered[-1].failed} The success ratio is {ratio:.2f} so far (min_endpoint_success_ratio: "
            f"{self._spec.success_ratio:g}). What was answered is kept: run the same command when the teacher is back.",
            param="teacher",
        )

    def _tell(self) -> None:
        now = time.monotonic()
        while len(self._finished) > 2 and now - self._finished[0] > RATE_SECONDS:
            self._finished.popleft()
        rate = 0.0
        if len(self._finished) > 1 and (span := self._finished[-1] - self._finished[0]) > 0:
            rate = (len(self._finished) - 1) / span
        self._watch(
            Progress(
                done=len(self._journal.rows) - self._left,
                failed=len(self._journal.failing),
                total=len(self._journal.rows),
                rows_per_second=rate,
                cost_picousd=self._allowance.spent,
                seconds_left=self._left / rate if rate else None,
                at_once=self.throttle.at_once,
            )
        )
