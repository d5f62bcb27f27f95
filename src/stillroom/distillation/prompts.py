"""How a row becomes questions to the teacher, and its replies the student's answers.

Chain of thought and chain of density change what the *teacher* is told: a system prompt of ours takes the place of
the row's, and asks for JSON in which the reasoning stands apart from the answer. The student's row keeps the row's
own prompt, and gets the answer alone: it is to give at once what the teacher had to work out.

Chain of density is the way of summarising of Adams et al. 2023, arXiv 2309.04269.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from stillroom import chat, logprobs
from stillroom.distillation.rows import SYSTEM, Row
from stillroom.distillation.said import Said
from stillroom.distillation.spec import Prompting, Reasoning, Task, Thinking

STEPS = 4  # summaries of a chain of density, each denser than the one before
FENCE = "```"
FOR_TRAINING = ("weight", "logprobs")  # what a message in a training file may say that no teacher is told
SHOWN = 80  # letters of a reply in the reason why it was not understood


def _reason_first(key: str, what: str) -> str:
    form = f'{{"reason": "the steps that lead to your answer", "{key}": "{what}"}}'
    return f"Work it out step by step before you decide. Reply with one JSON object and nothing else: {form}."


CHAIN_OF_THOUGHT: Mapping[Task | None, str] = {
    Task.NLI: "The user gives two pieces of text and asks how they relate: whether the first makes the second true "
    "(entailment), makes it false (contradiction), or leaves it open (neutral). Judge by what the first text says and "
    "by common sense, not by what you happen to know. "
    + _reason_first("answer_choice", "the label alone")
    + " Spell the label exactly as the user's message or choices spell it; where they name none, take one of "
    "entailment, contradiction, neutral.",
    Task.NLU_QA: "The user asks a question and offers choices, of which exactly one is right. Weigh each of them. "
    + _reason_first("answer_choice", "the right choice alone")
    + " Give the choice as the user's message refers to it: its letter or number where it has one, otherwise its text, "
    "letter for letter.",
    Task.MATH: "The user poses a mathematical problem. Find what is given and what is asked, calculate one step at a time, and "
    "check the result. "
    + _reason_first("answer", "the result alone")
    + " The result is a number, without unit, words, or thousands separators, unless the problem asks for something else.",
    None: "{system}\n\nBefore you answer as told above, think. "
    + _reason_first("answer", "your answer, exactly as it would be without the reasoning"),
}

CHAIN_OF_DENSITY = """The user gives a text. Summarise it {steps} times, each summary as long as the one before, but richer.

First write a summary of about {words} words that is general and mentions few particulars. Then, {more} times: find one to three entities of the text (names, numbers, places, dates, causes) that matter to what it says and are missing from your last summary, and write the summary again with these in it. Make room by tightening what is there, never by dropping an entity; stay at about {words} words, and let each summary be understood without the text.

Reply with a JSON array of exactly {steps} objects and nothing else, one for each summary in order: [{{"Missing_Entities": "entities added by this summary, separated by semicolons", "Denser_Summary": "the summary"}}, ...]."""

SUMMARISE_REASONING = (
    "The user gives a question, the reasoning that somebody went through, and the answer it led to. Write the reasoning again "
    "in three sentences at most: only the steps that the answer rests on, in the voice of the one who reasons. Reply with "
    "these sentences and nothing else."
)


class NotUnderstood(Exception):
    """A reply is not in the form that was asked for; the text says how it is not."""


def questions(row: Row, prompting: Prompting) -> list[list[Mapping[str, Any]]]:
    """The messages of each question that the row is; a conversation has one for every turn of the user.

    As at Azure, a later one has what the user said before, without the answers; where the teacher sees its own
    answers, `following` puts them in.
    """
    messages = _prompted(row.messages, prompting)
    if prompting.task is not Task.CONVERSATION:
        return [messages]
    heard = [message for message in messages if message["role"] != "assistant"]
    return [heard[: place + 1] for place, message in enumerate(heard) if message["role"] not in SYSTEM]


def as_asked(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages as a model is sent them."""
    return [{name: value for name, value in message.items() if name not in FOR_TRAINING} for message in messages]


def following(question: Sequence[Mapping[str, Any]], said: Sequence[Said]) -> list[Mapping[str, Any]]:
    """The question with the teacher's answers behind the turns that they answered."""
    answers = iter(said)
    found: list[Mapping[str, Any]] = []
    for message in question:
        found.append(message)
        if message["role"] not in SYSTEM and (answer := next(answers, None)) is not None:
            found.append(answer.message)
    return found


def answered(row: Row, said: Sequence[Said], reasoning: Reasoning) -> dict[str, Any]:
    """The student's row: the row's own messages, and the answers as its assistant's."""
    messages: list[Mapping[str, Any]] = []
    shown = [_shown(each, reasoning) for each in said]
    if len(shown) == 1 and row.messages[-1]["role"] != "assistant":
        messages = [*row.messages, shown[0]]
    else:
        for message in row.messages:
            if message["role"] == "assistant":
                continue
            messages.append(message)
            if message["role"] not in SYSTEM:
                messages.append(shown.pop(0))
    return {"messages": messages, **row.more}


