"""What a training file's check accepts, and how it says where a file is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillroom.datasets.check import check_file
from stillroom.errors import InvalidTrainingFile

GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


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
    said = [{"role": "assistant", "content": "b"}]
    for names in (("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion")):
        row = {"input": {"messages": GOOD["messages"][:1]}, names[0]: said, names[1]: said}
        assert check_file(written(tmp_path, lines(row))).preference_line == 1


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
