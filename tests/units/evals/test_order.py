"""Evals and runs asked for wrongly: the first thing that is wrong is named, whatever it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from stillroom.errors import InvalidRequest, TooLarge
from stillroom.evals import order

LOGS: dict[str, Any] = {"type": "logs", "schema": {}}
CUSTOM: dict[str, Any] = {"type": "custom", "schema": {}}
CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.a }}",
    "operation": "eq",
}
EVAL: dict[str, Any] = {
    "name": "n",
    "metadata": {"a": "b"},
    "data_source_config": {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True},
    "testing_criteria": [CHECK],
}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RUN: dict[str, Any] = {
    "name": "n",
    "metadata": {"a": "b"},
    "data_source": {
        "type": "completions",
        "model": "m",
        "source": {"type": "file_content", "content": [{"item": {"a": "b"}, "sample": {"output_text": "c"}}]},
        "input_messages": {
            "type": "template",
            "template": [{"role": "user", "content": [{"type": "input_text", "text": "{{ item.a }}"}]}],
        },
        "sampling_params": {"seed": 1, "tools": [TOOL], "text": {"format": {"type": "text"}}},
    },
}
STORED: dict[str, Any] = {
    "data_source": {
        "type": "completions",
        "model": "m",
        "source": {
            "type": "stored_completions",
            "metadata": {"a": "b"},
            "model": "m",
            "created_after": 1,
            "created_before": 2,
            "up_to": "chatcmpl-00000000001",
            "limit": 3,
            "held_out_from": "ftjob-x",
        },
        "input_messages": {"type": "item_reference", "item_reference": "item.input"},
    }
}
NASTY: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "\0",
    "{{",
    "{{ a }}",
    "{{ item }}",
    "x" * 10_000,
    [],
    [None],
    [[]],
    ["a"],
    {},
    {"": None},
    {"type": "x"},
    {"type": ["a"]},
    {"type": "object", "properties": 5},
    {"$ref": "http://127.0.0.1:9/none"},
]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in nested objects and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield (*path, name)
        yield from places(inner, (*path, name))


def replaced(body: Any, path: tuple[str | int, ...], value: Any) -> Any:
    changed = copy.deepcopy(body)
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return changed


@pytest.mark.parametrize("body", [EVAL, RUN, STORED], ids=["eval", "run", "run over stored completions"])
def test_whatever_stands_in_a_fields_place_is_taken_or_refused_by_name(body: dict[str, Any]) -> None:
    refused = 0
    for path in places(body):
        for value in NASTY:
            wrong = replaced(body, path, value)
            try:
                order.parse_eval(wrong) if body is EVAL else order.parse_run(wrong, LOGS)
            except InvalidRequest as error:
                refused += 1
                assert error.message
                assert error.param, (path, value, error.message)
    assert refused > 100


def test_the_same_bodies_are_taken_as_they_are() -> None:
    """The control."""
    assert order.parse_eval(EVAL).testing_criteria == [CHECK]
    assert order.parse_run(RUN, CUSTOM).sampling == {"seed": 1, "tools": [TOOL], "response_format": {"type": "text"}}
    assert order.parse_run(STORED, LOGS).model == "m"


@pytest.mark.parametrize(
    ("path", "value", "param"),
    [
        (("name",), 5, "name"),
        (("name",), "", "name"),
        (("metadata",), {"a": 1}, "metadata.a"),
        (("testing_criteria",), [], "testing_criteria"),
        (("testing_criteria",), [CHECK] * 101, "testing_criteria"),
        (("testing_criteria", 0, "operation"), "almost", "testing_criteria[0].operation"),
        (("testing_criteria", 0, "type"), "multi", "testing_criteria[0].type"),
        (("testing_criteria", 0, "name"), None, "testing_criteria[0].name"),
        (("data_source_config", "type"), "files", "data_source_config.type"),
        (("data_source_config", "item_schema"), {"type": "thing"}, "data_source_config.item_schema"),
        (("data_source_config", "item_schema"), {"pattern": "("}, "data_source_config.item_schema"),
        (("data_source_config", "item_schema"), {"type": "string"}, "data_source_config.item_schema"),
        (("data_source_config", "extra"), 1, "data_source_config.extra"),
    ],
)
def test_an_evals_mistake_is_named(path: tuple[str | int, ...], value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        order.parse_eval(replaced(EVAL, path, value))
    assert refused.value.param == param
    assert param.split(".")[0].split("[")[0] in refused.value.message


@pytest.mark.parametrize("missing", ["data_source_config", "testing_criteria"])
def test_what_is_missing_is_named_in_openais_words(missing: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        order.parse_eval({name: value for name, value in EVAL.items() if name != missing})
    assert (refused.value.param, refused.value.code) == (missing, "missing_required_parameter")
    assert refused.value.message == f"Missing required parameter: '{missing}'."


@pytest.mark.parametrize(
    ("path", "value", "param"),
    [
        (("source", "limit"), 0, "data_source.source.limit"),
        (("source", "created_after"), -1, "data_source.source.created_after"),
        (("source", "metadata"), {"a": 1}, "data_source.source.metadata[...]"),
        (("source", "since"), 1, "data_source.source.since"),
        (("model",), None, "data_source.model"),
        (("input_messages",), None, "data_source.input_messages"),
        (("input_messages", "item_reference"), "input", "data_source.input_messages.item_reference"),
        (("type",), "jsonl", "data_source.source.type"),
    ],
)
def test_a_runs_mistake_is_named(path: tuple[str | int, ...], value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        order.parse_run(replaced(STORED, ("data_source", *path), value), LOGS)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("data_source_config", "type"), "customs", "'customs' is none of custom, logs, stored_completions."),
        (("data_source_config", "item_schema"), [], "expected an object, got a list."),
        (
            ("data_source_config", "item_schema"),
            {"properties": {"a": {"type": "strin"}}},
            "it must be a JSON schema (draft 2020-12), and its properties.a.type is wrong: 'strin' is not one of "
            "['array', 'boolean', 'integer', 'null', 'number', 'object', 'string'].",
        ),
        (
            ("data_source_config", "item_schema"),
            {"required": "a"},
            "its required is wrong: 'a' is not of type 'array'.",
        ),
        (("data_source_config", "item_schema"), {"type": "string"}, "its type is 'string', but items are objects."),
        (("name",), 5, "Invalid 'name': expected a string or null, got a whole number."),
    ],
)
def test_an_evals_mistake_is_told_in_plain_words_with_what_is_allowed(
    path: tuple[str | int, ...], value: Any, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        order.parse_eval(replaced(EVAL, path, value))
    assert refused.value.message.endswith(said)
    assert "`" not in refused.value.message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("type",), "'odd' is none of completions, jsonl, responses."),
        (("source", "type"), "'odd' is none of file_content, file_id, stored_completions."),
        (("input_messages", "type"), "'odd' is none of template, item_reference."),
    ],
)
def test_a_run_of_an_odd_type_is_told_the_types_there_are(path: tuple[str | int, ...], said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        order.parse_run(replaced(STORED, ("data_source", *path), "odd"), LOGS)
    assert refused.value.message == f"Invalid 'data_source.{'.'.join(map(str, path))}': {said}"


def test_stored_responses_are_known_and_refused() -> None:
    with pytest.raises(InvalidRequest, match="keeps no responses to draw items from") as refused:
        order.parse_run(replaced(STORED, ("data_source", "source"), {"type": "responses", "since": 1}), LOGS)
    assert refused.value.param == "data_source.source.type"


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": ["object", "null"]}, {"properties": {}}])
def test_a_schema_of_objects_is_taken(schema: dict[str, Any]) -> None:
    taken = order.parse_eval(replaced(EVAL, ("data_source_config", "item_schema"), schema))
    assert taken.data_source_config["schema"]["properties"]["item"] == schema


@pytest.mark.parametrize(
    ("template", "param"),
    [
        ([], ""),
        (["text"], "[0]"),
        ([{"role": "tool", "content": "a"}], "[0].role"),
        ([{"role": "user"}], "[0].content"),
        ([{"role": "user", "content": []}], "[0].content"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "{{ a"}], "[1].content"),
        ([{"role": "user", "content": {"type": "input_audio"}}], "[0].content"),
    ],
)
def test_a_templates_mistake_is_named_by_its_message(template: Any, param: str) -> None:
    path = ("data_source", "input_messages", "template")
    with pytest.raises(InvalidRequest) as refused:
        order.parse_run(replaced(RUN, path, template), CUSTOM)
    assert refused.value.param == f"data_source.input_messages.template{param}"


def test_stored_completions_are_no_items_of_an_eval_with_items_of_its_own() -> None:
    with pytest.raises(InvalidRequest, match="'logs' or 'stored_completions'"):
        order.parse_run(STORED, CUSTOM)


def test_an_unknown_sampling_parameter_is_told_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="max_completion_tokens") as refused:
        order.parse_run(replaced(RUN, ("data_source", "sampling_params"), {"heat": 1}), CUSTOM)
    assert refused.value.param == "data_source.sampling_params.heat"


@pytest.mark.parametrize(
    ("form", "asked"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "s", "schema": {}, "strict": True},
            {"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": True}},
        ),
    ],
)
def test_the_responses_apis_form_becomes_a_chat_completions(form: dict[str, Any], asked: dict[str, Any]) -> None:
    sampling = {"text": {"format": form}, "max_completions_tokens": 5, "top_p": None}
    parsed = order.parse_run(replaced(RUN, ("data_source", "sampling_params"), sampling), CUSTOM)
    assert parsed.sampling == {"max_completion_tokens": 5, "response_format": asked}


def test_metadata_can_be_taken_away_and_left_alone() -> None:
    assert order.parse_change({"name": "b"}) == {"name": "b"}
    assert order.parse_change({"metadata": None}) == {"metadata": None}
    assert order.parse_change({}) == {}


def test_a_schema_that_is_too_deep_or_too_large_is_refused() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
    large = {"type": "object", "properties": {f"property {n}": {"type": "string"} for n in range(5000)}}
    criterion = {"type": "string_check", "name": "s", "operation": "eq", "input": "a", "reference": "a"}
    for schema, why in ((deep, "too deeply nested"), (large, "larger than")):
        config = {"type": "custom", "item_schema": schema}
        with pytest.raises(InvalidRequest, match=why):
            order.parse_eval({"data_source_config": config, "testing_criteria": [criterion]})


def test_many_items_belong_in_a_file_and_not_in_the_request() -> None:
    rows = [{"item": {"text": "x" * 1000}}] * 9000
    source = {"type": "jsonl", "source": {"type": "file_content", "content": rows}}
    with pytest.raises(TooLarge, match="file_id"):
        order.parse_run({"data_source": source}, {"type": "custom"})
