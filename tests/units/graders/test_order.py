"""Graders are read from their JSON, and what is wrong with them is told by its place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import InvalidRequest
from stillroom.graders import order

# The examples of OpenAI's API description, as a client sends them.
STRING_CHECK = {
    "type": "string_check",
    "name": "Example string check grader",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "operation": "eq",
}
TEXT_SIMILARITY = {
    "type": "text_similarity",
    "name": "Example text similarity grader",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "pass_threshold": 0.8,
    "evaluation_metric": "fuzzy_match",
}
LABEL_MODEL = {
    "name": "First label grader",
    "type": "label_model",
    "model": "gpt-4o-2024-08-06",
    "input": [
        {"type": "message", "role": "system", "content": {"type": "input_text", "text": "Classify the sentiment"}},
        {"role": "user", "content": "Statement: {{item.response}}"},
    ],
    "passing_labels": ["positive"],
    "labels": ["positive", "neutral", "negative"],
}
SCORE_MODEL = {
    "type": "score_model",
    "name": "Example score model grader",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Reference: {{item.reference}}"},
                {"type": "output_text", "text": "{{sample.output_text}}"},
                "plain",
            ],
        }
    ],
    "model": "gpt-5-mini",
    "sampling_params": {"temperature": 1, "top_p": 1, "seed": 42, "max_completions_tokens": 32768},
}
PYTHON = {
    "type": "python",
    "name": "Example python grader",
    "image_tag": "2025-05-08",
    "source": "def grade(sample: dict, item: dict) -> float:\n    return 1.0\n",
}
MULTI = {
    "type": "multi",
    "graders": {
        "name": {**TEXT_SIMILARITY, "name": "name_grader"},
        "email": {**STRING_CHECK, "name": "email_grader"},
    },
    "calculate_output": "(name + email) / 2",
}
CRITERIA = [STRING_CHECK, TEXT_SIMILARITY, LABEL_MODEL, SCORE_MODEL, PYTHON]


def read(given: Any, *, in_eval: bool = True) -> order.Grader:
    return order.read(given, param="testing_criteria[0]", in_eval=in_eval)


def refused(given: Any, *, in_eval: bool = True) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as error:
        read(given, in_eval=in_eval)
    return error.value.param, error.value.message


@pytest.mark.parametrize("given", CRITERIA, ids=lambda given: given["type"])
def test_openais_own_examples_are_taken(given: dict[str, Any]) -> None:
    for in_eval in (True, False):
        grader = read(given, in_eval=in_eval)
        assert (grader.kind.value, grader.name) == (given["type"], given["name"])


@pytest.mark.parametrize("given", CRITERIA, ids=lambda given: given["type"])
def test_every_field_that_is_missing_or_no_text_is_named(given: dict[str, Any]) -> None:
    for field in set(given) - {"pass_threshold", "sampling_params", "image_tag"}:
        without = {name: value for name, value in given.items() if name != field}
        param, message = refused(without)
        assert (param, message) == (
            f"testing_criteria[0].{field}",
            f"Missing required parameter: 'testing_criteria[0].{field}'.",
        )
        for wrong in (7, {"a": 1}, [8], ""):
            if not (wrong == "" and field in ("input", "reference")):
                param, _ = refused({**given, field: wrong})
                assert param is not None
                assert param.startswith(f"testing_criteria[0].{field}")


@pytest.mark.parametrize("given", [None, "eq", 3, [], [STRING_CHECK]])
def test_what_is_no_object_is_refused(given: Any) -> None:
    assert refused(given) == ("testing_criteria[0]", "Invalid type for 'testing_criteria[0]': expected an object.")


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({**STRING_CHECK, "operation": "regex"}, "operation", "'regex' is none of eq, ne, like, ilike"),
        ({**STRING_CHECK, "type": "exact"}, "type", "'exact' is none of string_check, text_similarity,"),
        ({**STRING_CHECK, "input": "{{ foo.x }}"}, "input", "begin with item. or sample."),
        ({**TEXT_SIMILARITY, "evaluation_metric": "rouge_6"}, "evaluation_metric", "'rouge_6' is none of cosine,"),
        ({**TEXT_SIMILARITY, "pass_threshold": "0.8"}, "pass_threshold", "'0.8' is no number"),
        ({**TEXT_SIMILARITY, "pass_threshold": True}, "pass_threshold", "True is no number"),
        ({**TEXT_SIMILARITY, "pass_threshold": None}, "pass_threshold", "Missing required parameter"),
        ({**TEXT_SIMILARITY, "pass_threshold": 1.01}, "pass_threshold", "1.01 is outside the scores, which are 0 to 1"),
        ({**TEXT_SIMILARITY, "pass_threshold": -1}, "pass_threshold", "-1 is outside the scores"),
        ({**SCORE_MODEL, "pass_threshold": 7}, "pass_threshold", "7 is outside the scores, which are 0 to 1"),
        ({**SCORE_MODEL, "range": [1, 5], "pass_threshold": 0.5}, "pass_threshold", "which are 1 to 5"),
        ({**LABEL_MODEL, "passing_labels": ["good"]}, "passing_labels", "'good' is none of the labels 'positive',"),
        ({**LABEL_MODEL, "labels": []}, "labels", "give at least one"),
        ({**LABEL_MODEL, "input": []}, "input", "a list of messages"),
        ({**SCORE_MODEL, "range": [1, 0]}, "range", "the lower one first"),
        ({**SCORE_MODEL, "range": [0, 10**400]}, "range", "the lower one first"),
        ({**SCORE_MODEL, "range": [0, 0.5, 1]}, "range", "the lower one first"),
        ({**SCORE_MODEL, "sampling_params": {"n": 2}}, "sampling_params.n", "known are max_completions_tokens,"),
        ({**SCORE_MODEL, "sampling_params": {"top_p": "1"}}, "sampling_params.top_p", "no number"),
        ({**SCORE_MODEL, "sampling_params": {"seed": 0.5}}, "sampling_params.seed", "no whole number"),
        (
            {**SCORE_MODEL, "sampling_params": {"max_completion_tokens": 0}},
            "sampling_params.max_completion_tokens",
            "less than 1",
        ),
        ({**PYTHON, "source": "def grade(sample, item):\n  return (1"}, "source", "line 2 is no Python"),
        ({**PYTHON, "source": "def mark(sample, item): return 1"}, "source", "it defines no function 'grade'"),
        ({**PYTHON, "source": "async def grade(s, i): return 1"}, "source", "its 'grade' is async"),
        ({**PYTHON, "source": "grade = 1" + " " * 256_000}, "source", "less than 256000"),
        ({**PYTHON, "source": "grade = " + "(" * 9000}, "source", "Invalid"),
        ({**PYTHON, "source": "grade = 1\0"}, "source", "null bytes"),
        ({**MULTI, "name": "m"}, "type", "'multi' cannot be a testing criterion"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(given: dict[str, Any], param: str, said: str) -> None:
    where, message = refused(given)
    assert where == f"testing_criteria[0].{param}"
    assert said in message


@pytest.mark.parametrize("kind", ["input_image", "input_audio"])
def test_images_and_sounds_are_refused_by_their_place(kind: str) -> None:
    content = [{"type": "input_text", "text": "look"}, {"type": kind, "image_url": "https://example.com/a.png"}]
    param, message = refused({**SCORE_MODEL, "input": [{"role": "user", "content": content}]})
    assert param == "testing_criteria[0].input[0].content[1].type"
    assert f"'{kind}' is not supported: judges here read text" in message


def test_both_spellings_of_the_token_limit_are_taken() -> None:
    for spelling in ("max_completions_tokens", "max_completion_tokens", "max_tokens"):
        given = {**SCORE_MODEL, "sampling_params": {spelling: 9, "reasoning_effort": "low", "seed": None}}
        grader = read(given)
        assert isinstance(grader, order.ScoreModel)
        assert grader.sampling == {"max_completion_tokens": 9, "reasoning_effort": "low"}


def test_thresholds_have_defaults_in_the_middle() -> None:
    scored = read({**SCORE_MODEL, "range": [1, 5]})
    assert isinstance(scored, order.ScoreModel)
    assert (scored.low, scored.high, scored.pass_threshold) == (1.0, 5.0, 3.0)
    coded = read(PYTHON)
    assert isinstance(coded, order.PythonCode)
    assert (coded.pass_threshold, coded.image_tag) == (0.5, "2025-05-08")
    similar = read({**TEXT_SIMILARITY, "pass_threshold": None}, in_eval=False)
    assert isinstance(similar, order.TextSimilarity)
    assert similar.pass_threshold == 0.5


def test_grade_may_be_bound_in_any_way_and_doubtful_escapes_are_the_authors() -> None:
    for source in ("from x import y as grade", "grade = lambda s, i: 1", 'import re\ndef grade(s, i): return "\\d"'):
        assert isinstance(read({**PYTHON, "source": source}), order.PythonCode)


@pytest.mark.parametrize("arguments", ["", "s", "s, i, more", "s, *, item", "s, i, *, more"])
def test_a_grade_that_cannot_take_sample_and_item_is_refused(arguments: str) -> None:
    param, message = refused({**PYTHON, "source": f"def grade({arguments}): return 1"})
    assert param == "testing_criteria[0].source"
    assert "cannot be called with two values; write def grade(sample, item)" in message


@pytest.mark.parametrize(
    "source",
    [
        "def grade(s, i, more=1): return 1",
        "def grade(*values): return 1",
        "def grade(s, /, i, *, more=2, **others): return 1",
        "@two\ndef grade(s): return 1",
        "def grade(s): return 1\ngrade = two(grade)",
        "if True:\n    def grade(s): return 1",
    ],
)
def test_a_grade_that_may_take_sample_and_item_is_taken(source: str) -> None:
    assert isinstance(read({**PYTHON, "source": source}), order.PythonCode)


@pytest.mark.parametrize("threshold", [0, 1, 0.5])
def test_a_threshold_may_be_the_edge_of_the_scores(threshold: float) -> None:
    for criterion in (TEXT_SIMILARITY, SCORE_MODEL):
        grader = read({**criterion, "pass_threshold": threshold})
        assert isinstance(grader, order.TextSimilarity | order.ScoreModel)
        assert grader.pass_threshold == threshold


def test_outside_evals_a_grader_needs_no_name() -> None:
    nameless = {name: value for name, value in PYTHON.items() if name != "name"}
    assert read(nameless, in_eval=False).name == "python"
    assert refused({**PYTHON, "name": 3}, in_eval=False)[0] == "testing_criteria[0].name"


def multi(graders: Any, formula: str) -> order.Multi:
    grader = read({"type": "multi", "graders": graders, "calculate_output": formula}, in_eval=False)
    assert isinstance(grader, order.Multi)
    return grader


def test_a_formula_may_use_keys_names_and_types() -> None:
    for formula in ("(name + email) / 2", "name_grader + email_grader", "text_similarity_score + string_check_score"):
        assert list(multi(MULTI["graders"], formula).graders) == ["name", "email"]
    listed = [TEXT_SIMILARITY, STRING_CHECK]
    for formula in (
        "0.5 * text_similarity_score + 0.5 * string_check_score",
        "Example_text_similarity_grader ^ Example_string_check_grader",
    ):
        assert set(multi(listed, formula).graders) == {TEXT_SIMILARITY["name"], STRING_CHECK["name"]}
    assert list(multi(STRING_CHECK, "string_check_score").graders) == [STRING_CHECK["name"]]


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({**MULTI, "calculate_output": "name + phone"}, "calculate_output", "it names 'phone'; the scores are called"),
        ({**MULTI, "graders": {}}, "graders", "with 1 to 64 graders"),
        ({**MULTI, "graders": {"a": MULTI}}, "graders.a.type", "cannot hold another"),
        ({**MULTI, "graders": [STRING_CHECK, STRING_CHECK]}, "graders", "two graders are called"),
        ({**MULTI, "graders": {"a b": STRING_CHECK, "a-b": STRING_CHECK}}, "graders", "written as an identifier"),
        ({**MULTI, "graders": [{**STRING_CHECK, "operation": "is"}]}, "graders[0].operation", "'is' is none of"),
        ({**MULTI, "graders": {"x": {"type": "y"}}}, "graders.x.type", "'y' is none of"),
    ],
)
def test_a_wrong_part_of_a_multi_grader_is_named(given: dict[str, Any], param: str, said: str) -> None:
    where, message = refused(given, in_eval=False)
    assert where == f"testing_criteria[0].{param}"
    assert said in message


def test_a_type_that_two_parts_have_is_no_variable() -> None:
    two = {"a": STRING_CHECK, "b": {**STRING_CHECK, "name": "other"}}
    assert (
        "it names 'string_check_score'"
        in refused({**MULTI, "graders": two, "calculate_output": "string_check_score"}, in_eval=False)[1]
    )


def test_the_models_and_the_code_of_a_grader_are_known() -> None:
    parts = {"s": {**SCORE_MODEL, "model": "a"}, "l": {**LABEL_MODEL, "model": "b"}, "c": STRING_CHECK}
    grader = multi(parts, "s + l + c")
    assert order.models_of(grader) == {"a", "b"}
    assert not order.runs_python(grader)
    assert order.runs_python(multi({"p": PYTHON}, "p"))
    assert order.models_of(read(PYTHON)) == set()


def test_the_examples_of_the_documentation_can_be_used() -> None:
    page = (Path(__file__).parents[3] / "docs/graders.md").read_text()
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    assert {example["type"] for example in examples} == {kind.value for kind in order.Kind}
    for example in examples:
        assert read(example, in_eval=example["type"] != "multi").name == example["name"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["{{", "grade = ("]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "role", "content", ""]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(given_order=st.sampled_from([*CRITERIA, MULTI]), data=st.data())
def test_any_value_in_any_field_is_read_or_refused(given_order: dict[str, Any], data: st.DataObject) -> None:
    fields = st.dictionaries(st.sampled_from([*given_order, "range", "pass_threshold", "sampling_params"]), json_values)
    try:
        read({**given_order, **data.draw(fields)}, in_eval=False)
    except InvalidRequest as error:
        assert error.param is not None
        assert error.param.startswith("testing_criteria[0]")
