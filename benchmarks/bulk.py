"""What bulk actions cost, and how long others wait for the writer meanwhile.

Stores completions, then tags and deletes some of them as the server does, through the queue and its
supervisor, in this process. First half of them with nothing else going on: CPU is user + system time
of the process, so the queue, the filter and the progress are in it. Then the other half, while
something small is written every few milliseconds, as a stored call would: how long that waits, with
and without an action, is what callers notice. The longest transaction is timed from its beginning to
the end of its commit.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from stillroom import auth, ids, jobs
from stillroom.assembly import Platform, open_platform
from stillroom.completions import table
from stillroom.completions.bulk import Action, Order
from stillroom.completions.schema import Filter, Status
from stillroom.completions.table import NewCompletion
from stillroom.config import Settings
from stillroom.worker.supervisor import Supervisor

PROJECT = auth.DEFAULT_PROJECT
WORDS = "the answer colour of water depends on how deep it is and what lies below and who asks for it".split()  # noqa: SIM905
UNIQUE_PREFIXES = 0.1  # of the completions have a system prompt of their own, which is deleted with them
PROBE_SECONDS = 0.005
ALONE_SECONDS = 5.0
STORED_TOGETHER = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stored", type=int, default=200_000)
    parser.add_argument("--chosen", type=int, default=50_000, help="so many are tagged, then deleted")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        platform = open_platform(Settings(data=str(Path(folder) / "data")))
        try:
            began = time.process_time()
            _store(platform, asked.stored, asked.chosen)
            print(f"stored: {(time.process_time() - began) / asked.stored * 1e6:.0f} us CPU a row")
            asyncio.run(_measure(platform))
        finally:
            platform.close()


async def _measure(platform: Platform) -> None:
    with _probing(platform) as waits:
        await asyncio.sleep(ALONE_SECONDS)
    print(f"{'no action':24}{_told(waits)}")
    supervisor = asyncio.create_task(Supervisor(platform).run())
    for action, changes in ((Action.TAG, {"reviewed": "yes", "tone": None}), (Action.DELETE, None)):
        quiet, busy = (
            Order(action=action, chosen=Filter(metadata={"batch": batch}), changes=changes) for batch in ("one", "two")
        )
        await _alone(platform, quiet)
        await _beside_others(platform, busy)
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)


async def _alone(platform: Platform, order: Order) -> None:
    began, cpu = time.monotonic(), time.process_time()
    done = await _carried_out(platform, order)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(f"{order.action:24}{done} rows, {done / seconds:.0f} rows/s, {cpu / done * 1e6:.0f} us CPU a row")


async def _beside_others(platform: Platform, order: Order) -> None:
    with _probing(platform) as waits, _timed(platform) as transactions:
        await _carried_out(platform, order)
    longest = f"longest transaction {max(transactions) * 1000:.0f} ms"
    print(f"{f'{order.action}, others beside':24}{longest}; {_told(waits)}")


async def _carried_out(platform: Platform, order: Order) -> int:
    action = platform.bulk_actions.start(PROJECT, order)
    while action.state not in jobs.ENDED:
        await asyncio.sleep(0.1)
        action = await asyncio.to_thread(platform.bulk_actions.get, PROJECT, action.id)
    assert action.done == action.matched
    return action.done


def _told(waits: list[float]) -> str:
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return (
        f"a small write waits p50 {cuts[49] * 1000:.1f}, p99 {cuts[98] * 1000:.1f}, "
        f"most {max(waits) * 1000:.1f} ms ({len(waits)} writes)"
    )


@contextmanager
def _probing(platform: Platform) -> Iterator[list[float]]:
    """How long each of many small writes waits for its commit, meanwhile."""
    waits: list[float] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.wait(PROBE_SECONDS):
            began = time.monotonic()
            platform.writer.write(lambda connection: jobs.release_all(connection, "nobody"))
            waits.append(time.monotonic() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


@contextmanager
def _timed(platform: Platform) -> Iterator[list[float]]:
    """The seconds that each transaction of the writer takes, meanwhile."""
    found: list[float] = []
    began = 0.0

    def begin(_connection: Connection) -> None:
        nonlocal began
        began = time.monotonic()

    def checked_in(*_: Any) -> None:
        found.append(time.monotonic() - began)

    engine = platform.database.writing
    event.listen(engine, "begin", begin)
    event.listen(engine, "checkin", checked_in)
    try:
        yield found
    finally:
        event.remove(engine, "begin", begin)
        event.remove(engine, "checkin", checked_in)


def _store(platform: Platform, count: int, chosen: int) -> None:
    numbers, draw = ids.OrderedNumbers(), random.Random(1)
    picked = draw.sample(range(count), chosen)
    batches = {index: "one" if place % 2 else "two" for place, index in enumerate(picked)}
    for begin in range(0, count, STORED_TOGETHER):
        some = [
            _new(numbers.mint(), n, batches.get(n, "none"), draw)
            for n in range(begin, min(begin + STORED_TOGETHER, count))
        ]
        packed = [(new, table.pack(new.request, new.response)) for new in some]
        platform.writer.write(lambda c, packed=packed: [table.add(c, *one) for one in packed])


def _new(number: int, index: int, batch: str, draw: random.Random) -> NewCompletion:
    own = f" Case {index}." if draw.random() < UNIQUE_PREFIXES else ""
    pairs: Mapping[str, str] = {
        "batch": batch,
        "agent_type": draw.choice(("dolphin", "owl")),
        "tone": draw.choice(("dry", "warm", "plain")),
        "case": str(index),
    }
    messages = [
        {"role": "system", "content": "You answer questions about water, briefly and with care." + own},
        {"role": "user", "content": " ".join(draw.choices(WORDS, k=80))},
    ]
    answer = {"role": "assistant", "content": " ".join(draw.choices(WORDS, k=120))}
    return NewCompletion(
        number=number,
        project=PROJECT,
        created_at=int(time.time()),
        model="gpt-4o",
        status=Status.COMPLETED,
        request={"model": "gpt-4o", "messages": messages},
        response={"object": "chat.completion", "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}]},
        metadata=pairs,
        prompt_tokens=100,
        completion_tokens=150,
        first_token_ms=200,
        latency_ms=900,
    )


if __name__ == "__main__":
    main()
