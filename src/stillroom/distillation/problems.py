"""What is wrong with a job file or its rows: gathered, so that all of it is told at once.

Each problem names the key, the value and what to do.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

from stillroom.errors import ECHOED_LETTERS, InvalidRequest, StillroomError, did_you_mean, shortened

SHOWN = 20  # problems in one message; the rest are counted
TRUE, FALSE = (True, "true", "True", "yes"), (False, "false", "False", "no")


class InvalidJobFile(InvalidRequest):
    """A distillation cannot be run as it is written; the message lists every problem, `problems` in the details too."""

    code = "invalid_job_file"


class DistillationFailed(StillroomError):
    """A distillation ended without a model; the message says why, and how to go on."""

    code = "distillation_failed"


class Problems:
    """The problems of one file, in the order of its keys."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[str] = []
        self.warnings: list[str] = []
        """What has no effect, or is probably not meant."""

    def add(self, key: str, sentence: str) -> None:
        self._found.append(f"`{key}` {sentence}")

    def warn(self, key: str, sentence: str) -> None:
        self.warnings.append(f"`{key}` {sentence}")

    def raise_any(self) -> None:
        """Raises InvalidJobFile when there is one."""
        if not self._found:
            return
        lines = self._found[:SHOWN]
        if len(self._found) > SHOWN:
            lines = [*lines, f"and {len(self._found) - SHOWN} more problems."]
        text = "".join(f"\n- {line}" for line in lines)
        raise InvalidJobFile(f"{self._file} cannot be run as it is:{text}", problems=list(self._found))


class Fields:
    """A table of the file: takes values by key, notes what is wrong with them, and what was left over."""

    def __init__(self, values: Any, at: str, problems: Problems) -> None:
        self._at = at
        self._problems = problems
        self._values: dict[Any, Any] = {}
        if isinstance(values, Mapping):
            self._values = dict(values)
        elif values is not None:
            problems.add(at or "the file", f"is {written(values)}; expected keys and values.")

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def name(self, key: str) -> str:
        """The key's whole path."""
        return f"{self._at}.{key}" if self._at else key

    def take(self, key: str) -> Any:
        """The value as it stands; None when there is none."""
        return self._values.get(key)

    def table(self, key: str) -> Fields:
        return Fields(self._values.get(key), self.name(key), self._problems)

    def refuse(self, key: str, sentence: str) -> None:
        self._problems.add(self.name(key), sentence)

    def warn(self, key: str, sentence: str) -> None:
        self._problems.warn(self.name(key), sentence)

    def text(self, key: str, *, needed: str = "", secret: bool = False) -> str:
        """The text; empty when there is none, which is a problem when `needed` says what to write. A secret one is
        never repeated."""
        value = self._values.get(key)
        if value is None or value == "":
            if needed:
                self.refuse(key, f"is missing: {needed}")
            return ""
        if not isinstance(value, str):
            self.refuse(key, "is no text; put it in quotes." if secret else f"is {written(value)}; expected text.")
            return ""
        return value

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """One of the words, in lower case, however it is written."""
        value = self._values.get(key)
        if value is None:
            return default
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        near = did_you_mean(value.lower(), choices) if isinstance(value, str) else ""
        self.refuse(key, f"is {written(value)}; expected one of {', '.join(sorted(choices))}.{near}")
        return default

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        if value is None or value in FALSE:
            return False
        if value in TRUE:
            return True
        self.refuse(key, f"is {written(value)}; expected true or false.")
        return False

    def whole(self, key: str, default: int, *, low: int, high: int | None = None) -> int:
        return round(self.number(key, default, low=low, high=high, whole=True))

    def number(self, key: str, default: float, *, low: float, high: float | None = None, whole: bool = False) -> float:
        """The number, which may be written as text, as Azure's files have it."""
        value = self._values.get(key)
        if value is None:
            return default
        found = number_of(value)
        fits = found is not None and low <= found and (high is None or found <= high)
        if found is None or not fits or (whole and found != round(found)):
            kind = "a whole number" if whole else "a number"
            to = f"from {low:.10g} to {high:.10g}" if high is not None else f"from {low:.10g}"
            self.refuse(key, f"is {written(value)}; expected {kind} {to}.")
            return default
        return found

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Every key that is none of these is a problem, told with the nearest that is."""
        for key in self._values:
            if key not in known:
                names = f"Known here are: {', '.join(sorted(known))}."
                name = key if isinstance(key, str) else written(key)
                near = did_you_mean(name, known) or f" {names}"
                self.refuse(shortened(name), f"is no key that is known here.{near}")


def number_of(value: Any) -> float | None:
    """A finite number, or the text of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def written(value: Any) -> str:
    """A value of the file, as a message echoes it."""
    try:
        return shortened(_BRIEFLY.repr(value))
    except ValueError:
        return "a number too long to be shown"


_BRIEFLY = reprlib.Repr()  # never the whole of a value, of which a few letters can make gigabytes
_BRIEFLY.maxlevel = 3
_BRIEFLY.maxstring = _BRIEFLY.maxlong = _BRIEFLY.maxother = 2 * ECHOED_LETTERS
