"""Templates: `{{ item.question }}` and `{{ sample.output_text }}` in a grader's texts.

A template is read once and rendered for each item. It can name a value and nothing else: no calls,
no filters, no conditions; and what is put in is never read as a template again.

A path goes on with `.name`, `[0]` or `["any key"]`. Text is put in as it is, every other value as
compact JSON, so `null` reads `null`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stillroom.errors import InvalidRequest, VariableMissing
from stillroom.graders.subject import Subject

NAMESPACES = ("item", "sample")
OUTPUT_JSON = "output_json"
STEP = r"""\.[\w-]+|\[\d{1,9}\]|\["(?:[^"\\]|\\.)*"\]|\['(?:[^'\\]|\\.)*'\]"""
VARIABLE = rf"(?P<namespace>[A-Za-z_]\w*)(?P<path>(?:{STEP})*)"
STEPS = re.compile(STEP)
REFERENCE = re.compile(VARIABLE)
PLACEHOLDER = re.compile(rf"\{{\{{\s*{VARIABLE}\s*\}}\}}")
SHOWN_LETTERS = 60
SHOWN_NAMES = 12

Step = str | int


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A path into the item or the sample, such as `item.messages[0]`."""

    text: str
    namespace: str
    path: tuple[Step, ...]

    @classmethod
    def read(cls, text: str, *, param: str) -> Reference:
        """The path an `item_reference` names; braces around it are allowed. Raises InvalidRequest."""
        found = PLACEHOLDER.fullmatch(text.strip()) or REFERENCE.fullmatch(text.strip())
        if found is None:
            raise InvalidRequest(
                f"'{_short(text)}' is no reference; write a path such as item.input.",
                param=param,
                code="invalid_template",
            )
        return _reference(found, text.strip(), param)

    @property
    def asks_for_json(self) -> bool:
        return self.namespace == "sample" and self.path[0] == OUTPUT_JSON


@dataclass(frozen=True, kw_only=True)
class Template:
    """A text with places for values: literal text and references in turn."""

    parts: tuple[str | Reference, ...]

    @classmethod
    def read(cls, text: str, *, param: str) -> Template:
        """Raises InvalidRequest, with this param, for braces that name no variable."""
        parts: list[str | Reference] = []
        position = 0
        while (start := text.find("{{", position)) >= 0:
            found = PLACEHOLDER.match(text, start)
            if found is None:
                raise InvalidRequest(_misread(text[start:]), param=param, code="invalid_template")
            parts += [text[position:start], _reference(found, found[0], param)]
            position = found.end()
        parts.append(text[position:])
        return cls(parts=tuple(part for part in parts if part))

    def render(self, subject: Subject) -> str:
        """The text for this subject. Raises VariableMissing."""
        return "".join(part if isinstance(part, str) else _as_text(resolve(part, subject)) for part in self.parts)


def resolve(reference: Reference, subject: Subject) -> Any:
    """The value itself, as it stands in the item or sample. Raises VariableMissing."""
    value: Any = subject.item if reference.namespace == "item" else subject.sample
    if value is None:
        raise VariableMissing(f"{reference.text} asks for a sample, and there is none: no model has answered.")
    if reference.asks_for_json and value.get(OUTPUT_JSON) is None:
        raise VariableMissing(f"{reference.text} asks for JSON, and the answer is none.", not_json=True)
    walked = reference.namespace
    for step in reference.path:
        value, walked = _follow(value, step, walked, reference), f"{walked}{_spelled(step)}"
    return value


def _follow(value: Any, step: Step, walked: str, reference: Reference) -> Any:
    if isinstance(value, Mapping) and str(step) in value:
        return value[str(step)]
    if isinstance(value, list) and str(step).isdecimal() and int(step) < len(value):
        return value[int(step)]
    raise VariableMissing(f"{reference.text} asks for {walked}{_spelled(step)}, and {walked} {_has(value)}.")


def _has(value: Any) -> str:
    if isinstance(value, Mapping):
        names = ", ".join(_short(str(name)) for name in list(value)[:SHOWN_NAMES])
        return f"has {names}{', …' if len(value) > SHOWN_NAMES else ''}" if value else "is empty"
    if isinstance(value, list):
        return f"is a list of {len(value)}"
    return "is null" if value is None else f"is {_short(_as_text(value))!r}"


def _reference(found: re.Match[str], text: str, param: str) -> Reference:
    if found["namespace"] not in NAMESPACES or not found["path"]:
        raise InvalidRequest(
            f"'{_short(text)}' is no variable of a grader; variables begin with item. or sample., "
            "such as {{ item.question }} or {{ sample.output_text }}.",
            param=param,
            code="invalid_template",
        )
    return Reference(text=text, namespace=found["namespace"], path=tuple(map(_step, STEPS.findall(found["path"]))))


def _step(written: str) -> Step:
    if written.startswith("."):
        return written[1:]
    inside = written[1:-1]
    return int(inside) if inside.isdecimal() else re.sub(r"\\(.)", r"\1", inside[1:-1])


def _spelled(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if re.fullmatch(r"[\w-]+", step) else f'["{step}"]'


def _misread(rest: str) -> str:
    end = rest.find("}}")
    if end < 0:
        return f"The template opens a variable with '{_short(rest)}' and never closes it; add '}}}}'."
    return (
        f"The template's '{_short(rest[: end + 2])}' is no variable. Between the braces stands a path alone, such as "
        "{{ item.question }}, {{ item.list[0].name }} or {{ sample.output_text }}; calls and filters are not known."
    )


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + "…"
