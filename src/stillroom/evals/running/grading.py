"""Grades items by the run's criteria, with what graders need of the installation."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from stillroom.errors import PythonFailed
from stillroom.evals.comparison import JUDGED, TIE
from stillroom.evals.running.caller import Caller, CallFailed, refuses_format
from stillroom.evals.usage import Usage, add_usage, tokens
from stillroom.graders import judge, order
from stillroom.graders.grade import RESULT_TYPES, Grade, grade
from stillroom.graders.order import Grader
from stillroom.graders.sandbox import PythonGrader, SandboxLimits
from stillroom.graders.subject import Subject

MEGABYTE = 1024 * 1024
SCHEMA_SECONDS = 2.0  # for one item; a pattern can take for ever
TIMEOUTS = 3  # items in a row on which a Python grader runs out of time, until it is not run any more


class Grading:
    """The graders of one run. Use as an async context manager."""

    def __init__(self, spec: Mapping[str, Any], caller: Caller) -> None:
        self._graders = [
            order.read(criterion, param=f"testing_criteria[{position}]", in_eval=spec["in_eval"])
            for position, criterion in enumerate(spec["criteria"])
        ]
        self._schema = _validator(spec["schema"]["properties"]["item"]) if spec["schema"] is not None else None
        self._caller = caller
        self._python = _Python(spec)

    async def __aenter__(self) -> Grading:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._python.close()

    def schema_problem(self, row: Mapping[str, Any]) -> dict[str, str] | None:
        """What is wrong with an item that its eval's schema does not allow."""
        if self._schema is None:
            return None
        try:
            with _at_most(SCHEMA_SECONDS):
                error = best_match(self._schema.iter_errors(row["item"]))
        except TimeoutError:
            return {
                "code": "invalid_schema",
                "message": f"The eval's schema takes more than {SCHEMA_SECONDS:g} seconds for this item; simplify its "
                "patterns.",
            }
        except (Unresolvable, RecursionError) as failure:
            return {"code": "invalid_schema", "message": f"The eval's schema cannot be followed: {failure}"}
        if error is None:
            return None
        where = f"item{error.json_path.removeprefix('$')}"
        return {"code": "invalid_item", "message": f"The item does not fit the eval's schema: {where}: {error.message}"}

    async def grade(
        self, item: Mapping[str, Any], sample: Mapping[str, Any] | None, name: str, *, same: bool
    ) -> tuple[list[dict[str, Any]], Usage]:
        """Each criterion's result, and the tokens that judges used, by model. `same`: the answer is the
        teacher's own, so that no judge of the comparison need be asked about the two."""
        subject = Subject(item=item, sample=sample)
        means = [_Means(self._caller, self._python, f"{name}/{position}") for position in range(len(self._graders))]
        grades = await asyncio.gather(
            *(
                _certain(grader) if same and grader.name in JUDGED else grade(grader, subject, mean)
                for grader, mean in zip(self._graders, means, strict=True)
            )
        )
        usage: Usage = {}
        for mean in means:
            add_usage(usage, mean.usage)
        return [_result(one) for one in grades], usage


async def _certain(grader: Grader) -> Grade:
    """What a judge must say of an answer beside itself."""
    told: dict[str, Any] = {"input": [], "output": [], "label": TIE, "model": None, "usage": None, "error": None}
    return Grade(name=grader.name, type=RESULT_TYPES[grader.kind], score=1.0, passed=True, sample=told)


class _Means:
    """What one grader needs for one item. A multi grader's parts ask in an order of their own, so each
    call is known by the model and how often it was asked before."""

    def __init__(self, caller: Caller, python: _Python, name: str) -> None:
        self.usage: Usage = {}
        self._caller = caller
        self._python = python
        self._name = name
        self._calls = 0

    async def ask(self, body: dict[str, Any], purpose: str) -> dict[str, Any]:
        self._calls += 1
        name = f"{self._name}/{purpose}{self._calls}"
        try:
            answered = await self._caller.ask(body, name)
        except CallFailed as failure:
            if not refuses_format(failure):
                raise
            answered = await self._caller.ask(judge.without_format(body), f"{name}/plain")
        add_usage(self.usage, {body["model"]: {"invocation_count": 1, **tokens(answered.completion)}})
        return answered.completion

    async def run_python(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        return await self._python.grade(source, sample, item)


class _Python:
    """The sandboxed processes of a run, one for each source."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._limits = SandboxLimits(
            wall_seconds=spec["python_seconds"], memory_bytes=spec["python_memory_mb"] * MEGABYTE
        )
        self._unsafe = spec["unsafe_python_graders"]
        self._started: dict[str, asyncio.Task[PythonGrader]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._timeouts: Counter[str] = Counter()

    async def grade(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        if source not in self._started:
            starting = PythonGrader.start(source, self._limits, unsafe=self._unsafe)
            self._started[source] = asyncio.create_task(starting)
        grader = await self._started[source]
        async with self._turns[source]:
            return await self._graded(grader, source, sample, item)

    async def _graded(
        self, grader: PythonGrader, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> float:
        if self._timeouts[source] >= TIMEOUTS:
            raise PythonFailed(
                f"Not run: this grader has timed out on {TIMEOUTS} items in a row ({self._limits.wall_seconds:g} s each).",
                where="runtime",
            )
        try:
            score = await grader.grade(sample, item)
        except PythonFailed as error:
            self._timeouts[source] = self._timeouts[source] + 1 if error.details.get("timed_out") else 0
            raise
        self._timeouts[source] = 0
        return score

    async def close(self) -> None:
        for grader in await asyncio.gather(*self._started.values(), return_exceptions=True):
            if isinstance(grader, PythonGrader):
                await grader.close()


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in work that takes longer. For the main thread, and for work without await."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """Of the item alone, because references in its schema begin there; what they name elsewhere is not fetched."""
    return Draft202012Validator(schema, registry=Registry())


def _result(grade_: Grade) -> dict[str, Any]:
    return {
        "name": grade_.name,
        "type": grade_.type,
        "score": grade_.score,
        "passed": grade_.passed,
        "sample": grade_.sample,
        "sub_scores": grade_.sub_scores,
        "problem": grade_.problem,
    }
