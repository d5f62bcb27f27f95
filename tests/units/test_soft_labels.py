"""What the caller sees of logprobs that are only kept, and what a training row gets of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text as sql

from stillroom import chat, logprobs
from stillroom.assembly import open_platform
from stillroom.completions import soft_labels
from stillroom.config import Price, Settings
from stillroom.datasets.answers import Reasoning, Style, has_labels, message_of
from stillroom.gateway.complete import Call, Completed
from stillroom.gateway.soft_labels import Parted, Wish, parse, wish_of
from stillroom.serving.models import Target

HIDDEN = Wish(alternatives=20, own=None)
LABELLED = Style(soft_labels=True)
BOTH = Style(soft_labels=True, reasoning=Reasoning.KEEP)


def request(**more: Any) -> chat.ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "store": True, **more}
    return chat.parse_request(json.dumps(body).encode())


def entry(token: str | bytes, *others: str) -> dict[str, Any]:
    spelled = token.encode() if isinstance(token, str) else token
    top = [{"token": other, "bytes": list(other.encode()), "logprob": -2.5} for other in others]
    own = {"token": spelled.decode(errors="replace"), "bytes": list(spelled), "logprob": -0.25}
    return {**own, "top_logprobs": [own, *top]}


def packed(*tokens: str | bytes) -> bytes:
    return logprobs.pack([entry(token, "other") for token in tokens])


def told(message: Any) -> list[tuple[bytes, int]]:
    """The tokens of a row's logprobs, and how many alternatives each has."""
    return [(position.token, len(position.top)) for position in logprobs.of_message(message["logprobs"])]


# --- what is asked for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usual", "more", "wish"),
    [
        (20, {}, HIDDEN),
        (0, {}, None),
        (0, {"stillroom": {"top_logprobs": 20}}, HIDDEN),
        (20, {"stillroom": {"top_logprobs": 0}}, None),
        (20, {"stillroom": {}}, HIDDEN),
        (20, {"stillroom": None}, HIDDEN),
        (20, {"store": False}, None),
        (20, {"store": False, "stillroom": {"top_logprobs": 5}}, None),
        (20, {"logprobs": False}, HIDDEN),
        (20, {"logprobs": True}, Wish(alternatives=20, own=0)),
        (20, {"logprobs": True, "top_logprobs": 3}, Wish(alternatives=20, own=3)),
        (5, {"logprobs": True, "top_logprobs": 20}, Wish(alternatives=5, own=20)),
        # What the teacher refuses stays the teacher's to refuse.
        (20, {"top_logprobs": 3}, None),
        (20, {"logprobs": True, "top_logprobs": "many"}, None),
        (20, {"logprobs": 1}, None),
    ],
)
def test_logprobs_are_kept_when_asked_for_by_the_teachers_setting_or_the_call(
    usual: int, more: dict[str, Any], wish: Wish | None
) -> None:
    assert wish_of(request(**more), usual) == wish


# --- what is shown --------------------------------------------------------------------------------------

ODD = (
    b'{ "id":"x","choices" : [ {"index":0, "message":{"content":"\\"logprobs\\": {\\"content\\":[]}"},\n'
    b'"logprobs" : {"content":[{"token":"a","logprob":-1.50e-1,"bytes":[97],"top_logprobs":['
    b'{"token":"a","logprob":-0.10,"bytes":null}, {"token":"b","logprob":-2.0,"bytes":[98]}]}],"refusal":null}'
    b', "finish_reason":"stop"},{"index":1,"message":{},"logprobs":null},{"index":2,"message":{}} ], "more":1.0 }'
)


def test_but_for_the_logprobs_an_answer_is_shown_byte_for_byte() -> None:
    before, after = ODD.index(b'{"content":[{'), ODD.index(b', "finish_reason"')
    assert HIDDEN.part(ODD, ODD).shown == ODD[:before] + b"null" + ODD[after:]
    assert Wish(alternatives=2, own=2).part(ODD, ODD).shown == ODD


def test_a_caller_who_asked_for_fewer_alternatives_sees_so_many_in_their_own_spelling() -> None:
    shown = Wish(alternatives=20, own=1).part(ODD, ODD).shown
    assert shown is not None
    assert shown == ODD.replace(b', {"token":"b","logprob":-2.0,"bytes":[98]}', b"")
    none = Wish(alternatives=20, own=0).part(ODD, ODD).shown
    assert none is not None
    assert b'"logprob":-1.50e-1,"bytes":[97],"top_logprobs":[]}]' in none


def test_an_event_that_is_spread_over_lines_is_found_to_be_so() -> None:
    event = b'data: {"choices":[{"logprobs":\ndata: {"content":\ndata: [1]}}]}\n\n'
    parted = HIDDEN.part(event, b'{"choices":[{"logprobs":\n{"content":\n[1]}}]}')
    assert parted == Parted(shown=None, told=b'{"content":\n[1]}')


