"""The bill is exact: what the ledger sums up to is what callers were answered, through kill -9 and lost answers."""

from __future__ import annotations

import itertools
import json
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from stillroom.teachers.scripted import ScriptedTeacher
from tests.faults.wire import chat, connect, payloads, question, send, stored
from tests.support import Server, wait_for

CALLERS = 16
MICRO = 10**6
# USD per million tokens as they are configured, and the same as integers written out by hand.
PRICES = {"big": {"input": 2.5, "output": 10}, "small": {"input": 0.15, "output": 0.6}}
MICROUSD = {"big": (2_500_000, 10_000_000), "small": (150_000, 600_000)}


@pytest.fixture(scope="module")
def talkative() -> Iterator[ScriptedTeacher]:
    """A teacher that never says the same twice, so that two answers to one call are two different bills."""
    words = itertools.count(1)
    answer = lambda body: " ".join(["word"] * (next(words) * 7919 % 60 + 1))  # noqa: E731
    with ScriptedTeacher(answer, token_seconds=0.003, record=False) as teacher:
        yield teacher


def server_of(teacher: ScriptedTeacher, folder: Path) -> Server:
    return Server(folder / "data", teachers={n: {"base_url": teacher.url, "price": p} for n, p in PRICES.items()})


@dataclass
class Caller(threading.Thread):
    """Makes its calls one after another, each until it is answered. Of every fifth call the first answer is
    lost on the way: it is sent, but nobody reads it."""

    server: Server
    number: int
    calls: int
    keyed: bool
    stop: threading.Event
    answers: dict[str, tuple[str, bool, bytes]] = field(default_factory=dict)
    """By the call's name: its model, whether it was to be stored, and the answer."""

    def __post_init__(self) -> None:
        super().__init__(name=f"caller {self.number}")

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        for number in range(self.calls):
            name, model, store = f"{self.number}-{number}", ("big", "small")[number % 2], number % 3 == 0
            lose = number % 5 == 2
            while name not in self.answers and not self.stop.is_set():
                body = self._ask(name, model, store, lose)
                lose = False
                if body is not None:
                    self.answers[name] = (model, store, body)

    def _ask(self, name: str, model: str, store: bool, lose: bool) -> bytes | None:
        """The answer; None when there was none, or it was lost."""
        more: dict[str, Any] = {"store": True, "metadata": {"of": "ledger"}} if store else {}
        body = json.dumps(question(f"{name}: " + "please " * (len(name) + int(name[-1])), model=model, **more))
        headers = {"authorization": f"Bearer {self.server.key}", "content-type": "application/json"}
        if self.keyed:
            headers["idempotency-key"] = name
        try:
            with closing(connect(self.server)) as connection:
                connection.request("POST", "/v1/chat/completions", body, headers)
                if lose:
                    connection.sock.recv(1, socket.MSG_PEEK)  # it is there, and is not read
                    return None
                answer = connection.getresponse()
                data = answer.read()
                return data if answer.status == 200 else None
        except (OSError, HTTPException):
            time.sleep(0.05)  # until the server is there again
            return None


