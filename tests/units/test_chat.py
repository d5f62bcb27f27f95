"""The chat language: what is taken, what is passed on, and what a stream spells."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom import chat
from stillroom.errors import InvalidRequest

MESSAGES = [{"role": "user", "content": "hello"}]


def parsed(**more: Any) -> chat.ChatRequest:
    return chat.parse_request(json.dumps({"model": "m", "messages": MESSAGES, **more}).encode())


def test_unknown_fields_are_passed_on_byte_for_byte() -> None:
    body = b'{"model":"a", "odd": {"z" :1.0,  "a":1e2}, "messages":[{"role":"user","content":"\\u00e9"}]}'
    sent = chat.parse_request(body).forwarded("b", ask_usage=False)
    assert b'{"z" :1.0,  "a":1e2}' in sent
    assert b'[{"role":"user","content":"\\u00e9"}]' in sent
    assert json.loads(sent)["model"] == "b"


def test_store_metadata_and_what_is_for_us_stay_here() -> None:
    asked = parsed(store=True, metadata={"a": "b"}, stillroom={"top_logprobs": 5})
    assert set(json.loads(asked.forwarded("m", ask_usage=False))) == {"model", "messages"}
    assert asked.top_logprobs == 5
    assert parsed().top_logprobs is None


def test_logprobs_can_be_asked_for_in_the_callers_place() -> None:
    sent = json.loads(parsed(logprobs=True, top_logprobs=2).forwarded("m", ask_usage=False, top_logprobs=20))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 20)


@pytest.mark.parametrize(
    "ours", [7, [], {"top_logprobs": 21}, {"top_logprobs": -1}, {"top_logprobs": True}, {"more": 1}]
)
def test_what_is_for_us_must_be_known(ours: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(stillroom=ours)
    assert str(refused.value.param).startswith("stillroom")


PROMPT = "Be brief — 短く。"


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("content", [PROMPT, [{"type": "text", "text": PROMPT}]])
def test_a_prompt_that_is_known_by_heart_is_left_out_and_the_rest_is_byte_for_byte(role: str, content: Any) -> None:
    first = json.dumps({"role": role, "content": content})
    rest = b'{"role" : "user","content":"caf\\u00e9","odd":1.0}'
    request = chat.parse_request(b'{"model":"m","messages":[' + first.encode() + b", " + rest + b"]}")
    assert request.begins_with(PROMPT)
    sent = request.forwarded("m", ask_usage=False, without_prompt=True)
    assert b'"messages":[' + rest + b"]" in sent
    assert first.encode() in request.forwarded("m", ask_usage=False)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": PROMPT}],  # nothing would be left
        [{"role": "system", "content": f"{PROMPT} "}, *MESSAGES],
        [{"role": "user", "content": PROMPT}, *MESSAGES],
        [{"role": "system", "content": PROMPT, "name": "a"}, *MESSAGES],
        [{"role": "system", "content": [{"type": "text", "text": PROMPT}] * 2}, *MESSAGES],
        [{"role": "system", "content": [{"type": "image_url", "text": PROMPT}]}, *MESSAGES],
        [{"role": "system", "content": [PROMPT]}, *MESSAGES],
        [{"role": "system", "content": None}, *MESSAGES],
        [*MESSAGES, {"role": "system", "content": PROMPT}],
        [{}, *MESSAGES],
    ],
)
def test_any_other_beginning_is_no_such_prompt(messages: Any) -> None:
    assert not parsed(messages=messages).begins_with(PROMPT)


@pytest.mark.parametrize(
    ("stream", "ask", "options", "expected"),
    [
        (True, True, None, {"include_usage": True}),
        (True, True, {"x": 1, "include_usage": False}, {"x": 1, "include_usage": True}),
        (True, False, {"include_usage": True}, None),
        (False, True, None, None),
    ],
)
def test_usage_is_asked_for_in_streams_only(stream: bool, ask: bool, options: Any, expected: Any) -> None:
    more = {} if options is None else {"stream_options": options}
    sent = json.loads(parsed(stream=stream, **more).forwarded("m", ask_usage=ask))
    assert sent.get("stream_options") == expected


@pytest.mark.parametrize(
    "data", [b"NaN", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b"1e400", b"[" * 9999, b"9" * 5000, b""]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat.decode(data)
    assert refused.value.code == "invalid_json"
    assert chat.decode(b'"\\ud83d\\ude00"') == "😀"


def test_metadata_of_sixteen_pairs_is_taken_and_of_seventeen_is_not() -> None:
    chat.check_metadata({f"{n}": "v" for n in range(16)})
    with pytest.raises(InvalidRequest) as refused:
        chat.check_metadata({f"{n}": "v" for n in range(17)})
    assert refused.value.code == "object_above_max_properties"


USAGES: list[tuple[Any, tuple[int, int, int] | None]] = [
    ({"prompt_tokens": 7, "completion_tokens": 3}, (7, 3, 0)),
    ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}, (7, 3, 5)),
    ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}, (7, 3, 7)),
    ({"prompt_tokens": 7, "completion_tokens": "3", "prompt_tokens_details": "x"}, (7, 0, 0)),
    ({"prompt_tokens": True}, None),
    ({"prompt_tokens": -1}, None),
    ({"prompt_tokens": 10**20}, None),
    ([], None),
    (None, None),
]


@pytest.mark.parametrize(("reported", "expected"), USAGES)
def test_reported_usage_is_believed_only_when_it_can_be(reported: Any, expected: Any) -> None:
    completion = {"choices": [{"message": {"content": "hi"}}], "usage": reported}
    usage = chat.usage_of(completion, parsed())
    assert usage.estimated is (expected is None)
    if expected is not None:
        assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == expected
    else:
        assert 0 < usage.prompt_tokens < 100


def chunk(**choice: Any) -> dict[str, Any]:
    return {"id": "a", "choices": [{"index": 0, "delta": {}, **choice}]}


@given(st.text(min_size=1), st.lists(st.integers(0, 20), max_size=5))
def test_a_text_cut_anywhere_is_spelled_again(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(cut % len(text) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    chunks = [chunk(delta={"content": piece}) for piece in pieces] + [chunk(finish_reason="stop")]
    (choice,) = chat.completion_from_chunks(chunks)["choices"]
    assert choice["message"]["content"] == text
    assert choice["finish_reason"] == "stop"


def test_tool_calls_are_put_together_by_their_index() -> None:
    def part(index: int, **function: str) -> dict[str, Any]:
        return chunk(delta={"tool_calls": [{"index": index, "id": f"c{index}", "function": function}]})

    chunks = [part(0, name="f", arguments='{"a"'), part(1, name="g", arguments="{}"), part(0, arguments=":1}")]
    (choice,) = chat.completion_from_chunks(chunks)["choices"]
    assert [(c["id"], c["function"]) for c in choice["message"]["tool_calls"]] == [
        ("c0", {"name": "f", "arguments": '{"a":1}'}),
        ("c1", {"name": "g", "arguments": "{}"}),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "index", "delta", "tool_calls", "function", "logprobs", "content", "usage", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=5))
def test_whatever_has_a_chunks_shape_can_be_put_together(values: list[Any]) -> None:
    chunks = [value for value in values if chat.is_chunk(value)]
    completion = chat.completion_from_chunks(chunks)
    usage = chat.usage_of(completion, parsed())
    assert usage.prompt_tokens >= 0
    assert usage.completion_tokens >= 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("yes", ("", "yes")),
        (" \n<think>\nso\n</think>\n\nyes ", ("\nso\n", "yes ")),
        ("<think>a</think>b</think>", ("a", "b</think>")),
        ("<think>it broke off", ("it broke off", "")),
        ("I <think>so</think>", ("", "I <think>so</think>")),
    ],
)
def test_thoughts_are_parted_from_the_answer_behind_them(text: str, parts: tuple[str, str]) -> None:
    assert chat.parted(text) == parts


def test_an_index_that_would_fill_memory_is_no_chunk() -> None:
    assert chat.is_chunk(chunk(delta={"tool_calls": [{"index": 3}]}))
    assert not chat.is_chunk(chunk(delta={"tool_calls": [{"index": 10**9}]}))
    assert not chat.is_chunk({"choices": [{"index": 10**9}]})


def test_only_an_id_is_replaced_not_a_text_that_quotes_it() -> None:
    data = json.dumps({"id": "chatcmpl-1", "choices": [{"message": {"content": '"id": "chatcmpl-1"'}}]}).encode()
    replaced = json.loads(chat.replace_id(data, b'"chatcmpl-1"', b'"chatcmpl-2"'))
    assert replaced["id"] == "chatcmpl-2"
    assert replaced["choices"][0]["message"]["content"] == '"id": "chatcmpl-1"'
