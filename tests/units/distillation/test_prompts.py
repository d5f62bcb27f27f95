"""From a row to the teacher's questions, and from its replies to the student's row."""

from __future__ import annotations

import json
import time

import pytest

from stillroom.distillation.prompts import NotUnderstood, answered, following, questions, summarising, understood
from stillroom.distillation.rows import Row
from stillroom.distillation.said import Said
from stillroom.distillation.spec import Prompting, Reasoning, Task, Thinking

ROW = Row(
    name="training-1",
    messages=[{"role": "system", "content": "Own prompt."}, {"role": "user", "content": "2 + 2?"}],
)
CHAT = Row(
    name="training-2",
    messages=[
        {"role": "system", "content": "Chat."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "old 1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "old 2"},
    ],
)


def prompting(
    task: Task | None, thinking: Thinking = Thinking.CHAIN_OF_THOUGHT, prompt: str | None = None
) -> Prompting:
    return Prompting(task=task, thinking=thinking, summary_words=55, system_prompt=prompt, sees_own_answers=False)


@pytest.mark.parametrize("task", [Task.NLI, Task.NLU_QA, Task.MATH])
def test_a_chain_of_thought_takes_the_place_of_the_rows_prompt_for_the_teacher_alone(task: Task) -> None:
    ((system, user),) = questions(ROW, prompting(task))
    assert "Own prompt." not in system["content"]
    assert '"reason"' in system["content"]
    assert user == ROW.messages[1]
    said = understood({"content": json.dumps({"reason": "r", "answer_choice": "yes"})}, prompting(task))
    row = answered(ROW, [said], Reasoning.STRIP)
    assert row == {"messages": [*ROW.messages, {"role": "assistant", "content": "yes"}]}


def test_without_a_task_the_rows_own_prompt_stays_in_what_the_teacher_is_told() -> None:
    ((system, _),) = questions(ROW, prompting(None))
    assert system["content"].startswith("Own prompt.")
    ((system, _),) = questions(ROW, prompting(None, Thinking.NONE, "Mine, then: {system}"))
    assert system["content"] == "Mine, then: Own prompt."


def test_numbers_stay_as_the_teacher_spelled_them() -> None:
    said = understood({"content": '```json\n{"reason": "r", "answer": 1.50}\n```'}, prompting(Task.MATH))
    assert said.text == "1.50"


def test_a_reply_that_only_begins_with_a_fence_is_soon_read() -> None:
    before = time.process_time()
    with pytest.raises(NotUnderstood):
        understood({"content": "```a\n" + "\n" * 20_000 + "x"}, prompting(Task.MATH))
    assert time.process_time() - before < 1


def test_a_chain_of_density_gives_its_last_summary() -> None:
    density = prompting(Task.SUMMARIZATION, Thinking.CHAIN_OF_DENSITY)
    ((system, _),) = questions(ROW, density)
    assert "about 55 words" in system["content"]
    steps = [{"Missing_Entities": "", "Denser_Summary": f"summary {n}"} for n in range(1, 5)]
    assert understood({"content": json.dumps(steps)}, density).text == "summary 4"
    with pytest.raises(NotUnderstood, match="3 elements"):
        understood({"content": json.dumps(steps[:3])}, density)


@pytest.mark.parametrize(
    "reply", ["yes", '["yes"]', '{"reason": "r"}', '{"reason": "r", "answer_choice": null}', "", "{"]
)
def test_a_reply_in_another_form_is_not_understood(reply: str) -> None:
    with pytest.raises(NotUnderstood):
        understood({"content": reply}, prompting(Task.NLI))


def test_a_later_turn_hears_what_the_user_said_and_no_answers() -> None:
    first, second = questions(CHAT, prompting(Task.CONVERSATION, Thinking.NONE))
    assert [message["content"] for message in first] == ["Chat.", "one"]
    assert [message["content"] for message in second] == ["Chat.", "one", "two"]
    said = [Said(message={"role": "assistant", "content": f"new {n}"}) for n in (1, 2)]
    assert [message["content"] for message in following(second, said[:1])] == ["Chat.", "one", "new 1", "two"]
    row = answered(CHAT, said, Reasoning.STRIP)
    assert [message["content"] for message in row["messages"]] == ["Chat.", "one", "new 1", "two", "new 2"]


def test_reasoning_is_stripped_or_kept() -> None:
    plain = prompting(None, Thinking.NONE)
    for message in (
        {"content": "<think>because</think>\n\n4"},
        {"content": "4", "reasoning_content": "because"},
        {"content": "4", "reasoning": "because"},
    ):
        said = understood(message, plain)
        assert answered(ROW, [said], Reasoning.STRIP)["messages"][-1] == {"role": "assistant", "content": "4"}
        kept = answered(ROW, [said], Reasoning.KEEP)["messages"][-1]["content"]
        assert kept == "<think>\nbecause\n</think>\n\n4"
    asked = summarising(ROW.messages, said)[-1]["content"]
    assert all(part in asked for part in ("2 + 2?", "because", "4"))
