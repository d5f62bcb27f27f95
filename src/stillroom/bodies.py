"""A request's JSON as the struct that describes it, or what is wrong with it in plain words.

The struct says which fields there are, of which kind and within which bounds; msgspec compares. Here is only how its
findings are told: where, what was expected instead, and which values are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from stillroom.errors import InvalidRequest, did_you_mean, shortened

T = TypeVar("T")

WORDS = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
EXPECTED = re.compile(r"Expected `(?P<kinds>[^`]+)`(?P<bound>[^,]*)(?:, got `(?P<got>[^`]+)`)?")
BOUND = re.compile(r" (?P<sign>>=|<=|>|<) (?P<value>\S+)")
BOUNDS = {">=": "from {} up", "<=": "up to {}", ">": "above {}", "<": "below {}"}
STEP = re.compile(r"\[[^]]*\]|[^.[]+")


def read(value: Any, kind: type[T], place: str = "") -> T:
    """The value as the struct; `place` is where it stands in the request. Raises InvalidRequest naming the field."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _told(str(error), kind, place) from error


def _told(message: str, kind: type[Any], place: str) -> InvalidRequest:
    """msgspec's "REASON - at `$.PATH`" as an error of ours."""
    reason, _, where = (
        message.rpartition(" - at `") if message.endswith("`") and " - at `" in message else (message, "", "")
    )
    path = where.rpartition("$")[2].rstrip("`")  # before the $ stands "key` in `" for an object's key
    field = f"{place}{path}".lstrip(".")
    allowed = _at(inspect.type_info(kind), STEP.findall(path))
    if reason.startswith("Object missing required field `"):
        name = _within(field, reason)
        return InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if reason.startswith("Object contains unknown field `"):
        name = _within(field, reason)
        told = _fields(name.rpartition(".")[2], allowed)
        return InvalidRequest(f"Unknown parameter: '{name}'.{told}", param=name, code="unknown_parameter")
    return InvalidRequest(f"Invalid '{field or 'body'}': {_why(reason, allowed)}.", param=field or None)


def _within(field: str, reason: str) -> str:
    return f"{field}.{shortened(reason.split('`')[1])}".lstrip(".")


def _why(reason: str, allowed: Iterable[inspect.Type]) -> str:
    if found := EXPECTED.fullmatch(reason):
        got = f", got {_word(found['got'])}" if found["got"] else ""
        return f"expected {_kinds(found['kinds'])}{_bound(found['bound'])}{got}"
    _, is_value, value = reason.partition("value ")
    values = [str(each) for each in _values(allowed)]
    if is_value and values:
        return f"'{shortened(value.strip(chr(39)))}' is none of {', '.join(values)}"
    return reason[:1].lower() + reason[1:].replace("`", "'")


def _kinds(kinds: str) -> str:
    *most, last = map(_word, kinds.split(" | "))
    return f"{', '.join(most)} or {last}" if most else last


def _word(kind: str) -> str:
    return WORDS.get(kind, kind)


def _bound(bound: str) -> str:
    found = BOUND.fullmatch(bound)
    return f" {BOUNDS[found['sign']].format(found['value'].removesuffix('.0'))}" if found else bound


def _at(kind: inspect.Type, steps: Iterable[str]) -> list[inspect.Type]:
    """The types that may stand at a path."""
    found = [*_single(kind)]
    for step in steps:
        found = [single for outer in found for inner in _inside(outer, step) for single in _single(inner)]
    return found


def _single(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _single(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _single(each)
    else:
        yield kind


def _inside(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.ListType) and step.startswith("["):
        yield kind.item_type
    elif isinstance(kind, inspect.DictType):
        yield kind.value_type
    elif isinstance(kind, inspect.StructType):
        yield from (field.type for field in kind.fields if field.encode_name == step)
        if kind.tag_field == step:
            yield inspect.LiteralType(values=(kind.tag,))


def _values(kinds: Iterable[inspect.Type]) -> Iterator[Any]:
    for kind in kinds:
        if isinstance(kind, inspect.LiteralType):
            yield from kind.values
        elif isinstance(kind, inspect.EnumType):
            yield from (each.value for each in kind.cls)


def _fields(wrong: str, kinds: Iterable[inspect.Type]) -> str:
    """The fields there are instead of the wrong one, where only one struct may stand."""
    structs = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
    if len(structs) != 1:
        return ""
    known = [field.encode_name for field in structs[0].fields]
    return f"{did_you_mean(wrong, known)} Known are: {', '.join(known)}."
