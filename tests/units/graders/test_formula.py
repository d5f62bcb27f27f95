"""Formulas of multi graders: arithmetic, bounded, over the scores alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import InvalidRequest
from stillroom.graders.formula import FormulaFailed, compile_formula

SCORES = {"name": 0.5, "email": 1.0, "zero": 0.0}


def result(text: str) -> float:
    return compile_formula(text, SCORES, param="calculate_output").result(SCORES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(name + email) / 2", 0.75),
        ("0.5 * name + 0.5 * email", 0.75),
        (" email ", 1.0),
        ("name ^ 2", 0.25),
        ("name ** 2", 0.25),
        ("2 + 3 * 2 ^ 2", 14.0),
        ("-name ^ 2", -0.25),
        ("7 // 2 + 7 % 4", 6.0),
        ("min(name, email, 0.7)", 0.5),
        ("max(name, email)", 1.0),
        ("abs(-name)", 0.5),
        ("floor(1.9) + ceil(1.1)", 3.0),
        ("exp(0) + sqrt(4) + log(1)", 3.0),
        ("+name", 0.5),
    ],
)
def test_a_formula_gives_its_number(text: str, expected: float) -> None:
    assert result(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.5 * text_similarity_score + 0.5 * string_check_score)", "is no formula"),
        ("", "is no formula"),
        ("other + 1", "it names 'other'; the scores are called email, name, zero"),
        ("__import__('os')", "not allowed"),
        ("name.real", "'name.real' is not allowed"),
        ("name if email else 0", "not allowed"),
        ("name > 0.5", "not allowed"),
        ("[name]", "not allowed"),
        ("'name'", "not allowed"),
        ("True", "not allowed"),
        ("1j", "not allowed"),
        ("lambda: 1", "not allowed"),
        ("min(name)", "not allowed"),
        ("sqrt(name, email)", "not allowed"),
        ("min(*name)", "not allowed"),
        ("max(name, key=email)", "not allowed"),
        ("name << 9", "not allowed"),
        ("not name", "not allowed"),
        ("min", "it names 'min'"),
        ("-" * 80 + "1", "nested more than 50 deep"),
        ("(" * 1500 + "1" + ")" * 400, "is no formula"),
        ("1+" * 1200 + "1", "at most 2000"),
    ],
)
def test_what_is_no_arithmetic_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        compile_formula(text, SCORES, param="grader.calculate_output")
    assert said in refused.value.message
    assert refused.value.param == "grader.calculate_output"


@pytest.mark.parametrize(
    "text",
    [
        "name / zero",
        "name % zero",
        "log(zero)",
        "sqrt(-1)",
        "exp(1000)",
        "9^9^9^9",
        "1e308 * 10",
        "1e999",
        "zero ^ -1",
        "(-8) ^ 0.5",
    ],
)
def test_no_finite_result_is_a_failure_and_quick(text: str) -> None:
    formula = compile_formula(text, SCORES, param="")
    with pytest.raises(FormulaFailed, match="has no"):
        formula.result(SCORES)


@given(text=st.text(alphabet="name+-*/^%()0123456789. ,emilzro") | st.text(max_size=40))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        formula = compile_formula(text, SCORES, param="")
    except InvalidRequest:
        return
    try:
        assert math.isfinite(formula.result(SCORES))
    except FormulaFailed:
        pass
