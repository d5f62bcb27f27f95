"""Every error stillroom raises on purpose.

    StillroomError
    ├── InvalidRequest        the caller's value is wrong
    │   ├── InvalidTrainingFile
    │   └── VariableMissing   a grader's template asks for what the item or sample lacks
    ├── AuthenticationFailed  no key, or one we do not know
    ├── NotFound              no such thing in this project
    │   └── ModelNotFound     no deployment, teacher or student of that name
    ├── Conflict              true now, not in general: deployed, finished, already there
    ├── TooLarge              a body or file beyond its limit
    ├── RateLimited           ask again later
    ├── BudgetSpent           the project may not begin what costs more
    ├── TeacherFailed         the upstream did not give a usable answer
    │   ├── TeacherTimeout
    │   └── TeacherRefused    the upstream answered with an error of its own, to be passed on
    ├── StudentUnavailable    the student's process is starting, busy or gone
    │   └── StudentDiffers    what was loaded or exported is not the student that was trained
    ├── StoreUnavailable      the database cannot take the write now
    │   └── DiskFull
    ├── TrainingFailed        a fine-tuning job cannot go on
    │   └── BaseModelUnusable
    ├── PythonFailed          a python grader raised, or could not be run
    ├── SandboxUnavailable    this machine cannot run python graders safely
    ├── ConfigurationError    the installation's settings are wrong
    └── MissingExtra          a command needs packages that are not installed

An error carries a stable `code`, the offending `param` and a message that names the value and what
to do about it. Errors know nothing of HTTP (`api/errors.py` alone has status codes) and can be
pickled, because they cross process boundaries.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

ECHOED_LETTERS = 128  # the names of fine-tuned models, the longest that are ours, are seldom longer


class StillroomError(Exception):
    """Base of all deliberate errors."""

    code: str = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.details: dict[str, Any] = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.param, self.code, self.details)


def _rebuild(
    kind: type[StillroomError], message: str, param: str | None, code: str, details: dict[str, Any]
) -> StillroomError:
    return kind(message, param=param, code=code, **details)


class InvalidRequest(StillroomError):
    """A value in the request cannot be used; `param` names it."""

    code = "invalid_value"


class InvalidTrainingFile(InvalidRequest):
    """A training or validation file cannot be trained on; the message names line and field."""

    code = "invalid_training_file"


class VariableMissing(InvalidRequest):
    """A template names a variable that the item or the sample does not have."""

    code = "variable_missing"


class AuthenticationFailed(StillroomError):
    """The request carries no API key, or one that is unknown or revoked."""

    code = "invalid_api_key"


class NotFound(StillroomError):
    """The project has no object with this id."""

    code = "not_found"


class ModelNotFound(NotFound):
    """No deployment, teacher, student or fine-tuned model answers to this name."""

    code = "model_not_found"


class Conflict(StillroomError):
    """The object's present state forbids the operation."""

    code = "conflict"


class TooLarge(StillroomError):
    """The request body or file is beyond its limit."""

    code = "request_too_large"


class RateLimited(StillroomError):
    """Too many requests; `retry_after_seconds` in the details says when to ask again."""

    code = "rate_limit_exceeded"


class BudgetSpent(StillroomError):
    """The project's budget is spent: new jobs and eval runs are refused, while answers go on."""

    code = "insufficient_quota"


class TeacherFailed(StillroomError):
    """The teacher could not be reached or answered something that is no chat completion."""

    code = "upstream_invalid_response"


class TeacherTimeout(TeacherFailed):
    """The teacher did not answer within the configured time."""

    code = "upstream_timeout"


class TeacherRefused(TeacherFailed):
    """The upstream answered with an error; the details hold its `status`, `body` and `headers`."""

    code = "upstream_refused"


class StudentUnavailable(StillroomError):
    """The student's process is starting, overloaded or has stopped."""

    code = "student_unavailable"


class StudentDiffers(StudentUnavailable):
    """What was loaded or exported does not say what the student said when it was trained."""

    code = "student_differs"


class StoreUnavailable(StillroomError):
    """The database cannot take the write now, or is too busy to be read; nothing was stored."""

    code = "store_unavailable"


class DiskFull(StoreUnavailable):
    """The disk that holds the data folder is full; nothing was stored."""

    code = "disk_full"


class TrainingFailed(StillroomError):
    """A fine-tuning job cannot go on."""

    code = "training_failed"


class BaseModelUnusable(TrainingFailed):
    """The base model's folder is missing, unsafe or not a causal language model."""

    code = "base_model_unusable"


class PythonFailed(StillroomError):
    """A python grader gave no number; `where` in the details is "runtime" (its code) or "server" (ours)."""

    code = "python_grader_failed"

    @property
    def where(self) -> str:
        return str(self.details.get("where", "server"))


class SandboxUnavailable(StillroomError):
    """This machine cannot run a python grader safely; the message says what it lacks."""

    code = "sandbox_unavailable"


class ConfigurationError(StillroomError):
    """A setting is missing or wrong; the message names it."""

    code = "configuration_error"


class MissingExtra(StillroomError):
    """The command needs packages that this installation lacks; the message names the extra."""

    code = "missing_extra"


def shortened(text: str) -> str:
    """What a caller sent, as a message echoes it."""
    return text if len(text) <= ECHOED_LETTERS else text[:ECHOED_LETTERS] + "…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a wrong one, as a question after a message; empty when none is."""
    near = difflib.get_close_matches(shortened(name), sorted(known), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def all_errors(kind: type[StillroomError] = StillroomError) -> list[type[StillroomError]]:
    """Every error class below `kind`, parents first: the reference page is made from this."""
    found: list[type[StillroomError]] = []
    for child in kind.__subclasses__():
        found += [child, *all_errors(child)]
    return found
