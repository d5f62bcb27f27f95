"""Errors as HTTP: the only place with status codes, and with each dialect's words for them."""

from __future__ import annotations

from typing import Any

from stillroom import errors
from stillroom.api.wire import Dialect, Reply
from stillroom.errors import StillroomError

# Most specific first.
STATUS: tuple[tuple[type[StillroomError], int], ...] = (
    (errors.InvalidRequest, 400),
    (errors.AuthenticationFailed, 401),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.TooLarge, 413),
    (errors.RateLimited, 429),
    (errors.BudgetSpent, 429),
    (errors.TeacherRefused, 502),
    (errors.TeacherTimeout, 504),
    (errors.TeacherFailed, 502),
    (errors.StudentUnavailable, 503),
    (errors.DiskFull, 507),
    (errors.StoreUnavailable, 503),
    (errors.PythonFailed, 400),
    (errors.SandboxUnavailable, 501),
    (errors.MissingExtra, 501),
    (StillroomError, 500),
)
RETRY_AFTER_SECONDS = "2"
NEVER_RETRY = {"x-should-retry": "false"}
AZURE_UNAUTHORIZED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)
AZURE_NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again."
)
KEYS_ARE_OURS = (401, 403)  # an upstream that says so means our key, not the caller's


class UnknownPath(errors.NotFound):
    """No operation lies at this path."""

    code = "unknown_url"


class WrongMethod(StillroomError):
    """The path is known, but not with this method."""

    code = "method_not_allowed"


class ForeignOrigin(StillroomError):
    """A sign-in cookie came with a request that no page of this server made."""

    code = "foreign_origin"


class UnsupportedApiVersion(errors.InvalidRequest):
    """The api-version is not one that Azure has had."""

    code = "BadRequest"


def reply_for(error: StillroomError, dialect: Dialect) -> Reply:
    """The error as the caller's dialect tells it."""
    status = status_of(error)
    headers = _headers(error, status)
    if isinstance(error, errors.TeacherRefused) and status == error.details["status"] and error.details["body"]:
        return Reply(status=status, body=error.details["body"], headers=headers)
    body = _arm(error) if dialect is Dialect.ARM else _azure(error) if dialect is Dialect.AZURE else None
    return Reply(status=status, body={"error": body or _openai(error, status)}, headers=headers)


def status_of(error: StillroomError) -> int:
    if isinstance(error, WrongMethod):
        return 405
    if isinstance(error, ForeignOrigin):
        return 403
    if isinstance(error, errors.TeacherRefused):
        status = int(error.details["status"])
        passed = 400 <= status < 600 and status not in KEYS_ARE_OURS
        return status if passed and (error.details["body"] or status == 429) else 502
    return next(status for kind, status in STATUS if isinstance(error, kind))


def _headers(error: StillroomError, status: int) -> dict[str, str]:
    if isinstance(error, errors.TeacherRefused):
        refused_key = error.details["status"] in KEYS_ARE_OURS
        later = {"retry-after": RETRY_AFTER_SECONDS} if status == 429 else {}
        return {**later, **error.details["headers"], **(NEVER_RETRY if refused_key else {})}
    is_lasting = isinstance(error, errors.BudgetSpent | errors.StudentDiffers) or type(error) is StillroomError
    if status in (409, 501, 507) or is_lasting:
        return NEVER_RETRY
    return {"retry-after": RETRY_AFTER_SECONDS} if status in (429, 503) else {}


def _openai(error: StillroomError, status: int) -> dict[str, Any]:
    return {"message": _message(error), "type": _type(error, status), "param": error.param, "code": error.code}


def _type(error: StillroomError, status: int) -> str:
    if isinstance(error, errors.BudgetSpent):
        return "insufficient_quota"
    if status == 429:
        return "requests"
    return "invalid_request_error" if status < 500 else "server_error"


def _message(error: StillroomError) -> str:
    if isinstance(error, errors.TeacherRefused) and error.details["status"] in KEYS_ARE_OURS:
        return f"The teacher refused the API key that stillroom is configured with: {error.message}"
    return error.message


def _azure(error: StillroomError) -> dict[str, Any] | None:
    """Azure's own words where it has some; None where it passes OpenAI's on."""
    if isinstance(error, errors.AuthenticationFailed):
        return {"code": "401", "message": AZURE_UNAUTHORIZED}
    if isinstance(error, UnknownPath):
        return {"code": "404", "message": "Resource not found"}
    if isinstance(error, UnsupportedApiVersion):
        return {"code": "BadRequest", "message": error.message}
    if isinstance(error, errors.ModelNotFound):
        return {"code": "DeploymentNotFound", "message": AZURE_NO_DEPLOYMENT}
    if isinstance(error, errors.NotFound):
        return {"code": "notFound", "message": error.message, "param": error.param, "type": "invalid_request_error"}
    if isinstance(error, errors.Conflict):
        return {"code": "conflict", "message": error.message, "param": error.param, "type": "invalid_request_error"}
    return None


def _arm(error: StillroomError) -> dict[str, Any]:
    names = {
        errors.AuthenticationFailed: "AuthenticationFailed",
        errors.ModelNotFound: "DeploymentModelNotSupported",
        errors.NotFound: "ResourceNotFound",
        errors.InvalidRequest: "InvalidRequestContent",
        errors.Conflict: "Conflict",
    }
    code = next((name for kind, name in names.items() if isinstance(error, kind)), error.code)
    return {"code": code, "message": error.message, "target": error.param}
