"""An OpenAI chat completion body -> what the engine is asked.

Owns which parameters a student honours, ignores or refuses, and the words of each refusal. Knows no HTTP
and no model.

    honoured  messages tools tool_choice(auto, none) n max_tokens max_completion_tokens temperature top_p stop
              seed frequency_penalty presence_penalty logit_bias logprobs top_logprobs stream stream_options
              response_format(text)
    ignored   what changes nothing for a student: user, metadata, store, service_tier, ...
    refused   everything else
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stillroom.errors import InvalidRequest
from stillroom.student.serving.sampling import Sampling

DEFAULT_MAX_TOKENS = 1024
"""When the request names none; less when the context has less room."""
MOST_CHOICES = 8
MOST_STOPS = 4

_HONOURED = {
    "model",
    "messages",
    "tools",
    "tool_choice",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "response_format",
}
_IGNORED = {
    "metadata",
    "moderation",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
}
_BEYOND_STUDENTS = {
    "audio": "Students write text only.",
    "functions": "Use 'tools'.",
    "function_call": "Use 'tool_choice'.",
    "web_search_options": "Students cannot search the web.",
}


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A body whose values were all checked."""

    model: str
    messages: list[Mapping[str, Any]]
    tools: list[Any]
    num_choices: int
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def read_chat_request(body: Any) -> ChatRequest:
    """The request, or InvalidRequest in OpenAI's words."""
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    _check_names(body)
    body = {name: value for name, value in body.items() if value is not None}
    _check_response_format(body.get("response_format"))
    return ChatRequest(
        model=_model(body),
        messages=_messages(body),
        tools=_tools(body),
        num_choices=_whole(body, "n", 1, at_least=1, at_most=MOST_CHOICES),
        max_tokens=_max_tokens(body),
        sampling=_sampling(body),
        stop=_stop(body.get("stop")),
        stream=_flag(body, "stream"),
        include_usage=_include_usage(body),
    )


def _check_names(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if name in _BEYOND_STUDENTS and value is not None:
            raise InvalidRequest(f"'{name}' is not supported by students. {_BEYOND_STUDENTS[name]}", param=name)
        if name == "modalities" and value not in (None, ["text"]):
            raise InvalidRequest("'modalities' must be [\"text\"]: students write text only.", param=name)
        if name not in _HONOURED | _IGNORED | set(_BEYOND_STUDENTS) | {"modalities"}:
            unknown = InvalidRequest(f"Unrecognized request argument supplied: {name}")
            unknown.code = ""
            raise unknown


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str):
        raise InvalidRequest("you must provide a model parameter", param="model")
    return model


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    if not (isinstance(messages, list) and messages and all(isinstance(message, dict) for message in messages)):
        raise InvalidRequest("'messages' must be a list of at least one message.", param="messages")
    return messages


def _tools(body: Mapping[str, Any]) -> list[Any]:
    tools, choice = body.get("tools", []), body.get("tool_choice", "auto")
    if not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise InvalidRequest("'tools' must be a list of tools.", param="tools")
    if choice not in ("auto", "none"):
        raise InvalidRequest(
            "'tool_choice' must be 'auto' or 'none': students cannot be forced to call.", param="tool_choice"
        )
    return tools if choice == "auto" else []


def _check_response_format(wanted: Any) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else "text" if wanted is None else wanted
    if kind != "text":
        raise InvalidRequest(
            f"'response_format' is {kind!r}: students cannot enforce JSON or a schema yet. Leave it out; a student "
            "trained on JSON answers writes JSON.",
            param="response_format",
        )


def _max_tokens(body: Mapping[str, Any]) -> int:
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return _whole(body, name, DEFAULT_MAX_TOKENS, at_least=1)


def _sampling(body: Mapping[str, Any]) -> Sampling:
    wants_logprobs = _flag(body, "logprobs")
    if "top_logprobs" in body and not wants_logprobs:
        raise InvalidRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    return Sampling(
        temperature=_number(body, "temperature", 1.0, 0, 2),
        top_p=_number(body, "top_p", 1.0, 0, 1),
        seed=_whole(body, "seed", 0) if "seed" in body else None,
        frequency_penalty=_number(body, "frequency_penalty", 0.0, -2, 2),
        presence_penalty=_number(body, "presence_penalty", 0.0, -2, 2),
        logit_bias=_logit_bias(body.get("logit_bias", {})),
        top_logprobs=_whole(body, "top_logprobs", 0, at_least=0, at_most=20) if wants_logprobs else None,
    )


def _logit_bias(value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise InvalidRequest("'logit_bias' must map token ids to numbers.", param="logit_bias")
    if not all(key.isascii() and key.isdigit() for key in value):
        raise InvalidRequest("'logit_bias' must have token ids as keys.", param="logit_bias")
    return {int(key): _number(value, key, 0.0, -100, 100, param="logit_bias") for key in value}


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not (
        isinstance(stops, list) and len(stops) <= MOST_STOPS and all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise InvalidRequest(f"'stop' must be a string or a list of at most {MOST_STOPS} strings.", param="stop")
    return tuple(stops)


def _include_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not _flag(body, "stream"):
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    return _flag({name: value for name, value in options.items() if value is not None}, "include_usage")


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{name}' is {value!r}; it must be true or false.", param=name)
    return value


def _whole(
    body: Mapping[str, Any],
    name: str,
    default: int,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
) -> int:
    value = body.get(name, default)
    # bool is an int to Python; JSON true is no number.
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"'{name}' is {value!r}; it must be a whole number.", param=name)
    _check_range(value, name, at_least, at_most, name)
    return value


def _number(
    body: Mapping[str, Any],
    name: str,
    default: float,
    at_least: float,
    at_most: float,
    *,
    param: str | None = None,
) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"'{name}' is {value!r}; it must be a number.", param=param or name)
    _check_range(value, name, at_least, at_most, param or name)
    return float(value)


def _check_range(value: float, name: str, at_least: float | None, at_most: float | None, param: str) -> None:
    if at_least is not None and not value >= at_least:
        raise InvalidRequest(f"'{name}' is {value}; it must be at least {at_least}.", param=param)
    if at_most is not None and not value <= at_most:
        raise InvalidRequest(f"'{name}' is {value}; it must be at most {at_most}.", param=param)
