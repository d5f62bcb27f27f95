"""An eval and a run as they are asked for: every field of the requests, checked.

A run's data source says where its items come from (`source`) and, when a model is to answer them,
how they are put to it (`model`, `input_messages`, `sampling_params`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from stillroom import bodies, ids
from stillroom.chat import check_metadata
from stillroom.errors import InvalidRequest, TooLarge, shortened
from stillroom.evals.prompt import referred, templated
from stillroom.graders import order as graders
from stillroom.graders.order import Grader

NAME_LETTERS = 256
INLINE_BYTES = 8 * 1024 * 1024  # items in a request: they are kept with the run, and shown with it
SCHEMA_BYTES = 64 * 1024
MOST_CRITERIA = 100
# What a chat completion calls the sampling parameters of runs, in every spelling that is in use.
CHAT_NAMES = {
    "max_completion_tokens": "max_completion_tokens",
    "max_completions_tokens": "max_completion_tokens",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "reasoning_effort": "reasoning_effort",
    "response_format": "response_format",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "text": "text",
}

Seconds = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a data source."""


class Row(Part, frozen=True, kw_only=True):
    """One item, and the answer to grade when there is one already."""

    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class FileContent(Part, frozen=True, kw_only=True, tag="file_content", tag_field="type"):
    """Items given in the request."""

    content: list[Row]


class FileId(Part, frozen=True, kw_only=True, tag="file_id", tag_field="type"):
    """Items in an uploaded JSONL file, one {"item": ...} a line."""

    id: str


class StoredCompletions(Part, frozen=True, kw_only=True, tag="stored_completions", tag_field="type"):
    """Stored completions that match; of more than `limit`, the newest.

    `held_out_from`, `search` and `up_to` are ours. The first names fine-tuning jobs: what they were trained on is
    left out; the last a completion, itself included: none that began after it.
    """

    metadata: dict[str, str] | None = None
    model: str | None = None
    created_after: Seconds | None = None
    created_before: Seconds | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    held_out_from: str | list[str] | None = None
    search: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    up_to: str | None = None


Source = FileContent | FileId | StoredCompletions


class InputTemplate(Part, frozen=True, kw_only=True, tag="template", tag_field="type"):
    """Messages with variables."""

    template: list[dict[str, Any]]


class InputReference(Part, frozen=True, kw_only=True, tag="item_reference", tag_field="type"):
    """A list of messages in the item."""

    item_reference: str


class DataSource(Part, frozen=True, kw_only=True):
    """A run's `data_source`."""

    type: Literal["jsonl", "completions", "responses"]
    source: Source
    model: str | None = None
    input_messages: InputTemplate | InputReference | None = None
    sampling_params: dict[str, Any] | None = None


class CustomConfig(Part, frozen=True, kw_only=True, tag="custom", tag_field="type"):
    """Items of the caller's own shape."""

    item_schema: dict[str, Any]
    include_sample_schema: bool = False


class LogsConfig(Part, frozen=True, kw_only=True, tag="logs", tag_field="type"):
    """Items are stored completions."""

    metadata: dict[str, Any] | None = None


class StoredConfig(Part, frozen=True, kw_only=True, tag="stored_completions", tag_field="type"):
    """As `logs`, by its older name."""

    metadata: dict[str, Any] | None = None


class EvalRequest(Part, frozen=True, kw_only=True):
    """The body of `POST evals`."""

    data_source_config: CustomConfig | LogsConfig | StoredConfig
    testing_criteria: list[dict[str, Any]]
    name: str | None = None
    metadata: dict[str, Any] | None = None


class EvalChange(Part, frozen=True, kw_only=True):
    """The body of `POST evals/{id}`."""

    name: str | None = None
    metadata: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class RunRequest(Part, frozen=True, kw_only=True):
    """The body of `POST evals/{id}/runs`."""

    data_source: dict[str, Any]
    name: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class EvalOrder:
    """A checked eval: its parts as they are kept and shown."""

    name: str
    metadata: dict[str, str] | None
    data_source_config: dict[str, Any]
    testing_criteria: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunOrder:
    """A checked run. `asked` is the data source as it came; `sampling` are chat completion parameters."""

    name: str | None
    metadata: dict[str, str] | None
    asked: dict[str, Any]
    source: Source
    model: str | None
    messages: InputTemplate | InputReference | None
    sampling: dict[str, Any]


