"""Whether two answers agree, and what is shown of answers that items brought along."""

from __future__ import annotations

from typing import Any

import pytest

from stillroom.evals.running.sampling import agree, brought, given
from stillroom.evals.usage import tokens


def calling(*arguments: str, name: str = "f") -> dict[str, Any]:
    calls = [
        {"id": f"call-{text}", "type": "function", "function": {"name": name, "arguments": text}} for text in arguments
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"content": "a"}, {"content": "a\n"}, True),
        ({"content": "a"}, {"content": "A"}, False),
        ({"content": "a"}, {"content": [{"type": "text", "text": "a"}]}, True),
        ({"content": None}, {"content": ""}, True),
        (calling('{"a": 1, "b": [2]}'), calling('{"b":[2],"a":1}'), True),
        (calling('{"a": 1}'), calling('{"a": 2}'), False),
        (calling('{"a": 1}'), calling('{"a": 1}', '{"a": 1}'), False),
        (calling('{"a": 1}'), calling('{"a": 1}', name="g"), False),
        (calling('{"a": [1, 2]}'), calling('{"a": [2, 1]}'), False),
        (calling("no json"), calling("no json"), True),
        (calling("no json"), calling("no  json"), False),
        (calling('{"a": 1}'), {"content": None}, False),
        ({"function_call": {"name": "f", "arguments": "{}"}}, calling("{ }"), True),
    ],
)
def test_messages_agree_when_they_say_the_same_however_it_is_spelled(one: Any, other: Any, alike: bool) -> None:
    assert agree(one, other) is alike
    assert agree(other, one) is alike


@pytest.mark.parametrize("calls", ["x", [5], [{"function": "x"}], [{"function": {"arguments": {"a": 1}}}], {"a": 1}])
def test_calls_of_any_shape_can_be_compared(calls: Any) -> None:
    message = {"content": "a", "tool_calls": calls}
    assert agree(message, message)


@pytest.mark.parametrize(
    ("usage", "prompt", "total"),
    [
        ({"prompt_tokens": 2, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}, 2, 5),
        ({"prompt_tokens": "x", "completion_tokens": None}, 0, 0),
        ({"prompt_tokens": -4, "completion_tokens": 1, "prompt_tokens_details": "x"}, 0, 1),
        (None, 0, 0),
        ("x", 0, 0),
        ([], 0, 0),
    ],
)
def test_tokens_are_read_from_usage_of_any_shape(usage: Any, prompt: int, total: int) -> None:
    found = tokens({"usage": usage})
    assert (found["prompt_tokens"], found["total_tokens"]) == (prompt, total)


def test_graders_see_what_follows_from_the_text_that_an_item_brought() -> None:
    row = {"item": {}, "sample": {"output_text": '{"a": 1}', "mine": 2}}
    sample = brought(row)
    assert sample is not None
    assert (sample["output_json"], sample["output_tools"], sample["mine"]) == ({"a": 1}, [], 2)
    assert brought({"item": {}, "sample": {"output_text": "a", "output_json": 5}})["output_json"] == 5  # type: ignore[index]
    assert brought({"item": {}, "sample": None}) is None


def test_an_item_without_an_answer_shows_the_form_of_one() -> None:
    shown = given({"item": {}, "sample": None}, {"code": "c", "message": "m"})
    assert (shown["input"], shown["output"], shown["finish_reason"]) == ([], [], "")
    assert shown["error"] == {"code": "c", "message": "m"}
    assert shown["usage"]["total_tokens"] == 0
