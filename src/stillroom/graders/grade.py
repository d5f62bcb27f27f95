"""Grading: a grader and its subject go in, a grade comes out.

What needs the world outside (asking a judge, running somebody's Python) is done by the `Means` that
the caller hands in. A grader's or an item's fault never raises here: the grade then has a problem,
the score 0 and has not passed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from stillroom.errors import PythonFailed, StillroomError, VariableMissing
from stillroom.graders import judge, similarity
from stillroom.graders.formula import FormulaFailed
from stillroom.graders.order import (
    Grader,
    Kind,
    LabelModel,
    Multi,
    Operation,
    PythonCode,
    ScoreModel,
    SingleGrader,
    StringCheck,
    TextSimilarity,
)
from stillroom.graders.problem import Problem, ProblemKind
from stillroom.graders.subject import Subject

PURPOSE = "grading"
RESULT_TYPES = {kind: f"{kind.value.replace('_', '-')}-grader" for kind in Kind}


class Means(Protocol):
    """What graders need of the installation."""

    async def ask(self, body: dict[str, Any], purpose: str) -> dict[str, Any]:
        """The chat completion to this request. Raises StillroomError."""

    async def run_python(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """What `grade(sample, item)` of this source gives. Raises PythonFailed."""


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What a grader says of a subject. `type` is the result's type ("string-check-grader").

    `sample` is what a judge was asked and answered (None for other graders); a label stands in it as
    `label`. A multi grade has its parts' grades, whole, in `parts`.
    """

    name: str
    type: str
    score: float
    passed: bool
    sample: dict[str, Any] | None = None
    parts: Mapping[str, Grade] = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def sub_scores(self) -> dict[str, float]:
        return {name: part.score for name, part in self.parts.items()}


async def grade(grader: Grader, subject: Subject, means: Means) -> Grade:
    """The grade of this subject; it has a problem where a grade could not be given."""
    try:
        if isinstance(grader, Multi):
            return await _multi(grader, subject, means)
        return await _single(grader, subject, means)
    except VariableMissing as missing:
        kind = ProblemKind.SAMPLE_PARSE if missing.details.get("not_json") else ProblemKind.INVALID_VARIABLE
        return _failed(grader, Problem(kind=kind, details=missing.message))


async def _single(grader: SingleGrader, subject: Subject, means: Means) -> Grade:
    match grader:
        case StringCheck():
            return _string_check(grader, subject)
        case TextSimilarity():
            return await _text_similarity(grader, subject)
        case LabelModel() | ScoreModel():
            return await _judged(grader, subject, means)
        case PythonCode():
            return await _python(grader, subject, means)


def _string_check(grader: StringCheck, subject: Subject) -> Grade:
    given, reference = grader.input.render(subject), grader.reference.render(subject)
    match grader.operation:
        case Operation.EQ:
            holds = given == reference
        case Operation.NE:
            holds = given != reference
        case Operation.LIKE:
            holds = reference in given
        case Operation.ILIKE:
            holds = reference.casefold() in given.casefold()
    return _graded(grader, float(holds), passed=holds)


async def _text_similarity(grader: TextSimilarity, subject: Subject) -> Grade:
    given, reference = grader.input.render(subject), grader.reference.render(subject)
    try:
        # In a thread: the first call imports a library, and long texts take a while.
        score = await asyncio.to_thread(similarity.score, grader.metric, given, reference)
    except similarity.TooLong as error:
        return _failed(grader, Problem(kind=ProblemKind.OTHER, details=str(error)))
    return _graded(grader, score, passed=score >= grader.pass_threshold)


async def _judged(grader: LabelModel | ScoreModel, subject: Subject, means: Means) -> Grade:
    body = judge.request(grader, subject)
    try:
        completion = await means.ask(body, PURPOSE)
    except StillroomError as error:
        return _failed(grader, Problem(kind=ProblemKind.MODEL_SERVER, details=error.message))
    sample = judge.sample_of(body, completion)
    verdict = judge.verdict(grader, completion)
    if isinstance(verdict, Problem):
        return replace(_failed(grader, verdict), sample=sample)
    if isinstance(grader, ScoreModel) and isinstance(verdict, float):
        return _graded(grader, verdict, passed=verdict >= grader.pass_threshold, sample=sample)
    passed = isinstance(grader, LabelModel) and verdict in grader.passing_labels
    return _graded(grader, float(passed), passed=passed, sample={**sample, "label": verdict})


async def _python(grader: PythonCode, subject: Subject, means: Means) -> Grade:
    try:
        score = await means.run_python(grader.source, subject.sample or {}, subject.item)
    except PythonFailed as error:
        kind = ProblemKind.PYTHON_SERVER if error.where == "server" else ProblemKind.PYTHON_RUNTIME
        return _failed(grader, Problem(kind=kind, details=error.message, code=error.code))
    if not math.isfinite(score):
        details = f"grade gave {score}; it must give a finite number."
        return _failed(grader, Problem(kind=ProblemKind.PYTHON_RUNTIME, details=details))
    return _graded(grader, float(score), passed=score >= grader.pass_threshold)


async def _multi(grader: Multi, subject: Subject, means: Means) -> Grade:
    """Its parts are graded at the same time; a part with a problem makes it the whole grade's."""
    graded = await asyncio.gather(*(grade(part, subject, means) for part in grader.graders.values()))
    parts = dict(zip(grader.graders, graded, strict=True))
    for part in parts.values():
        if part.problem is not None:
            return replace(_failed(grader, part.problem), parts=parts)
    scores = {variable: parts[key].score for variable, key in grader.variables.items()}
    try:
        score = grader.formula.result(scores)
    except FormulaFailed as error:
        failed = _failed(grader, Problem(kind=ProblemKind.FORMULA_PARSE, details=str(error)))
        return replace(failed, parts=parts)
    return replace(_graded(grader, score, passed=score >= grader.pass_threshold), parts=parts)


def _graded(grader: Grader, score: float, *, passed: bool, sample: dict[str, Any] | None = None) -> Grade:
    return Grade(name=grader.name, type=RESULT_TYPES[grader.kind], score=score, passed=passed, sample=sample)


def _failed(grader: Grader, problem: Problem) -> Grade:
    return Grade(name=grader.name, type=RESULT_TYPES[grader.kind], score=0.0, passed=False, problem=problem)
