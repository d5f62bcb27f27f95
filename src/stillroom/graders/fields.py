"""Reading a JSON object field by field, with errors that name the field by its place in the request."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, TypeVar

from stillroom.errors import InvalidRequest
from stillroom.graders.template import Template

MOST = 1e300
Choice = TypeVar("Choice", bound=enum.StrEnum)


def is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -MOST <= value <= MOST


class Fields:
    """A JSON object's fields, and where it stands in the request."""

    def __init__(self, values: Any, param: str) -> None:
        if not isinstance(values, Mapping):
            raise InvalidRequest(f"Invalid type for '{param}': expected an object.", param=param, code="invalid_type")
        self.values = values
        self.param = param

    def wrong(self, name: str, why: str, *, code: str = "invalid_value") -> InvalidRequest:
        param = f"{self.param}.{name}"
        return InvalidRequest(f"Invalid '{param}': {why}.", param=param, code=code)

    def required(self, name: str) -> Any:
        if self.values.get(name) is None:
            param = f"{self.param}.{name}"
            raise InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
        return self.values[name]

    def text(self, name: str) -> str:
        value = self.required(name)
        if not isinstance(value, str):
            raise self.wrong(name, "expected a string", code="invalid_type")
        if not value:
            raise self.wrong(name, "it is empty")
        return value

    def texts(self, name: str, *, may_be_empty: bool = False) -> tuple[str, ...]:
        value = self.required(name)
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self.wrong(name, "expected a list of strings, none of them empty", code="invalid_type")
        if not value and not may_be_empty:
            raise self.wrong(name, "it is empty; give at least one")
        return tuple(dict.fromkeys(value))

    def template(self, name: str) -> Template:
        value = self.required(name)
        if not isinstance(value, str):
            raise self.wrong(name, "expected a string", code="invalid_type")
        return Template.read(value, param=f"{self.param}.{name}")

    def number(self, name: str, default: float, *, low: float = -MOST, high: float = MOST) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if not is_number(value):
            raise self.wrong(name, f"{value!r} is no number", code="invalid_type")
        if not low <= value <= high:
            raise self.wrong(name, f"{value!r} is outside the scores, which are {low:g} to {high:g}")
        return float(value)

    def choice(self, name: str, of: type[Choice]) -> Choice:
        value = self.required(name)
        for each in of:
            if each.value == value:
                return each
        raise self.wrong(name, f"{value!r} is none of {', '.join(each.value for each in of)}")
