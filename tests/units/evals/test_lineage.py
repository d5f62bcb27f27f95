"""Prompts are known again, however they are spelled, by what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillroom.assembly import Platform
from stillroom.datasets.lineage import Lineage, digest
from stillroom.store.blobs import Blobs

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (USER, {"content": "Hello", "role": "user"}),
        (USER, {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}),
        (USER, {**USER, "name": None}),
        (USER, {**USER, "weight": 1}),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "assistant", "tool_calls": [CALL]}),
        ({"role": "assistant", "content": "a", "tool_calls": []}, {"role": "assistant", "content": "a"}),
        ({"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "assistant", "tool_calls": [CALL]}),
        ({"role": "user", "content": []}, {"role": "user", "content": ""}),
    ],
)
def test_the_same_prompt_has_the_same_digest(one: Any, other: Any) -> None:
    assert digest([SYSTEM, one]) == digest([SYSTEM, other])


@pytest.mark.parametrize(
    "other",
    [
        {"role": "user", "content": "hello"},
        {"role": "user", "content": "Hello "},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Hello", "name": "Ada"},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": "x"}]},
        {"role": "user", "content": "Hello", "tool_calls": [CALL]},
    ],
)
def test_another_prompt_has_another_digest(other: Any) -> None:
    assert digest([SYSTEM, USER]) != digest([SYSTEM, other])


def test_more_and_fewer_messages_are_other_prompts() -> None:
    digests = {digest(messages) for messages in ([], [SYSTEM], [USER], [SYSTEM, USER], [USER, SYSTEM])}
    assert len(digests) == 5


@pytest.fixture
def lineage(platform: Platform, tmp_path: Path) -> Lineage:
    (tmp_path / "blobs").mkdir()
    return Lineage(platform.database, Blobs(tmp_path / "blobs"))


def trained_on(lineage: Lineage, folder: Path, content: bytes) -> frozenset[bytes]:
    file = folder / "training.jsonl"
    file.write_bytes(content)
    lineage.record(1, "ftjob-1", "scratch-small", file)
    found = lineage.of_job("ftjob-1")
    assert found is not None
    return found


def test_every_turn_of_the_assistant_that_is_trained_has_its_prompt(lineage: Lineage, tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "Hi"}
    unweighted = {**said, "weight": 0}
    rows = [
        {"messages": [SYSTEM, USER, said, USER, said]},
        {"messages": [USER, unweighted, SYSTEM, said]},
    ]
    content = "\r\n\n".join(json.dumps(row) for row in rows).encode()
    found = trained_on(lineage, tmp_path, b"\xef\xbb\xbf" + content)
    assert found == {
        digest([SYSTEM, USER]),
        digest([SYSTEM, USER, said, USER]),
        digest([USER, said, SYSTEM]),
    }


def test_what_is_kept_once_is_not_changed_and_outlives_the_file(lineage: Lineage, tmp_path: Path) -> None:
    row = {"messages": [USER, {"role": "assistant", "content": "Hi"}]}
    first = trained_on(lineage, tmp_path, json.dumps(row).encode())
    (tmp_path / "training.jsonl").write_bytes(b"")
    lineage.record(1, "ftjob-1", "scratch-small", tmp_path / "training.jsonl")
    assert lineage.of_job("ftjob-1") == first == {digest([USER])}


def test_of_a_job_that_nobody_recorded_nothing_is_known(lineage: Lineage) -> None:
    assert lineage.of_job("ftjob-none") is None
    assert lineage.trained_on(1, "gpt-4o") == frozenset()