@pytest.mark.parametrize("strange", ["text", 7, [], {}, {"content": 5}, {"content": [1]}, {"content": [{}]}, True])
def test_logprobs_of_no_shape_are_hidden_and_never_break_the_answer(strange: Any) -> None:
    answer = {"choices": [{"logprobs": strange, "message": {"content": "a"}}, {"logprobs": strange}]}
    data = msgspec.json.encode(answer)
    hidden = {"choices": [{"logprobs": None, "message": {"content": "a"}}, {"logprobs": None}]}
    parted, parsed = HIDDEN.part(data, data), msgspec.json.decode(data)
    HIDDEN.hide(parsed)
    assert parsed == hidden
    assert parted == Parted(shown=msgspec.json.encode(hidden), told=msgspec.json.encode(strange))
    assert Wish(alternatives=20, own=1).part(data, data).shown == data
    kept = soft_labels.pack([msgspec.json.encode(strange)])
    assert (kept is None) == (not isinstance(strange, dict) or not isinstance(strange.get("content"), list))


def test_an_error_has_nothing_to_hide() -> None:
    for data in (b'{"error":{"message":"no"}}', b"no JSON", b"[]", b""):
        assert HIDDEN.part(data, data) == Parted(shown=data, told=None)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=1, max_size=3), st.integers(0, 3))
def test_what_is_shown_is_what_the_parsed_answer_becomes(choices: list[list[str]], own: int) -> None:
    answer = {"choices": [{"logprobs": {"content": [entry(t, "x", "y", "z") for t in told]}} for told in choices]}
    data = msgspec.json.encode(answer)
    for wish in (HIDDEN, Wish(alternatives=4, own=own)):
        parted, parsed = wish.part(data, data), msgspec.json.decode(data)
        wish.hide(parsed)
        assert parted.shown is not None
        assert parted.told is not None
        assert msgspec.json.decode(parted.shown) == parsed
        assert msgspec.json.decode(parted.told) == answer["choices"][0]["logprobs"]


@pytest.mark.parametrize(
    "told", [None, 7, "a", [], {}, {"content": None}, {"content": 5}, {"content": [1, {"token": "a"}], "refusal": None}]
)
def test_an_answer_read_token_by_token_is_the_answer(told: Any) -> None:
    for choices in (
        [{"logprobs": told}],
        [{"index": 1}, {"logprobs": told}],
        [{"logprobs": {"content": []}}, {"logprobs": told}],
    ):
        data = msgspec.json.encode({"choices": choices, "usage": {"total": 1}})
        assert msgspec.json.encode(parse(data)) == data
    assert msgspec.json.decode(msgspec.json.encode(parse(ODD))) == msgspec.json.decode(ODD)
    assert parse(b"[1]") == [1]


