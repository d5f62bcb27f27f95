"""What a training file's check accepts, and how it says where a file is wrong."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from stillroom import logprobs
from stillroom.datasets.check import check_file
from stillroom.errors import InvalidTrainingFile

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
BETTER: list[Any] = [{"role": "assistant", "content": "b"}]
WORSE: list[Any] = [{"role": "assistant", "content": "c"}]
PAIR = {"input": {"messages": GOOD["messages"][:1]}, "preferred_output": BETTER, "non_preferred_output": WORSE}
WEIGHED = {"content": [{"token": "b", "bytes": [98], "logprob": -0.1, "top_logprobs": []}]}


def written(path: Path, data: bytes) -> Path:
    file = path / "file.jsonl"
    file.write_bytes(data)
    return file


def lines(*rows: Any) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def test_a_byte_order_mark_crlf_blank_lines_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode()
    assert check_file(written(tmp_path, data)).examples == 2


def test_weights_tools_and_several_turns_are_fine(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "t"}]},
            {"role": "assistant", "content": "first", "weight": 0},
            {"role": "user", "content": "again"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
            {"role": "assistant", "content": "last", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "parallel_tool_calls": False,
    }
    assert check_file(written(tmp_path, lines(row))).examples == 1


def test_the_first_line_with_an_image_is_found(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    row = {"messages": [{"role": "user", "content": [image]}, {"role": "assistant", "content": "a cat"}]}
    assert check_file(written(tmp_path, lines(GOOD, row, row))).image_line == 2


def test_preference_pairs_are_told_from_chats(tmp_path: Path) -> None:
    other = {"input": PAIR["input"], "preferred_completion": BETTER, "non_preferred_completion": WORSE}
    report = check_file(written(tmp_path, lines(PAIR, other)))
    assert (report.examples, report.preference_line) == (2, 1)
    assert check_file(written(tmp_path, lines(GOOD))).preference_line is None


def test_a_pair_with_an_image_is_found_too(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    row = {**PAIR, "input": {"messages": [{"role": "user", "content": [image]}], "tools": []}}
    assert check_file(written(tmp_path, lines(PAIR, row))).image_line == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**PAIR, "preferred_completion": BETTER}, "either preferred_output and non_preferred_output or preferred"),
        ({"input": PAIR["input"], "preferred_output": BETTER}, "`non_preferred_output` is missing"),
        ({"input": PAIR["input"]}, "`preferred_output` is missing"),
        ({**PAIR, "preferred_output": BETTER * 2}, "`preferred_output` must be an array with exactly one message"),
        ({**PAIR, "preferred_output": "b"}, "`preferred_output` must be an array with exactly one message"),
        ({**PAIR, "preferred_output": PAIR["input"]["messages"]}, "`preferred_output[0]` is a user message"),
        ({**PAIR, "non_preferred_output": [{"role": "assistant"}]}, "`non_preferred_output[0].content`"),
        ({**PAIR, "preferred_output": WORSE}, "`non_preferred_output` says the same as `preferred_output`"),
        (
            {**PAIR, "non_preferred_output": [{"role": "assistant", "content": [{"type": "text", "text": "b"}]}]},
            "says the same",
        ),
        ({**PAIR, "input": "a"}, "`input` must be an object with `messages`"),
        ({**PAIR, "input": {"messages": []}}, "`input.messages` must be an array with at least one message"),
        ({**PAIR, "input": {**PAIR["input"], "model": "m"}}, "`input.model` is not a field of a pair's input"),
        ({**PAIR, "input": GOOD}, "`input.messages[1]` is from the assistant"),
        ({**PAIR, "weight": 1}, "`weight` is not a field of a preference pair"),
        (GOOD, "is a conversation, while the lines before are preference pairs"),
    ],
)
def test_a_wrong_pair_is_named_by_line_and_field(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(InvalidTrainingFile) as caught:
        check_file(written(tmp_path, lines(PAIR, row)))
    assert caught.value.message.startswith("Line 2")
    assert words in caught.value.message


def test_a_pair_among_conversations_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingFile, match="Line 3 is a preference pair, while the lines before are conv"):
        check_file(written(tmp_path, lines(GOOD, GOOD, PAIR)))


def test_an_answers_logprobs_may_be_openais_object_or_packed_text(tmp_path: Path) -> None:
    packed = logprobs.as_text(logprobs.pack(WEIGHED["content"]))
    rows = [
        {"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "logprobs": told}]}
        for told in (WEIGHED, packed, None)
    ]
    assert check_file(written(tmp_path, lines(*rows))).examples == 3


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("not base64!", "no base64"),
        ("AAAA", "no packed logprobs"),
        (logprobs.as_text(logprobs.pack(WEIGHED["content"])[:-6]), "cut off"),
        (logprobs.as_text(logprobs.VERSION + zlib.compress(b"\x80\x80\x08" + bytes(600_000))), "at most 100000"),
        ({"content": "b"}, "list `content`"),
        ({"content": [{"token": "b"}]}, "`logprobs.content[0]`"),
        (0.5, "`logprobs` must be an object"),
    ],
)
def test_broken_logprobs_are_named_by_line_and_reason(tmp_path: Path, told: Any, reason: str) -> None:
    row = {"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "logprobs": told}]}
    with pytest.raises(InvalidTrainingFile) as caught:
        check_file(written(tmp_path, lines(GOOD, row)))
    assert caught.value.message.startswith("Line 2: `messages[1].logprobs` cannot be read")
    assert reason in caught.value.message
    asked = {"messages": [{**GOOD["messages"][0], "logprobs": WEIGHED}, GOOD["messages"][1]]}
    with pytest.raises(InvalidTrainingFile, match="stands on a user message; only answers have them"):
        check_file(written(tmp_path, lines(asked)))


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"messages": []}, "`messages`"),
        ({"messages": "text"}, "`messages`"),
        ({"prompt": "a", "completion": "b"}, "`completion`"),
        ({"messages": [{"role": "assistent", "content": "b"}]}, "`messages[0].role` is 'assistent'"),
        ({"messages": [{"role": "user", "content": "a"}]}, "last message and must be from the assistant"),
        ({"messages": [{"role": "user", "content": 7}, GOOD["messages"][1]]}, "`messages[0].content`"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}, "`messages[1].content`"),
        ({"messages": [{"role": "user", "content": "a", "weight": 1}, GOOD["messages"][1]]}, "`messages[0].weight`"),
        ({"messages": [GOOD["messages"][0], {"role": "assistant", "content": "b", "weight": 2}]}, "expected 0 or 1"),
        ({"messages": [GOOD["messages"][0], {"role": "assistant", "content": "b", "weight": 0}]}, "nothing to learn"),
        ({**GOOD, "tools": {}} | {"tools": "x"}, "`tools`"),
        ([1, 2], "is not a JSON object"),
    ],
)
def test_a_wrong_row_is_named_by_line_and_field(tmp_path: Path, row: Any, field: str) -> None:
    with pytest.raises(InvalidTrainingFile) as caught:
        check_file(written(tmp_path, lines(GOOD, GOOD, row, GOOD)))
    assert caught.value.message.startswith("Line 3")
    assert field in caught.value.message
    assert caught.value.param == "training_file"


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b'{"messages": NaN}', b"not json", b"[" * 5000])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(InvalidTrainingFile, match="Line 2"):
        check_file(written(tmp_path, lines(GOOD) + b"\n" + text))
