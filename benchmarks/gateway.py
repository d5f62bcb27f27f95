"""CPU per call through the gateway beside the same call made directly to the teacher.

One scripted teacher and one client; rounds alternate between the ways, so that noise hits all alike.
CPU is user + system time of the processes named, from /proc. Requests are about 1.4 KB, answers
1.1 KB; a stream has about 100 chunks. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support import Server

TICK = os.sysconf("SC_CLK_TCK")
TEACHER = """
import sys
from stillroom.teachers.scripted import ScriptedTeacher
answer = "word " * 100 + "x" * 400
with ScriptedTeacher(lambda body: answer, record=False) as teacher:
    print(teacher.url, flush=True)
    sys.stdin.read()
"""
BODY = {
    "model": "gpt-4o",
    "messages": [{"role": "system", "content": "s" * 900}, {"role": "user", "content": "u" * 300}],
}
WAYS = {
    "direct": {},
    "unstored": {},
    "stored": {"store": True, "metadata": {"app": "benchmark", "kind": "plain"}},
    "direct stream": {"stream": True},
    "unstored stream": {"stream": True},
    "stored stream": {"stream": True, "store": True, "metadata": {"app": "benchmark", "kind": "stream"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=400, help="in one round of one way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=32)
    asked = parser.parse_args()
    command = [sys.executable, "-c", TEACHER]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as teacher,
    ):
        assert teacher.stdout is not None
        url = teacher.stdout.readline().strip()
        with Server(Path(folder) / "data", teachers={"gpt-4o": {"base_url": url}}).start() as server:
            figures = asyncio.run(_measure(asked, url, server, teacher.pid))
        teacher.kill()
    _show(figures, asked.concurrency)


async def _measure(
    asked: argparse.Namespace, teacher_url: str, server: Server, teacher_pid: int
) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {way: [] for way in WAYS}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for round_number in range(asked.rounds + 1):
            for way, more in WAYS.items():
                base = teacher_url if way.startswith("direct") else f"{server.url}/v1"
                body = json.dumps({**BODY, **more}).encode()
                call = _caller(session, f"{base}/chat/completions", server.key, body)
                # Directly: what client and teacher cost together. Through the gateway: what it adds.
                pids = [os.getpid(), teacher_pid] if way.startswith("direct") else [server.pid]
                before = _cpu(pids)
                await _many(call, asked.calls, asked.concurrency)
                if round_number:  # the first warms up
                    figures[way].append((_cpu(pids) - before) / asked.calls * 1e6)
    return figures


def _caller(session: aiohttp.ClientSession, url: str, key: str, body: bytes) -> Callable[[], Awaitable[None]]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    async def call() -> None:
        async with session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            assert answer.status == 200

    return call


async def _many(call: Callable[[], Awaitable[None]], calls: int, concurrency: int) -> None:
    gate = asyncio.Semaphore(concurrency)

    async def one() -> None:
        async with gate:
            await call()

    await asyncio.gather(*(one() for _ in range(calls)))


def _cpu(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def _show(figures: dict[str, list[float]], concurrency: int) -> None:
    medians = {way: statistics.median(values) for way, values in figures.items()}
    print(f"CPU us per call at concurrency {concurrency}, median of {len(figures['direct'])} rounds (min-max)")
    for way, values in figures.items():
        base = medians["direct stream" if way.endswith("stream") else "direct"]
        what = (
            "client + teacher" if way.startswith("direct") else f"gateway, {medians[way] / base:.2f} x the direct call"
        )
        print(f"{way:>16}: {medians[way]:7.0f} ({min(values):.0f}-{max(values):.0f})  {what}")


if __name__ == "__main__":
    main()
