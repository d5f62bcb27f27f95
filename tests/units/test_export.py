"""An export's pieces: whole lines, about a megabyte of them, however large a line is."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from stillroom import ids, logprobs
from stillroom.assembly import Platform
from stillroom.completions import soft_labels, table
from stillroom.completions.table import Filter, NewCompletion, Status
from stillroom.datasets import export
from stillroom.datasets.answers import PLAIN, Style
from stillroom.datasets.export import PIECE_BYTES, Form

PROJECT = 1
numbers = ids.OrderedNumbers()


def store(platform: Platform, text: str) -> int:
    new = NewCompletion(
        number=numbers.mint(),
        project=PROJECT,
        created_at=1,
        model="gpt-4o",
        status=Status.COMPLETED,
        request={"messages": [{"role": "user", "content": text}]},
        response={"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]},
        metadata={},
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=1,
        latency_ms=1,
    )
    platform.writer.write(lambda connection: table.add(connection, new, table.pack(new.request, new.response)))
    return new.number


def test_pieces_are_of_about_a_megabyte_and_hold_every_line_once(platform: Platform) -> None:
    sizes = [10, 300_000, 10, 2_000_000, 400_000, 400_000, 400_000, 400_000, *[10] * 250]
    made = [store(platform, "x" * size) for size in sizes]
    pieces = [*export.lines(platform.database, PROJECT, Filter(), Form.FULL)]
    assert all(piece.endswith(b"\n") for piece in pieces)
    lines = b"".join(pieces).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [ids.completion_id(number) for number in made]
    for piece in pieces:
        *others, _ = piece.splitlines(keepends=True)
        assert len(b"".join(others)) < PIECE_BYTES
    some = Filter(numbers=tuple(made[1::3]))
    named = b"".join(export.lines(platform.database, PROJECT, some, Form.FULL)).splitlines()
    assert [json.loads(line)["id"] for line in named] == [ids.completion_id(number) for number in made[1::3]]


def test_large_completions_are_in_memory_one_at_a_time(platform: Platform) -> None:
    for _ in range(40):
        store(platform, "x" * 1_000_000)
    tracemalloc.start()
    try:
        for _ in export.lines(platform.database, PROJECT, Filter(), Form.FULL):
            pass
        with platform.database.read() as connection:
            found = table.numbers(connection, PROJECT, Filter(), limit=40)
            assert sum(1 for _ in table.without_beginnings(connection, found)) == 40
            assert sum(1 for _ in table.walk(connection, PROJECT, Filter())) == 40
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 12_000_000


def test_soft_labels_are_exported_when_they_are_asked_for(platform: Platform) -> None:
    labelled, _ = store(platform, "one"), store(platform, "two")
    content = [{"token": "yes", "logprob": -0.5, "top_logprobs": [{"token": "no", "logprob": -1.5}]}]
    packed = soft_labels.pack([json.dumps({"content": content}).encode()])
    assert packed is not None
    platform.writer.write(lambda c: soft_labels.add(c, labelled, packed))

    def exported(form: Form, style: Style) -> list[dict[str, Any]]:
        pieces = export.lines(platform.database, PROJECT, Filter(), form, style)
        return [json.loads(line) for line in b"".join(pieces).splitlines()]

    assert "soft_labels" not in exported(Form.FULL, PLAIN)[0]
    assert exported(Form.TRAINING, PLAIN)[0]["messages"][-1] == {"role": "assistant", "content": "yes"}
    first, second = exported(Form.FULL, Style(soft_labels=True))
    assert [position.token for position in logprobs.of_message(first["soft_labels"])] == [b"yes"]
    assert "soft_labels" not in second
    first, second = exported(Form.TRAINING, Style(soft_labels=True))
    assert len(logprobs.of_message(first["messages"][-1]["logprobs"])) == 1
    assert second["messages"][-1] == {"role": "assistant", "content": "yes"}
