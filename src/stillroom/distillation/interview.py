"""All that is asked about one row: its turns, several answers to each, the judge, the summary, the student.

Each question has a name, such as `turn-0/2`. A row that is asked about again is asked by the same names, so that what
was answered before is found and not paid again; only where a reply was not understood another one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from stillroom import logprobs
from stillroom.datasets.answers import fitting
from stillroom.distillation import judging, prompts
from stillroom.distillation.asking import Asker, NoSoftLabels, Reply, Spent, Unanswered
from stillroom.distillation.journal import Journal, Label
from stillroom.distillation.prompts import NotUnderstood
from stillroom.distillation.rows import Row
from stillroom.distillation.said import Said
from stillroom.distillation.spec import DPO, Reasoning, Spec
from stillroom.graders.judge import without_format


class Interview:
    """One row being asked about, once."""

    def __init__(self, row: Row, spec: Spec, journal: Journal, asker: Asker) -> None:
        self._row = row
        self._spec = spec
        self._run = journal.state.run
        self._misread_before = journal.misread
        self._asker = asker
        self._spent = Spent()
        self._misread: tuple[str, ...] = ()

    async def label(self) -> tuple[Label, bool]:
        """What came of the row, and whether it might have been any row that was not answered."""
        try:
            said = tuple(await self._answers())
            return self._label(said=said, rejected=await self._rejected()), False
        except Unanswered as unanswered:
            return self._label(failed=unanswered.reason, status=unanswered.status), unanswered.is_gone
        except NotUnderstood as error:
            return self._label(failed=f"{error}.", misread=self._misread), False

    def _label(self, **found: Any) -> Label:
        spent = self._spent
        return Label(
            row=self._row.name,
            calls=spent.calls,
            prompt_tokens=spent.prompt_tokens,
            cached_tokens=spent.cached_tokens,
            completion_tokens=spent.completion_tokens,
            cost_picousd=spent.cost_picousd,
            **found,
        )

    # --- the teacher --------------------------------------------------------------------------------------

    async def _answers(self) -> list[Said]:
        prompting = self._spec.prompting
        said: list[Said] = []
        for turn, question in enumerate(prompts.questions(self._row, prompting)):
            heard = prompts.following(question, said) if prompting.sees_own_answers else question
            said.append(await self._turn(f"turn-{turn}", heard))
        return said

    async def _turn(self, turn: str, question: Sequence[Mapping[str, Any]]) -> Said:
        """The answer to one question, the best of several where that is asked for."""
        answers: list[Said] = []
        misread: dict[str, NotUnderstood] = {}
        for sample in range(self._spec.samples):
            reply = await self._ask(question, f"{turn}/{sample}")
            try:
                answers.append(self._understood(reply))
            except NotUnderstood as error:
                misread[f"{turn}/{sample}"] = error
        if not answers:
            self._misread = tuple(misread)
            raise list(misread.values())[-1]
        chosen = await self._best(turn, question, answers)
        if self._spec.reasoning is not Reasoning.SUMMARISE or not chosen.reasoning:
            return chosen
        body = {"model": self._spec.teacher, "messages": prompts.summarising(question, chosen)}
        shorter = await self._put(body, f"{turn}/summary")
        return replace(chosen, reasoning=str(shorter.message.get("content") or "").strip() or chosen.reasoning)

    async def _ask(self, question: Sequence[Mapping[str, Any]], what: str) -> Reply:
        """Puts a question to the teacher, with what the row and the file ask for."""
        teacher = self._spec.teacher
        assert teacher is not None
        body = {"model": teacher, "messages": question, **self._row.more, **self._spec.inference}
        if not self._spec.asks_logprobs:
            return await self._put(body, what)
        while True:
            most = await self._asker.alternatives(teacher)
            try:
                return await self._put({**body, "logprobs": True, "top_logprobs": most}, what)
            except Unanswered as unanswered:
                if not unanswered.names_logprobs:
                    raise
                await self._asker.refused_alternatives(teacher, most)

    def _understood(self, reply: Reply) -> Said:
        said = prompts.understood(reply.message, self._spec.prompting)
        declines = bool(reply.message.get("refusal"))
        said = replace(said, finish_reason="content_filter" if declines else reply.finish_reason)
        return replace(said, logprobs=self._weighed(reply, said.text)) if self._spec.asks_logprobs else said

    def _weighed(self, reply: Reply, text: str) -> str | None:
        """The alternatives to the words of the text, packed; None where it has none, as calls do."""
        if not text:
            return None
        told = logprobs.positions((reply.logprobs or {}).get("content") or ())
        if not any(position.top for position in told):
            if not self._asker.has_weighed:
                raise NoSoftLabels(
                    f"'{self._spec.teacher}' answers, but without `logprobs`, which soft_label_weight learns from. Leave it "
                    "out, or name another teacher; `stillroom teachers probe` tells what one can do.",
                    param="hyperparameters.soft_label_weight",
                )
            raise NotUnderstood("the reply has no `logprobs`, which soft_label_weight learns from")
        self._asker.has_weighed = True
        fit = fitting(told, [text])
        return logprobs.as_text(logprobs.packed(fit)) if fit else None

    # --- the others ---------------------------------------------------------------------------------------

    async def _best(self, turn: str, question: Sequence[Mapping[str, Any]], answers: list[Said]) -> Said:
        texts = list({answer.text: answer for answer in reversed(answers)}.values())[::-1]
        if len(texts) == 1 or self._spec.judge is None:
            return answers[0]
        scores: list[float | None] = []
        for place, answer in enumerate(texts):
            grader, body = judging.question(self._spec.judge, question, answer)
            reply = await self._judged(body, f"{turn}/judge-{place}")
            scores.append(judging.score(grader, reply.completion))
        return texts[judging.best(texts, scores)]

    async def _judged(self, body: dict[str, Any], what: str) -> Reply:
        """The judge's answer; one that takes no wish for a form is asked in words."""
        try:
            return await self._put(body, what)
        except Unanswered as unanswered:
            if unanswered.status != 400:
                raise
        return await self._put(without_format(body), f"{what}/plain")

    async def _rejected(self) -> dict[str, Any] | None:
        """What the student itself says to the row as it stands, for a pair."""
        if self._spec.method != DPO:
            return None
        messages = prompts.as_asked(self._row.messages)
        body = {"model": self._spec.student, "messages": messages, **self._row.more, **self._spec.inference}
        reply = await self._put(body, "student")
        return prompts.without_thoughts(reply.message).message

    async def _put(self, body: Mapping[str, Any], what: str) -> Reply:
        tries = self._misread_before[self._row.name, what]
        return await self._asker.ask(body, key=f"{self._run}/{self._row.name}/{what}/{tries}", spent=self._spent)
