"""Graders give grades; what goes wrong is in the grade and is never raised."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.fine_tuning.alpha.grader_run_response import MetadataErrors

from stillroom.errors import PythonFailed, TeacherTimeout
from stillroom.graders import order
from stillroom.graders.grade import Grade, grade
from stillroom.graders.problem import Problem, ProblemKind, flags
from stillroom.graders.subject import Subject, sample_of

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Workshop:
    """Means that answer what a test says, and run Python here."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[dict[str, Any], str]] = []

    async def ask(self, body: dict[str, Any], purpose: str) -> dict[str, Any]:
        self.asked.append((body, purpose))
        if not self.answers:
            raise TeacherTimeout("No answer within 600 s.")
        message = {"role": "assistant", "content": self.answers.pop(0)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"model": body["model"], "choices": [choice], "usage": USAGE}

    async def run_python(self, source: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        names: dict[str, Any] = {}
        try:
            exec(source, names)
            return float(names["grade"](sample, item))
        except ConnectionError as error:
            raise PythonFailed("The sandbox did not start.", code="sandbox_gone", where="server") from error
        except Exception as error:
            raise PythonFailed(f"{type(error).__name__}: {error}", where="runtime") from error


def graded(
    given: dict[str, Any],
    *,
    item: dict[str, Any] | None = None,
    text: str | None = "",
    workshop: Workshop | None = None,
) -> Grade:
    grader = order.read({"name": "g", **given}, param="grader")
    subject = Subject(item=item or {}, sample=None if text is None else sample_of(text))
    return asyncio.run(grade(grader, subject, workshop or Workshop()))


def check(operation: str, text: str, reference: str) -> Grade:
    given = {"type": "string_check", "operation": operation, "input": "{{sample.output_text}}"}
    return graded({**given, "reference": "{{item.label}}"}, item={"label": reference}, text=text)


@pytest.mark.parametrize(
    ("operation", "text", "reference", "holds"),
    [
        ("eq", "Paris", "Paris", True),
        ("eq", "Paris", "paris", False),
        ("eq", "Paris ", "Paris", False),
        ("ne", "Paris", "paris", True),
        ("ne", "Paris", "Paris", False),
        ("like", "It is Paris.", "Paris", True),
        ("like", "It is paris.", "Paris", False),
        ("like", "Paris", "It is Paris.", False),
        ("like", "anything", "", True),
        ("ilike", "It is PARIS.", "paris", True),
        ("ilike", "STRASSE", "straße", True),
        ("ilike", "London", "paris", False),
        ("like", "a.c", "a%c", False),
    ],
)
def test_string_checks_compare_as_openai_documents(operation: str, text: str, reference: str, holds: bool) -> None:
    found = check(operation, text, reference)
    assert (found.score, found.passed, found.problem) == (float(holds), holds, None)
    assert (found.name, found.type) == ("g", "string-check-grader")


def test_a_similarity_passes_from_its_threshold_on() -> None:
    given = {
        "type": "text_similarity",
        "evaluation_metric": "rouge_1",
        "input": "{{sample.output_text}}",
        "reference": "testing one two",
    }
    for threshold, passed in ((0.8, True), (0.81, False)):
        found = graded({**given, "pass_threshold": threshold}, text="testing one")
        assert (found.type, found.passed) == ("text-similarity-grader", passed)
        assert found.score == pytest.approx(0.8)
    too_long = graded(given, text="x" * 100_001)
    assert too_long.problem is not None
    assert too_long.problem.kind is ProblemKind.OTHER
    assert "compares at most 100,000" in too_long.problem.details


SCORE = {"type": "score_model", "model": "judge", "range": [0, 10], "input": [{"role": "user", "content": "Grade."}]}
LABEL = {
    "type": "label_model",
    "model": "judge",
    "input": [{"role": "user", "content": "Label."}],
    "labels": ["yes", "no"],
    "passing_labels": ["yes"],
}


def test_a_score_passes_from_the_middle_of_its_range_unless_told() -> None:
    for more, answer, passed in (({}, "5", True), ({}, "4.9", False), ({"pass_threshold": 9}, "5", False)):
        workshop = Workshop(answer)
        found = graded({**SCORE, **more}, workshop=workshop)
        assert (found.score, found.passed, found.type) == (float(answer), passed, "score-model-grader")
        assert found.sample is not None
        assert found.sample["output"] == [{"role": "assistant", "content": answer}]
        assert found.sample["usage"] == {**USAGE, "cached_tokens": 0}
        ((body, purpose),) = workshop.asked
        assert (body["model"], purpose) == ("judge", "grading")


def test_a_label_passes_when_it_is_a_passing_one() -> None:
    for answer, passed in (("yes", True), ("no", False)):
        found = graded(LABEL, workshop=Workshop(f'{{"steps": [], "result": "{answer}"}}'))
        assert (found.score, found.passed, found.type) == (float(passed), passed, "label-model-grader")
        assert found.sample is not None
        assert found.sample["label"] == answer


def test_a_judge_that_cannot_be_asked_or_read_is_a_problem() -> None:
    silent = graded(SCORE, workshop=Workshop())
    assert silent.problem == Problem(kind=ProblemKind.MODEL_SERVER, details="No answer within 600 s.")
    assert silent.sample is None
    vague = graded(SCORE, workshop=Workshop("rather good"))
    assert vague.problem is not None
    assert vague.problem.kind is ProblemKind.MODEL_PARSE
    assert vague.sample is not None
    assert vague.sample["output"][0]["content"] == "rather good"
    for found in (silent, vague):
        assert (found.score, found.passed) == (0.0, False)


def python(source: str, **more: Any) -> Grade:
    return graded({"type": "python", "source": source, **more}, item={"label": "a"}, text="a")


def test_python_gets_sample_and_item_and_passes_from_its_threshold_on() -> None:
    same = "def grade(sample, item):\n    return 0.6 if sample['output_text'] == item['label'] else 0"
    assert python(same).passed
    assert python(same).type == "python-grader"
    assert not python(same, pass_threshold=0.7).passed


@pytest.mark.parametrize(
    ("body", "kind", "details", "code"),
    [
        ("return 1 / 0", ProblemKind.PYTHON_RUNTIME, "ZeroDivisionError: division by zero", "python_grader_failed"),
        ("return float('nan')", ProblemKind.PYTHON_RUNTIME, "grade gave nan; it must give a finite number.", None),
        ("return float('inf')", ProblemKind.PYTHON_RUNTIME, "grade gave inf; it must give a finite number.", None),
        ("raise ConnectionError", ProblemKind.PYTHON_SERVER, "The sandbox did not start.", "sandbox_gone"),
    ],
)
def test_python_that_fails_is_a_problem(body: str, kind: ProblemKind, details: str, code: str | None) -> None:
    found = python(f"def grade(sample, item):\n    {body}")
    assert found.problem == Problem(kind=kind, details=details, code=code)
    assert (found.score, found.passed) == (0.0, False)


EQUAL = {"type": "string_check", "operation": "eq", "input": "{{sample.output_json.a}}", "reference": "{{item.a}}"}


@pytest.mark.parametrize(
    ("item", "text", "kind"),
    [
        ({}, '{"a": 1}', ProblemKind.INVALID_VARIABLE),
        ({"a": 1}, '{"b": 1}', ProblemKind.INVALID_VARIABLE),
        ({"a": 1}, "no json", ProblemKind.SAMPLE_PARSE),
        ({"a": 1}, None, ProblemKind.INVALID_VARIABLE),
        ({"a": 1}, '{"a": 1}', None),
    ],
)
def test_a_variable_that_is_missing_is_a_problem(
    item: dict[str, Any], text: str | None, kind: ProblemKind | None
) -> None:
    found = graded(EQUAL, item=item, text=text)
    assert (found.problem.kind if found.problem else None) is kind
    assert found.passed is (kind is None)


def test_openais_multi_grader_example_is_graded_as_described() -> None:
    name = {"type": "text_similarity", "input": "{{sample.output_json.name}}", "reference": "{{item.name}}"}
    email = {"type": "string_check", "input": "{{sample.output_json.email}}", "reference": "{{item.email}}"}
    given = {
        "type": "multi",
        "graders": {
            "name": {**name, "name": "name_grader", "evaluation_metric": "rouge_1", "pass_threshold": 0.9},
            "email": {**email, "name": "email_grader", "operation": "eq"},
        },
        "calculate_output": "(name + email) / 2",
    }
    item = {"name": "John Doe", "email": "john.doe@gmail.com"}
    found = graded(given, item=item, text='{"name": "John Dowe", "email": "john.doe@gmail.com"}')
    assert (found.type, found.score, found.passed) == ("multi-grader", 0.75, True)
    assert found.sub_scores == {"name": 0.5, "email": 1.0}
    assert found.parts["email"].type == "string-check-grader"
    wrong = graded(given, item=item, text='{"name": "John Doe", "email": "?"}')
    assert (wrong.score, wrong.passed) == (0.5, True)
    missing = graded(given, item=item, text='{"name": "John Doe"}')
    assert missing.problem is not None
    assert missing.problem.kind is ProblemKind.INVALID_VARIABLE
    assert (missing.score, missing.passed, missing.sub_scores) == (0.0, False, {"name": 1.0, "email": 0.0})


def test_a_formula_without_a_result_is_a_problem_and_the_parts_are_told() -> None:
    given = {"type": "multi", "graders": {"s": SCORE, "l": LABEL}, "calculate_output": "s / l"}
    found = graded(given, workshop=Workshop("8", "no"))
    assert found.problem is not None
    assert found.problem.kind is ProblemKind.FORMULA_PARSE
    assert "'s / l' has no result for" in found.problem.details
    assert found.sub_scores == {"s": 8.0, "l": 0.0}
    assert [part.sample["usage"]["total_tokens"] for part in found.parts.values() if part.sample] == [7, 7]
    assert graded({**given, "calculate_output": "l - s"}, workshop=Workshop("8", "yes")).score == -7.0


def test_every_problem_is_one_flag_of_openais_grader_errors() -> None:
    names = {field.alias or name for name, field in MetadataErrors.model_fields.items()}
    for kind in ProblemKind:
        told = flags(Problem(kind=kind, details="why", code="gone"))
        assert set(told) == {*names, "details"}
        assert told.pop("details") == "why"
        assert [name for name, value in told.items() if value is True] == [kind.value]
        MetadataErrors.model_validate(told, strict=True)
        said = {name: value for name, value in told.items() if isinstance(value, str)}
        expected = {
            ProblemKind.PYTHON_SERVER: {"python_grader_server_error_type": "gone"},
            ProblemKind.PYTHON_RUNTIME: {"python_grader_runtime_error_details": "why"},
            ProblemKind.MODEL_SERVER: {"model_grader_server_error_details": "why"},
        }
        assert said == expected.get(kind, {})
    assert not any(flags(None).values())