def understood(message: Mapping[str, Any], prompting: Prompting) -> Said:
    """What the teacher's message says. Raises NotUnderstood."""
    said = without_thoughts(message)
    if prompting.thinking is Thinking.CHAIN_OF_THOUGHT:
        reason, answer = _reasoned(said.text, prompting.task)
        return Said(message={"role": "assistant", "content": answer}, reasoning=reason)
    if prompting.thinking is Thinking.CHAIN_OF_DENSITY:
        return replace(said, message={"role": "assistant", "content": _densest(said.text)})
    if not said.text.strip() and not said.message.get("tool_calls") and not said.message.get("function_call"):
        refusal = message.get("refusal")
        raise NotUnderstood(f"the teacher refused: {str(refusal)[:SHOWN]!r}" if refusal else "the reply is empty")
    return said


def summarising(question: Sequence[Mapping[str, Any]], said: Said) -> list[Mapping[str, Any]]:
    """The question for a summary of the reasoning."""
    asked = next((m.get("content") for m in reversed(question) if m["role"] == "user"), "")
    text = f"Question:\n{asked}\n\nReasoning:\n{said.reasoning}\n\nAnswer:\n{said.text}"
    return [{"role": "system", "content": SUMMARISE_REASONING}, {"role": "user", "content": text}]


# --- questions --------------------------------------------------------------------------------------------


def _prompted(messages: Sequence[Mapping[str, Any]], prompting: Prompting) -> list[Mapping[str, Any]]:
    """The row's messages behind the system prompt that the teacher gets."""
    messages = as_asked(messages)
    own = "\n".join(str(message.get("content") or "") for message in messages if message["role"] in SYSTEM)
    prompt = _system_prompt(prompting, own)
    if prompt is None:
        return messages
    return [{"role": "system", "content": prompt}, *(m for m in messages if m["role"] not in SYSTEM)]


def _system_prompt(prompting: Prompting, own: str) -> str | None:
    if prompting.thinking is Thinking.CHAIN_OF_DENSITY:
        return CHAIN_OF_DENSITY.format(steps=STEPS, more=STEPS - 1, words=prompting.summary_words)
    if prompting.thinking is Thinking.CHAIN_OF_THOUGHT and prompting.system_prompt is None:
        template = CHAIN_OF_THOUGHT.get(prompting.task, CHAIN_OF_THOUGHT[None])
        return template.replace("{system}", own).strip()
    if prompting.system_prompt is not None:
        return prompting.system_prompt.replace("{system}", own)
    return None


# --- replies ------------------------------------------------------------------------------------------------


def without_thoughts(message: Mapping[str, Any]) -> Said:
    """The message and the reasoning apart. Reasoning models tell their thoughts in a field of their own, or before the answer between tags."""
    names = ("content", "tool_calls", "function_call")
    kept = {name: message[name] for name in names if message.get(name) is not None}
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    content = kept.get("content")
    if isinstance(content, str):
        told, kept["content"] = chat.parted(content)
        thoughts = thoughts or told
    reasoning = thoughts.strip() if isinstance(thoughts, str) else None
    return Said(message={"role": "assistant", **kept}, reasoning=reasoning or None)


def _reasoned(text: str, task: Task | None) -> tuple[str | None, str]:
    """The reasoning and the answer of a chain of thought. Numbers stay as they are spelled."""
    try:
        found = msgspec.json.decode(bytes(_bare(text), "utf-8"), type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise NotUnderstood(f"the reply is no JSON object; it starts with {text.strip()[:SHOWN]!r}") from None
    keys = ("answer", "answer_choice") if task in (Task.MATH, None) else ("answer_choice", "answer")
    answer = next((_spelled(found[key]) for key in keys if key in found), "")
    if not answer:
        raise NotUnderstood(f"the reply's JSON has no `{keys[0]}`; it has {', '.join(found) or 'nothing'}")
    reason = _spelled(found["reason"]) if "reason" in found else None
    return reason or None, answer


def _spelled(value: msgspec.Raw) -> str:
    raw = bytes(value)
    if raw.startswith(b'"'):
        return str(msgspec.json.decode(raw)).strip()
    return "" if raw in (b"null", b"{}", b"[]") else raw.decode()


def _densest(text: str) -> str:
    try:
        found = msgspec.json.decode(_bare(text))
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise NotUnderstood(f"the reply is no JSON; it starts with {text.strip()[:SHOWN]!r}") from None
    if not isinstance(found, list) or len(found) != STEPS:
        has = f"{len(found)} elements" if isinstance(found, list) else "another form"
        raise NotUnderstood(f"the reply is no JSON array of {STEPS} summaries: it has {has}")
    last = found[-1].get("Denser_Summary") if isinstance(found[-1], dict) else None
    if not isinstance(last, str) or not last.strip():
        raise NotUnderstood("the reply's last element has no `Denser_Summary`")
    return last.strip()


def _bare(text: str) -> str:
    """Without the fence that some teachers put around JSON."""
    bare = text.strip()
    first, _, rest = bare.partition("\n")
    return rest.removesuffix(FENCE).strip() if first.startswith(FENCE) and rest.endswith(FENCE) else bare


def _shown(said: Said, reasoning: Reasoning) -> Mapping[str, Any]:
    """The student's message."""
    weighed = {"logprobs": said.logprobs} if said.logprobs else {}
    if reasoning is Reasoning.STRIP or not said.reasoning:
        return {**said.message, **weighed}
    before = f"<think>\n{said.reasoning}\n</think>\n\n"
    if said.logprobs:  # which tell nothing of the reasoning
        places = [logprobs.Position(before.encode(), logprobs.IMPOSSIBLE, ()), *logprobs.of_message(said.logprobs)]
        weighed = {"logprobs": logprobs.as_text(logprobs.packed(places))}
    return {**said.message, "content": before + said.text, **weighed}
