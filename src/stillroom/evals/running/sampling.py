"""Lets the run's model answer an item, and says whether it answered as the teacher had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stillroom.errors import InvalidRequest, StillroomError, VariableMissing
from stillroom.evals.prompt import REPEATED, Prompt, referred, templated
from stillroom.evals.running.caller import Answered, Caller, CallFailed, refuses_format
from stillroom.evals.usage import tokens
from stillroom.graders.subject import Subject, sample_of, sample_of_completion, text_of

SEED = 42  # so that a run repeated with the same model can be compared
ENDS_THE_RUN = (401, 403, 404)  # no other item would fare better


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """An answer: `shown` as output items have it, `sample` as graders read it; or an error."""

    shown: dict[str, Any]
    sample: dict[str, Any] | None = None
    agrees: bool | None = None
    latency_ms: int | None = None
    error: dict[str, str] | None = None
    usage: dict[str, dict[str, int]] = field(default_factory=dict)


class Sampling:
    """The model under test, and how items are put to it."""

    def __init__(self, spec: Mapping[str, Any], caller: Caller) -> None:
        self._model: str = spec["model"]
        self._asked: dict[str, Any] = spec["sampling"]
        self._prompt = _prompt(spec["messages"])
        self._caller = caller
        self._refuses_format = False

    async def answer(self, row: Mapping[str, Any], name: str) -> ModelAnswer:
        """Asks for the item. Raises CallFailed only when no item of the run could be answered."""
        try:
            messages = self._prompt(Subject(item=row["item"]))
        except (VariableMissing, InvalidRequest) as error:
            return self._failed(error, [])
        body = {"model": self._model, "messages": messages, **self._parameters(row)}
        try:
            answered = await self._ask(body, f"{name}/sample")
        except CallFailed as failure:
            if failure.details["status"] in ENDS_THE_RUN:
                raise
            return self._failed(failure, messages)
        sample = sample_of_completion(answered.completion)
        message = answered.completion["choices"][0]["message"]
        usage = tokens(answered.completion)
        return ModelAnswer(
            shown=self._shown(messages, message, sample, usage),
            sample=sample,
            agrees=agree(row["reference"]["message"], message) if row.get("reference") else None,
            latency_ms=answered.latency_ms,
            usage={self._model: {"invocation_count": 1, **usage}},
        )

    async def _ask(self, body: dict[str, Any], name: str) -> Answered:
        """Asks; a model that refuses the form that only the stored request asked for is asked without it."""
        if self._refuses_format and body.pop("response_format", None) is not None:
            # Another request, so another name: a run that goes on may have this one's answer kept.
            name = f"{name}/plain"
        try:
            return await self._caller.ask(body, name)
        except CallFailed as failure:
            if "response_format" not in body or "response_format" in self._asked or not refuses_format(failure):
                raise
            self._refuses_format = True
            return await self._ask(body, name)

    def _parameters(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked of the run; for the rest, what the stored request had asked for."""
        stored = row["item"] if row.get("reference") else {}
        return {"seed": SEED, **{name: stored[name] for name in REPEATED if name in stored}, **self._asked}

    def _failed(self, error: StillroomError, messages: list[dict[str, Any]]) -> ModelAnswer:
        problem = {"code": error.code or "call_failed", "message": error.message}
        nothing = {"output_text": "", "finish_reason": ""}
        shown = self._shown(messages, None, nothing, tokens({}))
        return ModelAnswer(shown={**shown, "error": problem}, error=problem)

    def _shown(
        self,
        messages: list[dict[str, Any]],
        message: Mapping[str, Any] | None,
        sample: Mapping[str, Any],
        usage: dict[str, int],
    ) -> dict[str, Any]:
        return {
            "input": [{"role": one.get("role"), "content": text_of(one)} for one in messages],
            "output": [] if message is None else [said(message)],
            "finish_reason": sample["finish_reason"] or "",
            "model": sample.get("model") or self._model,
            "usage": usage,
            "error": None,
            "temperature": self._asked.get("temperature", 1.0),
            "max_completion_tokens": self._asked.get("max_completion_tokens", self._asked.get("max_tokens")),
            "top_p": self._asked.get("top_p", 1.0),
            "seed": self._asked.get("seed", SEED),
        }


def given(row: Mapping[str, Any], problem: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The answer that an item brought along, in the form of one that was asked for; without one, the form alone."""
    sample = row.get("sample") or {}
    reason, model = sample.get("finish_reason"), sample.get("model")
    asked = row["item"].get("input") if row.get("reference") else None
    return {
        "input": [{"role": one.get("role"), "content": text_of(one)} for one in asked or []],
        "output": [said(_message_of(sample))] if sample else [],
        "finish_reason": reason if isinstance(reason, str) and reason else "stop" if sample else "",
        "model": model if isinstance(model, str) else "",
        "usage": tokens(sample),
        "error": problem,
        "temperature": 1.0,
        "max_completion_tokens": None,
        "top_p": 1.0,
        "seed": SEED,
    }


def brought(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer that an item brought along as graders read it: what follows from its text is there too."""
    sample = row.get("sample")
    if sample is None or not isinstance(sample.get("output_text"), str):
        return sample
    return {**sample_of(sample["output_text"]), **sample}


def _message_of(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message in a sample that somebody wrote, who may have written anything."""
    choices = sample.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else {"role": "assistant", "content": sample.get("output_text")}


def said(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as output items show it."""
    more = {name: message[name] for name in ("tool_calls", "refusal") if message.get(name)}
    return {"role": message.get("role") or "assistant", "content": text_of(message), **more}


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two messages say the same: the same text but for space around it, and the same calls with
    the same arguments, however their JSON is spelled."""
    return text_of(one).strip() == text_of(other).strip() and _calls(one) == _calls(other)


def _calls(message: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    told = message.get("tool_calls")
    calls = [call.get("function") for call in told if isinstance(call, dict)] if isinstance(told, list) else []
    calls.append(message.get("function_call"))
    return [(call.get("name"), _arguments(call.get("arguments"))) for call in calls if isinstance(call, dict)]


def _arguments(text: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError):
        return text


def _prompt(messages: Mapping[str, Any]) -> Prompt:
    if messages["type"] == "item_reference":
        return referred(messages["item_reference"], param="input_messages.item_reference")
    return templated(messages["template"], param="input_messages.template")
