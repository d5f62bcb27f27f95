"""Rows to labels: each row is asked for, several at once, and what came of it goes into the journal."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stillroom import logprobs
from stillroom.assembly import Platform
from stillroom.distillation import judging, prompts
from stillroom.distillation.allowance import Allowance
from stillroom.distillation.asking import Asker, Reply, Spent, Unanswered, key_of, spent_before
from stillroom.distillation.journal import Journal, Label, Spoken
from stillroom.distillation.problems import DistillationFailed, InvalidJobFile
from stillroom.distillation.prompts import NotUnderstood, Said
from stillroom.distillation.rows import Row
from stillroom.distillation.spec import DPO, Reasoning, Spec
from stillroom.distillation.throttle import Throttle
from stillroom.errors import ModelNotFound
from stillroom.graders.judge import without_format

GIVEN_UP = 20  # rows in a row that nobody answered, until the teacher counts as gone
TOP_LOGPROBS = 20
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


Watch = Callable[[Progress], None]


class Labelling:
    """The rows of one run that are still to be asked for."""

    def __init__(self, platform: Platform, spec: Spec, journal: Journal, watch: Watch) -> None:
        self._spec = spec
        self._journal = journal
        self._watch = watch
        self.throttle = Throttle(spec.at_once)
        key_id = key_of(spec.name, journal.state.run)
        self._allowance = Allowance(spec.budget_microusd, spent_before(platform, key_id, journal.state.began_at))
        self._asker = Asker(platform, key_id, self.throttle, self._allowance)
        self._unanswered: list[Label] = []
        self._finished: deque[float] = deque()
        self._left = 0

    async def run(self, *, retry_failed: bool) -> None:
        """Asks for every row that has no label yet. Raises BudgetReached, TeacherGone, RefusesAll, InvalidJobFile."""
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
                raise InvalidJobFile(
                    f"`{key}` is {model!r}, which cannot be asked: {error.message} Configure it under [teachers], or name a "
                    "deployment, a fine-tuned model, or a student with weights.",
                    param=key,
                ) from error

    async def _work(self, rows: Iterator[Row]) -> None:
        for row in rows:
            label, is_gone = await self._label(row)
            if is_gone:
                self._unanswered.append(label)
                self._give_up_if_gone()
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

    def _give_up_if_gone(self) -> None:
        if len(self._unanswered) < GIVEN_UP:
            return
        ratio = _ratio(self._journal)
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
                failed=len(self._journal.failing) + len(self._unanswered),
                total=len(self._journal.rows),
                rows_per_second=rate,
                cost_picousd=self._allowance.spent,
                seconds_left=self._left / rate if rate else None,
                at_once=self.throttle.at_once,
            )
        )

    # --- one row ------------------------------------------------------------------------------------------

    async def _label(self, row: Row) -> tuple[Label, bool]:
        """What came of the row, and whether it might have been any row that was not answered."""
        spent = Spent()
        said: tuple[Spoken, ...] = ()
        rejected: Mapping[str, Any] | None = None
        reason: str | None = None
        status: int | None = None
        is_gone = False
        try:
            answers = await self._answers(row, spent)
            rejected = await self._rejected(row, spent)
            said = tuple(Spoken(message=dict(each.message), reasoning=each.reasoning) for each in answers)
        except Unanswered as unanswered:
            reason, status, is_gone = unanswered.reason, unanswered.status, unanswered.is_gone
        except NotUnderstood as error:
            reason = f"{error}."
        label = Label(
            row=row.name,
            said=said,
            failed=reason,
            status=status,
            rejected=dict(rejected) if rejected is not None else None,
            calls=spent.calls,
            prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens,
            completion_tokens=spent.completion_tokens,
            cost_picousd=spent.cost_picousd,
            cut_short=spent.cut_short,
        )
        return label, is_gone

    async def _answers(self, row: Row, spent: Spent) -> list[Said]:
        prompting = self._spec.prompting
        said: list[Said] = []
        for turn, question in enumerate(prompts.questions(row, prompting)):
            heard = prompts.following(question, said) if prompting.sees_own_answers else question
            said.append(await self._turn(row, f"turn-{turn}", heard, spent))
        return said

    async def _turn(self, row: Row, turn: str, question: Sequence[Mapping[str, Any]], spent: Spent) -> Said:
        """The answer to one question, the best of several where that is asked for."""
        answers: list[Said] = []
        problem: NotUnderstood | None = None
        for sample in range(self._spec.samples):
            reply = await self._ask(row, question, f"{turn}/{sample}", spent)
            try:
                answers.append(self._understood(reply))
            except NotUnderstood as error:
                problem = error
        if not answers:
            assert problem is not None
            raise problem
        chosen = await self._best(row, turn, question, answers, spent)
        if self._spec.reasoning is not Reasoning.SUMMARISE or not chosen.reasoning:
            return chosen
        shorter = await self._ask(row, prompts.summarising(question, chosen), f"{turn}/summary", spent, plain=True)
        return replace(chosen, reasoning=str(shorter.message.get("content") or "").strip() or chosen.reasoning)

    def _understood(self, reply: Reply) -> Said:
        said = prompts.understood(reply.message, self._spec.prompting)
        if not self._spec.asks_logprobs or said.text != reply.message.get("content"):
            return said
        weighed = (reply.logprobs or {}).get("content")
        if not weighed:
            raise NotUnderstood("the teacher gives no `logprobs`, which soft_label_weight learns from")
        packed = base64.b64encode(logprobs.pack(weighed)).decode()
        return replace(said, message={**said.message, "logprobs": packed})

    async def _best(
        self, row: Row, turn: str, question: Sequence[Mapping[str, Any]], answers: list[Said], spent: Spent
    ) -> Said:
        texts = list({answer.text: answer for answer in reversed(answers)}.values())[::-1]
        if len(texts) == 1 or self._spec.judge is None:
            return answers[0]
        scores: list[float | None] = []
        for place, answer in enumerate(texts):
            grader, body = judging.question(self._spec.judge, question, answer)
            reply = await self._judged(row, body, f"{turn}/judge-{place}", spent)
            scores.append(judging.score(grader, reply.completion))
        return texts[judging.best(texts, scores)]

    async def _judged(self, row: Row, body: dict[str, Any], what: str, spent: Spent) -> Reply:
        """The judge's answer; one that takes no wish for a form is asked in words."""
        try:
            return await self._put(row, body, what, spent)
        except Unanswered as unanswered:
            if unanswered.status != 400:
                raise
        return await self._put(row, without_format(body), f"{what}/plain", spent)

    async def _rejected(self, row: Row, spent: Spent) -> Mapping[str, Any] | None:
        """What the student itself says to the row as it stands, for a pair."""
        if self._spec.method != DPO:
            return None
        body = {"model": self._spec.student, "messages": row.messages, **row.more, **self._spec.inference}
        reply = await self._put(row, body, "student", spent)
        return prompts.without_thoughts(reply.message).message

    async def _ask(
        self, row: Row, question: Sequence[Mapping[str, Any]], what: str, spent: Spent, *, plain: bool = False
    ) -> Reply:
        """Puts a question to the teacher, with what the row and the file ask for."""
        more = {} if plain else {**row.more, **self._spec.inference}
        if self._spec.asks_logprobs and not plain:
            more |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return await self._put(row, {"model": self._spec.teacher, "messages": question, **more}, what, spent)

    async def _put(self, row: Row, body: Mapping[str, Any], what: str, spent: Spent) -> Reply:
        # A row that is asked again is to get another answer, so that its tries are part of the name.
        key = f"distillation/{self._journal.state.run}/{row.name}/{self._journal.tries.get(row.name, 0)}/{what}"
        model, messages = body["model"], body["messages"]
        more = {name: value for name, value in body.items() if name not in ("model", "messages")}
        return await self._asker.ask(model, messages, more, key=key, spent=spent)


def success_ratio(journal: Journal, part: str) -> float:
    """The share of the part's rows that have an answer."""
    rows = [row for row in journal.rows if row.part == part]
    return 1.0 - len(journal.failed(part)) / len(rows) if rows else 1.0


def _ratio(journal: Journal) -> float:
    answered = len(journal.labels) - len(journal.failing)
    return answered / max(1, len(journal.labels) + GIVEN_UP)