@pytest.mark.parametrize("broken", [b'"\\ud800"', b'"\xff"', b'"\\x"', b"01", b"{]"])
@pytest.mark.parametrize("shape", [b'{"content":[1,%s]}', b"[%s]", b'{"content":%s}'])
def test_logprobs_that_could_not_be_read_again_are_no_json_of_an_answer(shape: bytes, broken: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        parse(b'{"choices":[{"logprobs":%s}]}' % (shape % broken))


class Wordy:
    """An upstream whose answer has the logprobs of 1,500 tokens; `arrived` once it is there."""

    status = 200
    headers: Mapping[str, str] = {}
    arrived = False

    async def ask(self, body: bytes) -> Wordy:
        return self

    async def read(self) -> bytes:
        others = [{**entry(f"other {number}"), "logprob": -5.0} for number in range(20)]
        told = {"content": [{**entry("a"), "top_logprobs": others}] * 1500}
        message = {"role": "assistant", "content": "a" * 1500}
        choices = [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": told}]
        data = msgspec.json.encode({"id": "x", "object": "chat.completion", "model": "m", "choices": choices})
        self.arrived = True
        return data

    async def chunks(self) -> AsyncIterator[bytes]:
        yield await self.read()

    def close(self) -> None:
        return


@pytest.mark.parametrize("own", [3, 20])
def test_while_an_answers_logprobs_are_read_others_get_their_turns(
    own: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream, turns, pack = Wordy(), list[bool](), soft_labels.pack

    def packed(told: Sequence[bytes]) -> soft_labels.SoftLabels | None:
        upstream.arrived = False  # from here on it is not read any more
        return pack(told)

    monkeypatch.setattr(soft_labels, "pack", packed)

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append(upstream.arrived)

    async def answered() -> Completed:
        beside = asyncio.create_task(others())
        target = Target(upstream=upstream, upstream_model="m", price=Price(), model="m", top_logprobs=20)
        asked: Any = {
            "request": request(logprobs=True, top_logprobs=own),
            "name": "m",
            "project": 1,
            "key_id": "k",
            "request_id": "r",
        }
        try:
            return await platform.gateway.complete(Call(**asked, by_model_name=False, target=target))
        finally:
            beside.cancel()

    with closing(open_platform(Settings(data=str(tmp_path)))) as platform:
        shown = msgspec.json.decode(asyncio.run(answered()).body)["choices"][0]["logprobs"]["content"]
        with platform.database.read() as connection:
            assert connection.execute(sql("SELECT tokens, alternatives FROM soft_labels")).all() == [(1500, 20)]
    assert {len(each["top_logprobs"]) for each in shown} == {own}
    assert sum(turns) > 50


# --- what a training row gets ---------------------------------------------------------------------------


def response(content: str | None, **more: Any) -> dict[str, Any]:
    told = more.pop("logprobs", None)
    return {"choices": [{"message": {"role": "assistant", "content": content, **more}, "logprobs": told}]}


def test_a_row_has_soft_labels_only_when_they_are_asked_for() -> None:
    labels = packed("red", " sky")
    assert message_of(response("red sky"), Style(), labels) == {"role": "assistant", "content": "red sky"}
    message = message_of(response("red sky"), LABELLED, labels)
    assert told(message) == [(b"red", 2), (b" sky", 2)]
    assert message_of(response("red sky"), LABELLED) == {"role": "assistant", "content": "red sky"}


def test_a_row_may_get_what_its_caller_asked_for_himself() -> None:
    content = [entry("red", "blue")]
    asked = response("red", logprobs={"content": content})
    assert has_labels(asked)
    assert told(message_of(asked, LABELLED)) == [(b"red", 2)]
    bare = response("red", logprobs={"content": [{**content[0], "top_logprobs": []}]})
    assert not has_labels(bare)
    assert "logprobs" not in (message_of(bare, LABELLED) or {})


def test_labels_of_another_text_are_left_out() -> None:
    assert "logprobs" not in (message_of(response("blue"), LABELLED, packed("red")) or {})


THOUGHT = "<think>Sky? \nBlue.</think>\n\nblue"


def test_reasoning_is_left_out_unless_it_is_kept() -> None:
    kept = "<think>\nSky? \nBlue.\n</think>\n\nblue"
    for answer in (
        response(THOUGHT),
        response("blue", reasoning_content="Sky? \nBlue."),
        response("blue", reasoning="Sky? \nBlue.\n"),
    ):
        assert message_of(answer) == {"role": "assistant", "content": "blue"}
        assert message_of(answer, Style(reasoning=Reasoning.KEEP)) == {"role": "assistant", "content": kept}


def test_an_answer_without_reasoning_is_the_same_either_way() -> None:
    for text in ("blue", "Write <think>x</think> around it.", "", " \n "):
        assert message_of(response(text)) == message_of(response(text), BOTH)


def test_an_answer_that_broke_off_while_thinking_is_none() -> None:
    assert message_of(response("<think>Well, the sky")) is None
    assert message_of(response("<think>Well, the sky"), BOTH) is None


def test_calls_keep_their_reasoning() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    answer = response(None, tool_calls=calls, reasoning="Look first.")
    assert message_of(answer) == {"role": "assistant", "tool_calls": calls}
    assert message_of(answer, BOTH) == {
        "role": "assistant",
        "content": "<think>\nLook first.\n</think>\n\n",
        "tool_calls": calls,
    }


def test_soft_labels_follow_the_text_that_is_left() -> None:
    labels = packed("<think>", "Sky? \n", "Blue", ".</", "think>\n", "\nbl", "ue")
    stripped = message_of(response(THOUGHT), LABELLED, labels)
    # The token "\nbl" is only partly the answer's: its place is kept, and its alternatives are not.
    assert told(stripped) == [(b"bl", 0), (b"ue", 2)]
    kept = message_of(response(THOUGHT), BOTH, labels)
    assert kept is not None
    assert b"".join(token for token, _ in told(kept)).decode() == kept["content"]
    assert [(token, top) for token, top in told(kept) if top] == [(b"Sky? \n", 2), (b"Blue", 2), (b"ue", 2)]


def test_soft_labels_may_tell_of_reasoning_that_has_a_field_of_its_own() -> None:
    labels = packed("Blue", ".", "bl", b"\xe9", "<end>")
    assert told(message_of(response("bl", reasoning_content="Blue."), LABELLED, labels)) == [(b"bl", 2)]
    kept = message_of(response("bl", reasoning_content="Blue."), BOTH, labels)
    assert told(kept) == [(b"<think>\n", 0), (b"Blue", 2), (b".", 2), (b"\n</think>\n\n", 0), (b"bl", 2)]