def run(server: Server, *, calls: int, keyed: bool, kills: int) -> dict[str, tuple[str, bool, bytes]]:
    """Every call's answer, after the server was killed so many times while they were made."""
    stop = threading.Event()
    callers = [Caller(server, number, calls, keyed, stop) for number in range(CALLERS)]
    choose = random.Random(5)
    for caller in callers:
        caller.start()
    try:
        answered = lambda: sum(len(caller.answers) for caller in callers)  # noqa: E731
        for kill in range(kills):
            wait_for(lambda kill=kill: answered() > kill * CALLERS * calls // (kills + 1), seconds=60, pause=0.01)
            time.sleep(choose.uniform(0.0, 0.1))
            server.kill()
            server.start()
        wait_for(lambda: answered() == CALLERS * calls, seconds=120, pause=0.05)
    finally:
        stop.set()
        for caller in callers:
            caller.join(timeout=60)
    return {name: answer for caller in callers for name, answer in caller.answers.items()}


Sums = dict[str, tuple[int, int, int, int]]


def billed(server: Server) -> Sums:
    """By model: rows, prompt tokens, completion tokens, pico-USD, as the ledger has them."""
    query = "SELECT deployment, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_picousd) FROM ledger"
    with closing(sqlite3.connect(f"file:{server.data}/stillroom.db?mode=ro", uri=True)) as connection:
        return {row[0]: tuple(row[1:]) for row in connection.execute(f"{query} GROUP BY model, deployment")}


def answered(answers: Mapping[str, tuple[str, bool, bytes]]) -> Sums:
    """The same, from the usage that the callers were told."""
    return added(((model, json.loads(body)["usage"]) for model, _, body in answers.values()))


def added(usages: Iterator[tuple[str, dict[str, int]]]) -> Sums:
    sums: Sums = {}
    for model, usage in usages:
        rows, prompt, said, pico = sums.get(model, (0, 0, 0, 0))
        prompt_price, price = MICROUSD[model]
        cost = usage["prompt_tokens"] * prompt_price + usage["completion_tokens"] * price
        sums[model] = (rows + 1, prompt + usage["prompt_tokens"], said + usage["completion_tokens"], pico + cost)
    return sums


@pytest.mark.slow
def test_the_ledger_is_the_sum_of_the_answers_through_kill_9_and_lost_answers(
    talkative: ScriptedTeacher, tmp_path: Path
) -> None:
    with server_of(talkative, tmp_path).start() as server:
        asked_before = talkative.calls
        answers = run(server, calls=20, keyed=True, kills=4)
        sums = billed(server)
        assert sums == answered(answers)
        assert sum(rows for rows, *_ in sums.values()) == len(answers) == CALLERS * 20
        assert talkative.calls - asked_before > len(answers), "no kill came between a question and its commit"
        kept = stored(server, of="ledger")
        to_store = {json.loads(body)["id"] for _, store, body in answers.values() if store}
        assert {completion["id"] for completion in kept} == to_store
        assert len(kept) == len(to_store) == CALLERS * 7
        told = {row["model"]: row for row in send(server, "GET", "/v1/stillroom/usage?group_by=model").json["data"]}
        for model, (rows, prompt, said, pico) in sums.items():
            row = told[model]
            assert (row["events"], row["prompt_tokens"], row["completion_tokens"]) == (rows, prompt, said)
            assert row["cost_microusd"] == (pico + MICRO // 2) // MICRO
            assert row["cost_usd"] == pico / MICRO**2


def test_the_same_without_keys_is_billed_twice(talkative: ScriptedTeacher, tmp_path: Path) -> None:
    """The control: answers that were lost and asked for again are in the ledger twice."""
    with server_of(talkative, tmp_path).start() as server:
        answers = run(server, calls=6, keyed=False, kills=0)
        wait_for(lambda: sum(rows for rows, *_ in billed(server).values()) >= CALLERS * 7, seconds=10)
        sums, expected = billed(server), answered(answers)
        assert sums != expected
        assert sum(pico for *_, pico in sums.values()) > sum(pico for *_, pico in expected.values())
        assert len(answers) == CALLERS * 6


def test_streams_and_whole_answers_side_by_side_are_each_billed_once(
    talkative: ScriptedTeacher, tmp_path: Path
) -> None:
    usages: list[tuple[str, dict[str, int]]] = []

    def ask(number: int) -> None:
        for turn in range(12):
            model, streamed = ("big", "small")[turn % 2], turn % 3 != 0
            more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
            answer = chat(server, f"{number} {turn}", model=model, store=turn % 4 == 0, **more)
            last = json.loads(payloads(answer.body)[-2]) if streamed else answer.json
            usages.append((model, last["usage"]))

    with server_of(talkative, tmp_path).start() as server:
        callers = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(timeout=60)
        assert len(usages) == CALLERS * 12
        # What was not stored is metered in the next transaction, which nobody waits for.
        wait_for(lambda: sum(rows for rows, *_ in billed(server).values()) >= len(usages), seconds=10)
        assert billed(server) == added(iter(usages))
