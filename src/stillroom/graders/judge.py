"""Model graders: what a judge is asked, and how its answer is read.

A judge is asked for JSON by a strict schema, with room to reason before its result, as OpenAI's
graders do. Models that know no schemas are told the same in words (`without_format`), and an answer
in a code fence, or a bare label or number, is read too. Who asks, and how often, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from stillroom.graders.fields import is_number
from stillroom.graders.order import LabelModel, ScoreModel
from stillroom.graders.problem import Problem, ProblemKind
from stillroom.graders.subject import Subject, text_of

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
ECHOED = ("temperature", "max_completion_tokens", "top_p", "seed")
FENCE = re.compile(r"```[\w-]*[^\S\n]*\n")
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
END_OF_THOUGHT = "</think>"
SHOWN_LETTERS = 200
STEPS = {
    "type": "array",
    "description": "The reasoning behind the result, step by step.",
    "items": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    },
}


def request(grader: LabelModel | ScoreModel, subject: Subject) -> dict[str, Any]:
    """The chat completions request to the judge. Raises VariableMissing."""
    return {
        "model": grader.model,
        "messages": [message.render(subject) for message in grader.messages],
        **grader.sampling,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "grade", "strict": True, "schema": _schema(grader)},
        },
    }


def without_format(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for a model that refuses `response_format`: the form asked for in words.

    The words are added to the last message when that is the user's, else as a message of the user's:
    many chat templates allow neither a second system message nor two user messages in a row.
    """
    plain = {name: value for name, value in body.items() if name != "response_format"}
    schema = msgspec.json.encode(body["response_format"]["json_schema"]["schema"]).decode()
    words = f"Answer with one JSON object and nothing else. It must follow this JSON schema:\n{schema}"
    *before, last = body["messages"]
    if last["role"] != "user":
        return {**plain, "messages": [*before, last, {"role": "user", "content": words}]}
    asked = last["content"]
    longer = f"{asked}\n\n{words}" if isinstance(asked, str) else [*asked, {"type": "text", "text": words}]
    return {**plain, "messages": [*before, {**last, "content": longer}]}


def verdict(grader: LabelModel | ScoreModel, completion: Mapping[str, Any]) -> float | str | Problem:
    """The score or the label that the judge gives, or why there is none."""
    choice = (completion.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Problem(
            kind=ProblemKind.MODEL_REFUSAL, details=f"The judge refused: {_short(message.get('refusal') or 'filtered')}"
        )
    # What a reasoning model thinks aloud is not its answer.
    text = text_of(message).rpartition(END_OF_THOUGHT)[2].strip()
    result = _label(grader, text) if isinstance(grader, LabelModel) else _score(grader, text)
    if isinstance(result, Problem) and choice.get("finish_reason") == "length":
        return Problem(
            kind=ProblemKind.TRUNCATED_OBSERVATION,
            details="The judge's answer was cut off before its result; raise max_completion_tokens.",
        )
    return result


def sample_of(body: Mapping[str, Any], completion: Mapping[str, Any]) -> dict[str, Any]:
    """The exchange with the judge, as an eval's output item shows it."""
    choice = (completion.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return {
        "input": body["messages"],
        "output": [{"role": "assistant", "content": text_of(message) or message.get("refusal") or ""}],
        "finish_reason": choice.get("finish_reason"),
        "model": completion.get("model") or body["model"],
        "usage": _usage(completion.get("usage")),
        "error": None,
        **{name: body.get(name) for name in ECHOED},
    }


def _schema(grader: LabelModel | ScoreModel) -> dict[str, Any]:
    result: dict[str, Any]
    if isinstance(grader, LabelModel):
        result = {"type": "string", "enum": list(grader.labels)}
    else:
        result = {"type": "number", "description": f"The score: from {grader.low:g} to {grader.high:g}."}
    return {
        "type": "object",
        # The steps first: a model that has reasoned judges better than one that justifies.
        "properties": {"steps": STEPS, "result": result},
        "required": ["steps", "result"],
        "additionalProperties": False,
    }


def _label(grader: LabelModel, text: str) -> str | Problem:
    result = _result(text)
    if isinstance(result, str):
        if result in grader.labels:
            return result
        bare = result.strip("\"'`*. \n").casefold()
        alike = [label for label in grader.labels if label.casefold() == bare]
        if len(alike) == 1:
            return alike[0]
    return _unread(text, f"none of the labels {', '.join(grader.labels)}")


def _score(grader: ScoreModel, text: str) -> float | Problem:
    result = _result(text)
    if isinstance(result, str) and NUMBER.fullmatch(result.strip()):
        result = float(result)
    if not is_number(result):
        return _unread(text, "no score")
    # As OpenAI documents: what lies beyond the range counts as its edge.
    return float(min(grader.high, max(grader.low, result)))


def _result(text: str) -> Any:
    """The `result` of the JSON object in the text; a value that stands alone; else the text."""
    fenced = _fenced(text)
    for candidate in (text, fenced, text[text.find("{") : text.rfind("}") + 1]):
        try:
            value = msgspec.json.decode(candidate.strip())
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            continue
        return value.get("result") if isinstance(value, dict) else value
    return fenced.strip() or text


def _fenced(text: str) -> str:
    """What stands in the first code fence; empty when there is none that is closed."""
    opening = FENCE.search(text)
    end = text.find("```", opening.end()) if opening else -1
    return text[opening.end() : end] if opening and end >= 0 else ""


def _unread(text: str, what: str) -> Problem:
    if not text:
        return Problem(kind=ProblemKind.UNRESPONSIVE_REWARD, details="The judge answered nothing.")
    return Problem(kind=ProblemKind.MODEL_PARSE, details=f"The judge's answer holds {what}: {_short(text)}")


def _usage(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    counted = {**usage, "cached_tokens": (details or {}).get("cached_tokens")}
    return {name: counted[name] if isinstance(counted.get(name), int) else 0 for name in COUNTS}


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + "…"
