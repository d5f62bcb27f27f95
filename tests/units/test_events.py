"""Server-sent events: whole events out of bytes cut anywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.errors import TeacherFailed
from stillroom.gateway.events import EVENT_BYTES, data_of, split_events

BODY = (
    b': hello\n\ndata: {"a":1}\n\nevent: x\ndata: {"b":"\xe6\x97\xa5 \\n\\n"}\r\n\r\n'
    b'data: one\ndata: two\n\nid: 7\r\ndata: {"c":2}\r\n\r\ndata: [DONE]\n\n'
)


def split(pieces: list[bytes]) -> list[bytes]:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def whole() -> list[bytes]:
        return [event async for event in split_events(arriving())]

    return asyncio.run(whole())


def test_events_come_out_whole() -> None:
    events = split([BODY])
    assert b"".join(events) == BODY
    assert [data_of(event) for event in events] == [
        b"",
        b'{"a":1}',
        b'{"b":"\xe6\x97\xa5 \\n\\n"}',
        b"one\ntwo",
        b'{"c":2}',
        b"[DONE]",
    ]


@given(st.lists(st.integers(0, len(BODY)), max_size=12))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(BODY)]
    assert split([BODY[a:b] for a, b in pairwise(places)]) == split([BODY])


def test_one_byte_at_a_time() -> None:
    assert split([BODY[n : n + 1] for n in range(len(BODY))]) == split([BODY])


def test_an_end_of_the_stream_ends_its_last_event() -> None:
    assert split([b"data: a\n\ndata: b"]) == [b"data: a\n\n", b"data: b"]
    assert split([b"data: a\n\n\n"]) == [b"data: a\n\n"]
    assert split([]) == []


def test_an_event_without_end_is_refused_and_takes_time_in_proportion() -> None:
    pieces = [b"x" * 65536] * (EVENT_BYTES // 65536 + 1)
    began = time.monotonic()
    with pytest.raises(TeacherFailed):
        split(pieces)
    assert time.monotonic() - began < 10
    assert split([*pieces[:-2], b"\n\n"])[0].endswith(b"x\n\n")
