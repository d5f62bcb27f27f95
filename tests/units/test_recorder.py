"""What is kept with an answer, in one transaction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from stillroom import logprobs
from stillroom.assembly import Platform, open_platform
from stillroom.billing import Entry, Kind
from stillroom.completions import soft_labels, table
from stillroom.completions.recorder import Recorder
from stillroom.completions.table import NewCompletion, Status
from stillroom.config import Price, Settings
from stillroom.errors import StoreUnavailable

ENTRY_OF_A = {"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}
TOLD = [
    json.dumps({"content": [ENTRY_OF_A] * 2}).encode(),
    b'{"content":null}',
    json.dumps({"content": [ENTRY_OF_A]}).encode(),
]
ENTRY = Entry(project=1, kind=Kind.ANSWER, model="m", prompt_tokens=1)


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return open_platform(Settings(data=str(tmp_path / "data")))


def completion(number: int) -> NewCompletion:
    return NewCompletion(
        number=number,
        project=1,
        created_at=1,
        model="m",
        status=Status.COMPLETED,
        request={"messages": [{"role": "user", "content": "hi"}]},
        response={"choices": [{"message": {"role": "assistant", "content": "aaa"}, "finish_reason": "stop"}]},
        metadata={},
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=1,
        latency_ms=1,
    )


def test_soft_labels_are_there_when_the_answer_is(platform: Platform) -> None:
    recorder = Recorder(platform.writer)
    for number, told in ((1, TOLD), (2, []), (3, [b'{"content":[]}']), (4, [b'"text"', b'{"content":7}'])):
        recorder.keep(ENTRY, Price(), new=completion(number), answer=None, logprobs=told).result(10)
    with platform.database.read() as connection:
        kept = soft_labels.of(connection, [1, 2, 3, 4])
        sizes = soft_labels.sizes(connection, 1)
    assert {number: len(logprobs.unpack(body)) for number, body in kept.items()} == {1: 3}
    assert sizes == soft_labels.Sizes(tokens=3, alternatives=1, bytes=len(kept[1]))
    platform.close()


@pytest.mark.parametrize("told", [b'{"content":[', b'{"content":[{"token":"\\ud800","logprob":-1}]}', b"\xff"])
def test_labels_that_cannot_be_packed_are_lost_alone(
    platform: Platform, told: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    Recorder(platform.writer).keep(ENTRY, Price(), new=completion(1), answer=None, logprobs=[*TOLD, told]).result(10)
    with platform.database.read() as connection:
        assert table.get(connection, 1, 1) is not None
        assert soft_labels.of_one(connection, 1) is None
        assert connection.execute(text("SELECT count(*) FROM ledger")).scalar() == 1
    assert "stored without its soft labels" in caplog.text
    platform.close()


def test_what_cannot_be_stored_is_told_to_who_waits_labels_or_not(platform: Platform) -> None:
    recorder = Recorder(platform.writer)
    recorder.keep(ENTRY, Price(), new=completion(1), answer=None, logprobs=TOLD).result(10)
    with pytest.raises(Exception, match="UNIQUE"):
        recorder.keep(ENTRY, Price(), new=completion(1), answer=None, logprobs=TOLD).result(10)
    with platform.database.read() as connection:
        assert table.get(connection, 1, 1) is not None
    platform.close()
    with pytest.raises(StoreUnavailable, match="stopping"):
        recorder.keep(ENTRY, Price(), new=completion(2), answer=None, logprobs=TOLD).result(10)
