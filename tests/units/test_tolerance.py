"""What upstreams refuse is remembered for a while, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from stillroom.config import GatewaySettings, Price
from stillroom.errors import TeacherRefused
from stillroom.gateway.soft_labels import Wish
from stillroom.gateway.tolerance import REMEMBERED_SECONDS, Asked, Tolerance
from stillroom.serving.models import Target

WISH = Wish(alternatives=20, own=None)
LIMITS = GatewaySettings(attempts=1)


class Refusal:
    """An upstream's answer, refused or not."""

    def __init__(self, status: int, message: str, param: str | None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {}
        self._body = msgspec.json.encode({"error": {"message": message, "param": param}})

    async def read(self) -> bytes:
        return self._body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    def close(self) -> None:
        return


class Picky:
    """An upstream that refuses more than `most` alternatives, in these words."""

    def __init__(self, most: int | None, *, status: int = 400, message: str = "no", param: str | None = None) -> None:
        self.most = most
        self.seen: list[Any] = []
        self._refusal = (status, message, param)

    async def ask(self, body: bytes) -> Refusal:
        asked = msgspec.json.decode(body)
        self.seen.append(asked)
        too_many = asked is not None and (self.most is None or asked > self.most)
        return Refusal(*self._refusal) if too_many else Refusal(200, "", None)


class Watch:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(tolerance: Tolerance, upstream: Picky, wish: Wish | None = WISH) -> list[Any]:
    """What the upstream was asked for until it answered."""
    target = Target(upstream=upstream, upstream_model="m", price=Price(), model="m")
    upstream.seen.clear()

    def body(more: Asked) -> bytes:
        return msgspec.json.encode(more.top_logprobs)

    asyncio.run(tolerance.ask(target, body, wish=wish, stream=False))
    return list(upstream.seen)


@pytest.mark.parametrize(
    "words",
    [
        {"message": "top_logprobs must be at most 5"},
        {"message": "Unsupported parameter.", "param": "logprobs"},
        {"status": 403, "message": "You are not allowed to request logprobs from this model"},
        {"status": 500, "message": "Logprobs are not enabled"},
    ],
)
def test_a_refusal_that_names_logprobs_is_remembered_for_an_hour(words: dict[str, Any]) -> None:
    watch = Watch()
    tolerance, upstream = Tolerance(LIMITS, watch), Picky(None, **words)
    assert asked(tolerance, upstream) == [20, 5, None]
    watch.now = REMEMBERED_SECONDS - 1
    assert asked(tolerance, upstream) == [None]
    assert tolerance.most_logprobs("m") == 0
    watch.now = REMEMBERED_SECONDS
    assert asked(tolerance, upstream) == [20, 5, None]
    upstream.most = 20
    assert asked(tolerance, upstream) == [None]
    tolerance.try_anew("m")
    assert asked(tolerance, upstream) == [20]


def test_what_a_caller_asks_for_himself_is_his_own_affair() -> None:
    upstream = Picky(5, message="top_logprobs")
    assert asked(Tolerance(LIMITS, Watch()), upstream, Wish(alternatives=20, own=3)) == [20, 5]
    # Ten that he wants to see are in his own words: what is then refused is refused to him.
    assert asked(Tolerance(LIMITS, Watch()), upstream, Wish(alternatives=20, own=10)) == [20, None]
    assert asked(Tolerance(LIMITS, Watch()), upstream, Wish(alternatives=5, own=5)) == [None]


def test_fewer_stay_fewer_when_calls_overlap() -> None:
    tolerance = Tolerance(LIMITS, Watch())
    tolerance.refused_above("m", 0)
    tolerance.refused_above("m", 5)
    assert tolerance.most_logprobs("m") == 0


def test_one_odd_request_does_not_take_their_soft_labels_from_all_others() -> None:
    watch = Watch()
    tolerance, odd, sound = Tolerance(LIMITS, watch), Picky(None, status=422), Picky(20)
    assert asked(tolerance, odd) == [20, None]
    assert asked(tolerance, sound) == [20]
    watch.now = REMEMBERED_SECONDS
    assert asked(tolerance, odd) == [20, None]  # the first is forgotten
    assert asked(tolerance, odd) == [20, None]
    assert (asked(tolerance, sound), tolerance.most_logprobs("m")) == ([None], 0)
    tolerance.try_anew("m")
    assert asked(tolerance, odd) == [20, None]
    assert asked(tolerance, sound) == [20]


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_refusal_that_cannot_be_about_logprobs_is_passed_on(status: int) -> None:
    upstream = Picky(None, status=status, message="no")
    with pytest.raises(TeacherRefused):
        asked(Tolerance(LIMITS, Watch()), upstream)
    assert upstream.seen == [20]