def held_out_jobs(source: StoredCompletions) -> tuple[str, ...]:
    """The jobs whose training prompts are left out."""
    asked = source.held_out_from
    return () if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)


def parse_eval(body: Mapping[str, Any]) -> EvalOrder:
    """Raises InvalidRequest for the first thing that is wrong."""
    asked = bodies.read(body, EvalRequest)
    check_metadata(asked.metadata)
    criteria = asked.testing_criteria
    if not 1 <= len(criteria) <= MOST_CRITERIA:
        raise InvalidRequest(
            f"Invalid 'testing_criteria': got {len(criteria)}; an eval has 1 to {MOST_CRITERIA}.",
            param="testing_criteria",
        )
    for position, criterion in enumerate(criteria):
        read_criterion(criterion, position)
    return EvalOrder(
        name=_name(asked.name) or "Unnamed eval",
        metadata=asked.metadata,
        data_source_config=_kept_config(asked.data_source_config),
        testing_criteria=criteria,
    )


def parse_change(body: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that change."""
    asked = bodies.read(body, EvalChange)
    changes: dict[str, Any] = {"name": _name(asked.name)} if asked.name is not None else {}
    if asked.metadata is not msgspec.UNSET:
        check_metadata(asked.metadata)
        changes["metadata"] = asked.metadata
    return changes


def parse_run(body: Mapping[str, Any], config: Mapping[str, Any]) -> RunOrder:
    """Raises InvalidRequest for the first thing that is wrong, also with the eval's own configuration."""
    asked = bodies.read(body, RunRequest)
    check_metadata(asked.metadata)
    return parse_data_source(asked.data_source, config, name=_name(asked.name), metadata=asked.metadata)


def parse_data_source(
    asked: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    name: str | None = None,
    metadata: dict[str, str] | None = None,
) -> RunOrder:
    """The run that a data source describes."""
    _refuse_responses(asked.get("source"))
    source = bodies.read(asked, DataSource, "data_source")
    _check_source(source, config)
    _check_sampling(source)
    return RunOrder(
        name=name,
        metadata=metadata,
        asked=dict(asked),
        source=source.source,
        model=source.model,
        messages=source.input_messages,
        sampling=_sampling(source.sampling_params or {}),
    )


def read_criterion(criterion: Mapping[str, Any], position: int) -> Grader:
    """The grader that a testing criterion describes."""
    return graders.read(criterion, param=f"testing_criteria[{position}]", in_eval=True)


def _kept_config(config: CustomConfig | LogsConfig | StoredConfig) -> dict[str, Any]:
    """The configuration as it is shown: with the schema of what graders see."""
    anything = {"type": "object"}
    if isinstance(config, CustomConfig):
        _check_item_schema(config.item_schema)
        properties = {"item": config.item_schema, **({"sample": anything} if config.include_sample_schema else {})}
        return {"type": "custom", "schema": _schema(properties)}
    check_metadata(config.metadata)
    kind = "logs" if isinstance(config, LogsConfig) else "stored_completions"
    return {"type": kind, "metadata": config.metadata or {}, "schema": _schema({"item": anything, "sample": anything})}


def _check_item_schema(schema: dict[str, Any]) -> None:
    param = "data_source_config.item_schema"
    if len(msgspec.json.encode(schema)) > SCHEMA_BYTES:
        raise InvalidRequest(f"Invalid '{param}': it is larger than the {SCHEMA_BYTES} bytes allowed.", param=param)
    rules = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        error = best_match(rules.iter_errors(schema))
    except RecursionError:
        raise InvalidRequest(f"Invalid '{param}': it is too deeply nested.", param=param) from None
    if error is not None:
        # Of several ways to be right, the first is what most people meant: for `type`, one of its words.
        most_exact = error.context[0] if error.context else error
        place = ".".join(map(str, error.absolute_path))
        raise InvalidRequest(
            f"Invalid '{param}': it must be a JSON schema (draft 2020-12), and its {place or 'whole'} is wrong: "
            f"{shortened(most_exact.message)}.",
            param=param,
        )
    kind = schema.get("type", "object")
    if "object" not in (kind if isinstance(kind, list) else [kind]):
        raise InvalidRequest(f"Invalid '{param}': its type is {kind!r}, but items are objects.", param=param)


def _schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _refuse_responses(source: Any) -> None:
    if isinstance(source, dict) and source.get("type") == "responses":
        raise InvalidRequest(
            "stillroom keeps no responses to draw items from. Use source type 'stored_completions', 'file_id' or "
            "'file_content'.",
            param="data_source.source.type",
        )


def _check_source(asked: DataSource, config: Mapping[str, Any]) -> None:
    source = asked.source
    if isinstance(source, StoredCompletions):
        check_metadata(source.metadata)
        if source.up_to is not None and ids.completion_number(source.up_to) is None:
            raise InvalidRequest(
                f"{shortened(source.up_to)!r} is not the id of a stored completion.", param="data_source.source.up_to"
            )
        if asked.type == "jsonl":
            raise InvalidRequest(
                "A data source of type 'jsonl' draws from 'file_content' or 'file_id'; use type 'completions' for "
                "stored completions.",
                param="data_source.source.type",
            )
    if isinstance(source, StoredCompletions) and config["type"] == "custom":
        raise InvalidRequest(
            "This eval has items of its own ('custom'); stored completions are drawn by an eval whose "
            "data_source_config is of type 'logs' or 'stored_completions'.",
            param="data_source.source.type",
        )
    if isinstance(source, FileContent) and len(msgspec.json.encode(source)) > INLINE_BYTES:
        raise TooLarge(
            f"'content' is larger than the {INLINE_BYTES} bytes allowed in a request; upload it as a file with purpose "
            "'evals' and name it by a source of type 'file_id'.",
            param="data_source.source.content",
        )
    if isinstance(source, FileContent) and not source.content:
        raise InvalidRequest("'content' has no items.", param="data_source.source.content")


def _check_sampling(asked: DataSource) -> None:
    samples = asked.model is not None or asked.input_messages is not None or asked.sampling_params is not None
    if asked.type == "jsonl" and samples:
        raise InvalidRequest(
            "A data source of type 'jsonl' grades what its items hold. To let a model answer them, use type "
            "'completions'.",
            param="data_source.type",
        )
    if asked.model is None and (asked.input_messages is not None or asked.sampling_params is not None):
        raise InvalidRequest("'input_messages' and 'sampling_params' need a 'model'.", param="data_source.model")
    if asked.model is not None and asked.input_messages is None:
        raise InvalidRequest(
            "'model' needs 'input_messages': a template, or an item_reference such as 'item.input'.",
            param="data_source.input_messages",
        )
    if isinstance(asked.input_messages, InputTemplate):
        templated(asked.input_messages.template, param="data_source.input_messages.template")
    elif asked.input_messages is not None:
        referred(asked.input_messages.item_reference, param="data_source.input_messages.item_reference")


def _sampling(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters as a chat completion has them."""
    found: dict[str, Any] = {}
    for name, value in asked.items():
        if name not in CHAT_NAMES:
            raise InvalidRequest(
                f"Unknown sampling parameter '{name}'. Known are: {', '.join(CHAT_NAMES)}.",
                param=f"data_source.sampling_params.{name}",
            )
        if value is not None:
            found[CHAT_NAMES[name]] = value
    text = found.pop("text", None)
    if text is not None:
        found.update(_response_format(text))
    if "tools" in found:
        found["tools"] = _chat_tools(found["tools"])
    return found


def _response_format(text: Any) -> dict[str, Any]:
    """The Responses API's `text.format` in the words of chat completions."""
    form = text.get("format") if isinstance(text, dict) else None
    if form is None:
        return {}
    if isinstance(form, dict) and form.get("type") in ("text", "json_object"):
        return {"response_format": {"type": form["type"]}}
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise InvalidRequest(
        "'text.format' must be of type 'text', 'json_object' or 'json_schema'.",
        param="data_source.sampling_params.text.format",
    )


def _chat_tools(tools: Any) -> list[Any]:
    if not isinstance(tools, list):
        raise InvalidRequest("'tools' must be a list.", param="data_source.sampling_params.tools")
    return [_chat_tool(tool) for tool in tools]


def _chat_tool(tool: Any) -> Any:
    """A tool of the Responses API, whose function lies flat, as chat completions have it."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise InvalidRequest(
            f"The tool {kind!r} cannot be called here; only tools of type 'function' can.",
            param="data_source.sampling_params.tools",
        )
    if "function" in tool:
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _name(name: str | None) -> str | None:
    if name is not None and (not name or len(name) > NAME_LETTERS or "\0" in name):
        raise InvalidRequest(f"'name' has 1 to {NAME_LETTERS} characters; got {len(name)}.", param="name")
    return name
