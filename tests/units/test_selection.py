"""Stored completions become training files."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillroom import ids
from stillroom.assembly import Platform
from stillroom.completions import table
from stillroom.datasets import check, selection
from stillroom.errors import InvalidRequest

PROJECT = 1
numbers = ids.OrderedNumbers()


def store(platform: Platform, question: str, **more: Any) -> int:
    """One completion that answers with the question in capitals."""
    message = more.pop("message", {"role": "assistant", "content": question.upper()})
    response = {"choices": [{"index": 0, "message": message, "finish_reason": more.pop("finish_reason", "stop")}]}
    new = table.NewCompletion(
        number=numbers.mint(),
        project=more.pop("project", PROJECT),
        created_at=int(time.time()),
        model=more.pop("model", "gpt-4o"),
        status=more.pop("status", table.Status.COMPLETED),
        metadata=more.pop("metadata", {}),
        request={"messages": [{"role": "system", "content": "shout"}, {"role": "user", "content": question}], **more},
        response=response,
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=0,
        latency_ms=0,
    )
    packed = table.pack(new.request, new.response)
    platform.writer.write(lambda connection: table.add(connection, new, packed))
    return new.number


def rows_of(platform: Platform, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in platform.files.path(PROJECT, file_id).read_bytes().splitlines()]


def select(platform: Platform, chosen: table.Filter | None = None, **options: Any) -> selection.Selection:
    return selection.select(platform.database, platform.files, PROJECT, chosen or table.Filter(), **options)


def test_the_rows_are_the_conversations_oldest_first_and_pass_the_check(platform: Platform) -> None:
    for i in range(12):
        store(platform, f"q{i}")
    made = select(platform)
    rows = rows_of(platform, made.training_file.id)
    assert [row["messages"][1]["content"] for row in rows] == [f"q{i}" for i in range(12)]
    assert [row["messages"][2] for row in rows] == [{"role": "assistant", "content": f"Q{i}"} for i in range(12)]
    report = check.check_file(platform.files.path(PROJECT, made.training_file.id))
    assert report.examples == made.training_examples == 12


def test_nine_are_refused_with_the_number_and_ten_are_enough(platform: Platform) -> None:
    for i in range(9):
        store(platform, f"q{i}")
    with pytest.raises(InvalidRequest, match=r"matches 9 completions.*at least 10"):
        select(platform)
    store(platform, "q9")
    assert select(platform).training_examples == 10


def test_few_examples_are_warned_about(platform: Platform) -> None:
    for i in range(10):
        store(platform, f"q{i}")
    assert "10 examples are few" in select(platform).warnings[0]


def test_incomplete_and_empty_answers_are_left_out_and_counted(platform: Platform) -> None:
    for i in range(10):
        store(platform, f"q{i}")
    store(platform, "cut", status=table.Status.INCOMPLETE)
    store(platform, "empty", message={"role": "assistant", "content": None, "refusal": "no"})
    made = select(platform)
    assert made.training_examples == 10
    assert made.skipped == {"incomplete": 1, "empty": 1}


def test_answers_that_were_cut_short_are_warned_about(platform: Platform) -> None:
    for i in range(10):
        store(platform, f"q{i}", finish_reason="length" if i < 3 else "stop")
    assert any(warning.startswith("3 answers were cut short") for warning in select(platform).warnings)


def test_tools_and_tool_calls_are_kept(platform: Platform) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"q":"x"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    for i in range(10):
        store(platform, f"q{i}", tools=tools, parallel_tool_calls=False, message=message)
    row = rows_of(platform, select(platform).training_file.id)[0]
    assert row["tools"] == tools
    assert row["parallel_tool_calls"] is False
    assert row["messages"][-1] == {"role": "assistant", "tool_calls": [call]}


def test_the_split_is_exact_disjoint_and_the_same_for_the_same_seed(platform: Platform) -> None:
    for i in range(40):
        store(platform, f"q{i}")
    made, again, other = (select(platform, validation_fraction=0.25, seed=seed) for seed in (1, 1, 2))
    assert (made.training_examples, made.validation_examples) == (30, 10)

    def validation(chosen: selection.Selection) -> list[str]:
        assert chosen.validation_file is not None
        return [row["messages"][1]["content"] for row in rows_of(platform, chosen.validation_file.id)]

    training = {row["messages"][1]["content"] for row in rows_of(platform, made.training_file.id)}
    assert not training & set(validation(made))
    assert len(training | set(validation(made))) == 40
    assert validation(made) == validation(again) != validation(other)


def test_a_split_that_leaves_fewer_than_ten_to_train_on_is_refused(platform: Platform) -> None:
    for i in range(11):
        store(platform, f"q{i}")
    with pytest.raises(InvalidRequest, match="split leaves 8"):
        select(platform, validation_fraction=0.25)


def test_the_split_keeps_the_answers_to_one_prompt_together_and_draws_the_others_as_ever(platform: Platform) -> None:
    for i in range(20):
        store(platform, f"q{i}", metadata={"kind": "other"})
    alone = select(platform, validation_fraction=0.4, seed=7)
    expected = sorted(random.Random(7).sample(range(20), 8))
    assert alone.validation_file is not None
    held_out = [row["messages"][1]["content"] for row in rows_of(platform, alone.validation_file.id)]
    assert held_out == [f"q{number}" for number in expected]
    for _ in range(6):
        store(platform, "again", message={"role": "assistant", "content": "AGAIN"})
    for seed in range(5):
        made = select(platform, validation_fraction=0.4, seed=seed)
        assert made.validation_file is not None
        again = [row for row in rows_of(platform, made.validation_file.id) if row["messages"][1]["content"] == "again"]
        assert (len(again), made.validation_examples) in ((0, 10), (6, 10))


def test_another_projects_completions_are_never_selected(platform: Platform) -> None:
    from sqlalchemy import insert

    from stillroom import auth

    platform.writer.write(lambda c: c.execute(insert(auth.projects).values(id=2, name="other", created_at=0)))
    for i in range(10):
        store(platform, f"theirs{i}", project=2)
    with pytest.raises(InvalidRequest, match="matches 0"):
        select(platform)


KEYS, VALUES = st.sampled_from(["a", "b", "猫"]), st.sampled_from(["1", "2", ""])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=12), st.dictionaries(KEYS, VALUES, max_size=2))
def test_filters_find_what_a_plain_comparison_finds(
    platform: Platform, stored: list[dict[str, str]], wanted: dict[str, str]
) -> None:
    with platform.database.read() as connection:
        old = {s.number for s in table.walk(connection, PROJECT, table.Filter())}
    added = {store(platform, "q", metadata=pairs): pairs for pairs in stored}
    with platform.database.read() as connection:
        found = [s.number for s in table.walk(connection, PROJECT, table.Filter(metadata=wanted))]
    expected = [number for number, pairs in added.items() if wanted.items() <= pairs.items()]
    assert [number for number in found if number not in old] == expected
