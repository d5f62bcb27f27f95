"""Judges are asked by schema or in words, and their answers are read, or told as a problem."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stillroom.graders import judge, order
from stillroom.graders.problem import Problem, ProblemKind
from stillroom.graders.subject import Subject, sample_of

SUBJECT = Subject(item={"reference": "Paris", "n": 1}, sample=sample_of("paris, {{item.reference}}"))
SCORE = {
    "type": "score_model",
    "name": "closeness",
    "model": "gpt-4o",
    "range": [0, 10],
    "input": [
        {"role": "system", "content": "Judge."},
        {"role": "user", "content": "{{ item.reference }} / {{ sample.output_text }}"},
    ],
    "sampling_params": {"temperature": 0, "max_completions_tokens": 50, "seed": 4, "top_p": 1},
}
LABEL = {
    "type": "label_model",
    "name": "tone",
    "model": "gpt-4o",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "{{item.n}}"}, "or?"]}],
    "labels": ["good", "bad", "Bad"],
    "passing_labels": ["good"],
}


def scorer() -> order.ScoreModel:
    grader = order.read(SCORE, param="grader")
    assert isinstance(grader, order.ScoreModel)
    return grader


def labeller() -> order.LabelModel:
    grader = order.read(LABEL, param="grader")
    assert isinstance(grader, order.LabelModel)
    return grader


def answer(content: Any, *, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"model": "gpt-4o-2024", "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}]}


def test_the_request_is_a_chat_completion_with_a_strict_schema() -> None:
    body = judge.request(scorer(), SUBJECT)
    schema = body.pop("response_format")["json_schema"]
    assert body == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Judge."},
            {"role": "user", "content": "Paris / paris, {{item.reference}}"},
        ],
        "temperature": 0,
        "max_completion_tokens": 50,
        "seed": 4,
        "top_p": 1,
    }
    assert schema["strict"] is True
    right = {"steps": [{"description": "d", "conclusion": "c"}], "result": 7.5}
    Draft202012Validator(schema["schema"]).validate(right)
    for wrong in ({**right, "result": "7"}, {"result": 1}, {**right, "more": 1}):
        assert not Draft202012Validator(schema["schema"]).is_valid(wrong)
    assert "from 0 to 10" in schema["schema"]["properties"]["result"]["description"]


def test_a_labels_schema_knows_the_labels_and_text_parts_stay_apart() -> None:
    body = judge.request(labeller(), SUBJECT)
    schema = body["response_format"]["json_schema"]["schema"]
    assert Draft202012Validator(schema).is_valid({"steps": [], "result": "good"})
    assert not Draft202012Validator(schema).is_valid({"steps": [], "result": "great"})
    parts = [{"type": "text", "text": "1"}, {"type": "text", "text": "or?"}]
    assert body["messages"] == [{"role": "user", "content": parts}]


def test_without_a_format_the_same_is_asked_in_words() -> None:
    body = judge.request(scorer(), SUBJECT)
    schema = json.dumps(body["response_format"]["json_schema"]["schema"], separators=(",", ":"))
    plain = judge.without_format(body)
    assert "response_format" in body  # untouched
    assert {name for name in body if name not in plain} == {"response_format"}
    assert [message["role"] for message in plain["messages"]] == ["system", "user"]
    said = plain["messages"][1]["content"]
    assert said.startswith("Paris / paris")
    assert said.endswith(schema)
    listed = judge.without_format(judge.request(labeller(), SUBJECT))["messages"]
    assert [part["text"] for part in listed[0]["content"]][:2] == ["1", "or?"]
    assert '"enum":["good","bad","Bad"]' in listed[0]["content"][2]["text"]
    only_system = judge.without_format({**body, "messages": [{"role": "system", "content": "Judge."}]})
    assert [message["role"] for message in only_system["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("content", "score"),
    [
        ('{"steps": [], "result": 7.5}', 7.5),
        ('{"result": "8"}', 8.0),
        ('```json\n{"result": 3}\n```', 3.0),
        ('Here it is:\n```\n{"result": 3}\n```\nDone.', 3.0),
        ('The grade is {"steps": [], "result": 10} as asked.', 10.0),
        (" 4.5 \n", 4.5),
        ('{"result": 10.01}', 10.0),
        ("-1", 0.0),
        ("```\n6\n```", 6.0),
        ('<think>It might be 3, or {"result": 1}.</think>\n9', 9.0),
        ([{"type": "text", "text": '{"result": '}, {"type": "text", "text": "0}"}], 0.0),
    ],
)
def test_a_score_is_read_in_any_dress(content: Any, score: float) -> None:
    assert judge.verdict(scorer(), answer(content)) == score


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ('{"steps": [], "result": "good"}', "good"),
        ('```json\n{"result": "bad"}\n```', "bad"),
        ("good", "good"),
        ('"good"', "good"),
        (" **Good.** ", "good"),
        ("Bad", "Bad"),
        ("bad", "bad"),
    ],
)
def test_a_label_is_read_in_any_dress(content: str, label: str) -> None:
    assert judge.verdict(labeller(), answer(content)) == label


@pytest.mark.parametrize(
    ("completion", "kind", "said"),
    [
        (answer("I would say seven."), ProblemKind.MODEL_PARSE, "no score: I would say seven."),
        (answer('{"score": 7}'), ProblemKind.MODEL_PARSE, "no score"),
        (answer('{"result": true}'), ProblemKind.MODEL_PARSE, "no score"),
        (answer('{"result": null}'), ProblemKind.MODEL_PARSE, "no score"),
        (answer('{"result": "NaN"}'), ProblemKind.MODEL_PARSE, "no score"),
        (answer("1" + "0" * 400), ProblemKind.MODEL_PARSE, "no score"),
        (answer(""), ProblemKind.UNRESPONSIVE_REWARD, "nothing"),
        (answer(None), ProblemKind.UNRESPONSIVE_REWARD, "nothing"),
        (answer(None, refusal="I cannot judge that."), ProblemKind.MODEL_REFUSAL, "I cannot judge that."),
        (answer("", finish_reason="content_filter"), ProblemKind.MODEL_REFUSAL, "refused"),
        (answer('{"steps": [{"descr', finish_reason="length"), ProblemKind.TRUNCATED_OBSERVATION, "cut off"),
        (answer("", finish_reason="length"), ProblemKind.TRUNCATED_OBSERVATION, "cut off"),
        ({"choices": []}, ProblemKind.UNRESPONSIVE_REWARD, "nothing"),
    ],
)
def test_an_answer_without_a_score_is_told_as_what_it_is(
    completion: dict[str, Any], kind: ProblemKind, said: str
) -> None:
    problem = judge.verdict(scorer(), completion)
    assert isinstance(problem, Problem)
    assert problem.kind is kind
    assert said in problem.details


@pytest.mark.parametrize("content", ['{"result": "great"}', "goodness", '{"result": 1}', "BAD", "[]"])
def test_an_unknown_or_ambiguous_label_is_no_label(content: str) -> None:
    problem = judge.verdict(labeller(), answer(content))
    assert isinstance(problem, Problem)
    assert problem.kind is ProblemKind.MODEL_PARSE
    assert "none of the labels good, bad, Bad" in problem.details


def test_a_whole_score_in_a_cut_answer_still_counts() -> None:
    assert judge.verdict(scorer(), answer('{"result": 5}', finish_reason="length")) == 5.0


@given(content=st.text() | st.text(alphabet='{}"result: 0123`\n').map(lambda text: "```" + text))
def test_any_answer_is_a_score_within_range_or_a_problem(content: str) -> None:
    found = judge.verdict(scorer(), answer(content))
    assert isinstance(found, Problem) or (isinstance(found, float) and 0 <= found <= 10)


def test_the_exchange_is_kept_as_output_items_show_it() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    body = judge.request(scorer(), SUBJECT)
    sample = judge.sample_of(body, {**answer("7"), "usage": usage})
    assert sample == {
        "input": body["messages"],
        "output": [{"role": "assistant", "content": "7"}],
        "finish_reason": "stop",
        "model": "gpt-4o-2024",
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cached_tokens": 3},
        "error": None,
        "temperature": 0,
        "max_completion_tokens": 50,
        "top_p": 1,
        "seed": 4,
    }
    assert judge.sample_of(body, answer("7"))["usage"] is None
