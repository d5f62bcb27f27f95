"""How fast answers were is told of the newest, in whatever order they came to be stored."""

from __future__ import annotations

from stillroom import ids
from stillroom.assembly import Platform
from stillroom.completions import table
from stillroom.completions.figures import NEWEST, Latencies
from stillroom.completions.table import NewCompletion, Status

PROJECT = 1
SECOND = 1_700_000_000


def answered(platform: Platform, latency_ms: int, *, called_at: float) -> int:
    """Stores an answer to a call that began so many seconds after the first; gives its number."""
    new = NewCompletion(
        number=int((SECOND + called_at) * 1000) << ids.RANDOM_BITS,
        project=PROJECT,
        created_at=int(SECOND + called_at),
        model="gpt-4o",
        status=Status.COMPLETED,
        request={"messages": [{"role": "user", "content": "hi"}]},
        response={"choices": []},
        metadata={},
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=latency_ms // 2,
        latency_ms=latency_ms,
    )
    platform.writer.write(lambda connection: table.add(connection, new, table.pack(new.request, new.response)))
    return new.number


def told(platform: Platform, *, since: int = SECOND) -> Latencies:
    with platform.database.read() as connection:
        return platform.speeds.of(connection, PROJECT, "gpt-4o", since=since)


def test_a_slow_answer_counts_although_later_calls_were_answered_first(platform: Platform) -> None:
    answered(platform, 100, called_at=60)
    assert told(platform).total_ms == [100]
    answered(platform, 200, called_at=61)
    assert told(platform).total_ms == [100, 200]
    answered(platform, 59_000, called_at=2)
    assert told(platform) == Latencies(total_ms=[100, 200, 59_000], first_token_ms=[50, 100, 29_500])
    assert told(platform, since=SECOND + 60).total_ms == [100, 200]


def test_the_newest_thousand_count(platform: Platform) -> None:
    for n in range(NEWEST + 5):
        answered(platform, n, called_at=n)
        if n == 500:
            assert told(platform).total_ms == [*range(501)]
    assert told(platform).total_ms == [*range(5, NEWEST + 5)]
    answered(platform, 9999, called_at=3.5)  # older than all of those
    assert told(platform).total_ms == [*range(5, NEWEST + 5)]


def test_an_answer_that_is_deleted_later_still_counts(platform: Platform) -> None:
    answered(platform, 100, called_at=1)
    gone = answered(platform, 300, called_at=2)
    assert told(platform).total_ms == [100, 300]
    platform.writer.write(lambda connection: table.remove(connection, PROJECT, gone))
    answered(platform, 200, called_at=3)
    assert told(platform).total_ms == [100, 200, 300]
