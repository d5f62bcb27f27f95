"""Errors: they cross processes whole, and each has a status and words in every dialect."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from stillroom import errors
from stillroom.api.errors import reply_for, status_of
from stillroom.api.wire import Dialect
from stillroom.errors import StillroomError, TeacherRefused, all_errors

REFUSAL = {"status": 400, "body": None, "headers": {}}


def made(kind: type[StillroomError]) -> StillroomError:
    details = REFUSAL if issubclass(kind, TeacherRefused) else {}
    return kind("something is wrong with 'x'", param="x", **details)


@pytest.mark.parametrize("kind", [StillroomError, *all_errors()], ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[StillroomError]) -> None:
    before = made(kind)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is kind
    assert (after.message, after.param, after.code, after.details) == (
        before.message,
        before.param,
        before.code,
        before.details,
    )


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("kind", [StillroomError, *all_errors()], ids=lambda kind: kind.__name__)
def test_every_error_can_be_told_in_every_dialect(kind: type[StillroomError], dialect: Dialect) -> None:
    reply = reply_for(made(kind), dialect)
    assert 400 <= reply.status < 600
    body = msgspec.json.decode(msgspec.json.encode(reply.body))
    assert body["error"]["message"]
    assert "code" in body["error"]
    if dialect is Dialect.OPENAI:
        assert set(body["error"]) == {"message", "type", "param", "code"}


def test_only_what_may_pass_is_worth_another_try() -> None:
    for kind in (errors.Conflict, errors.DiskFull, errors.MissingExtra, errors.BudgetSpent):
        assert reply_for(made(kind), Dialect.OPENAI).headers["x-should-retry"] == "false"
    for kind in (errors.RateLimited, errors.StoreUnavailable, errors.StudentUnavailable):
        assert reply_for(made(kind), Dialect.OPENAI).headers == {"retry-after": "2"}
    assert reply_for(made(errors.InvalidRequest), Dialect.OPENAI).headers == {}


@pytest.mark.parametrize(
    ("upstream", "ours"),
    [(400, 400), (404, 404), (429, 429), (500, 500), (401, 502), (403, 502), (302, 502), (204, 502)],
)
def test_a_teachers_status_is_passed_on_unless_it_means_us(upstream: int, ours: int) -> None:
    error = TeacherRefused("no", status=upstream, body={"error": {"message": "no"}}, headers={})
    assert status_of(error) == ours


def test_codes_are_stable_words() -> None:
    codes = [kind.code for kind in all_errors()]
    assert all(
        code == code.lower() or kind.__module__ != "stillroom.errors"
        for code, kind in zip(codes, all_errors(), strict=True)
    )
    assert {"invalid_api_key", "model_not_found", "disk_full", "store_unavailable", "upstream_timeout"} <= set(codes)
