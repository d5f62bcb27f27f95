"""The queue's promises, on a real database with a clock that tests move."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import update

from stillroom import auth, jobs
from stillroom.clock import Clock
from stillroom.jobs import Claim, Observer, StaleClaim, State
from stillroom.store.database import Database
from stillroom.store.writer import Writer

KINDS = ["fine_tuning"]


class MovedClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


def add(database: Database, *subjects: str) -> None:
    """Queued jobs."""
    with database.writing.begin() as connection:
        for subject in subjects:
            jobs.enqueue(connection, project=auth.DEFAULT_PROJECT, kind=KINDS[0], subject=subject)
            jobs.move(connection, subject, expected=(State.VALIDATING,), to=State.QUEUED)


def claim(database: Database, worker: str) -> Claim | None:
    with database.writing.begin() as connection:
        return jobs.claim(connection, worker, KINDS)


def look(database: Database, observer: Observer) -> list[str]:
    with database.writing.begin() as connection:
        return observer.take_over(connection)


def beat(database: Database, held: Claim) -> None:
    with database.writing.begin() as connection:
        jobs.beat(connection, held)


def test_the_queue_tells_from_when_on_a_job_can_be_claimed(database: Database) -> None:
    def claimable_from() -> int | None:
        with database.read() as connection:
            return jobs.claimable_from(connection, KINDS)

    assert claimable_from() is None
    later = int(time.time()) + 3600
    with database.writing.begin() as connection:
        values = {"project": auth.DEFAULT_PROJECT, "kind": KINDS[0], "state": State.QUEUED}
        for hours in (1, 0):
            jobs.enqueue(connection, subject=f"in {hours} hours", not_before=later + hours * 3600, **values)
    assert claimable_from() == later
    assert claim(database, "worker") is None
    add(database, "now")
    assert claimable_from() == 0
    assert claim(database, "worker") is not None


def test_jobs_are_claimed_oldest_first_and_once(database: Database) -> None:
    add(database, "a", "b")
    claims = [claim(database, worker) for worker in ("one", "two", "three")]
    assert [held and held.subject for held in claims] == ["a", "b", None]


def test_a_worker_of_one_job_takes_no_other(database: Database) -> None:
    add(database, "another", "its own")
    with database.writing.begin() as connection:
        held = jobs.claim(connection, "worker", KINDS, only=["its own"])
        assert held is not None
        assert held.subject == "its own"
        assert jobs.claim(connection, "worker", KINDS, only=["its own"]) is None
        assert jobs.claimable_from(connection, KINDS, only=["its own"]) is None


def test_a_job_that_is_not_yet_validated_is_not_claimed(database: Database) -> None:
    with database.writing.begin() as connection:
        jobs.enqueue(connection, project=auth.DEFAULT_PROJECT, kind=KINDS[0], subject="a")
        assert jobs.claim(connection, "one", KINDS) is None


def test_two_workers_never_claim_one_job(tmp_path: Path, database: Database) -> None:
    names = [f"job{number}" for number in range(60)]
    add(database, *names)
    taken: list[str] = []

    def work(worker: str) -> None:
        own = Database(tmp_path / "stillroom.db")
        while (held := claim(own, worker)) is not None:
            taken.append(held.subject)
        own.close()

    workers = [threading.Thread(target=work, args=(f"worker{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken) == sorted(names)


def test_a_silent_worker_loses_its_job_after_thirty_seconds_and_a_beating_one_does_not(database: Database) -> None:
    add(database, "silent", "beating")
    silent, beating = claim(database, "one"), claim(database, "two")
    assert silent
    assert beating
    clock = MovedClock()
    observer = Observer(clock)
    for _ in range(6):
        assert look(database, observer) == []
        beat(database, beating)
        clock.time += 5.0
    assert look(database, observer) == ["silent"]
    with database.read() as connection:
        assert jobs.state_of(connection, "silent") is State.QUEUED
        assert jobs.state_of(connection, "beating") is State.RUNNING


def test_an_observer_that_has_just_begun_waits_thirty_seconds_of_its_own(database: Database) -> None:
    add(database, "a")
    claim(database, "one")
    clock = MovedClock()
    clock.time = 1e9
    observer = Observer(clock)
    assert look(database, observer) == []
    clock.time += jobs.LEASE_SECONDS - 0.1
    assert look(database, observer) == []
    clock.time += 0.2
    assert look(database, observer) == ["a"]


WRITES = {
    "guard": jobs.guard,
    "beat": jobs.beat,
    "wish_of": jobs.wish_of,
    "count_crash": jobs.count_crash,
    "release": lambda connection, held: jobs.release(connection, held, State.SUCCEEDED),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_stale_worker_is_refused(database: Database, name: str) -> None:
    add(database, "a")
    stale = claim(database, "one")
    assert stale
    with database.writing.begin() as connection:
        WRITES[name](connection, stale)  # the control: while the claim holds, it is not refused
        connection.rollback()
    with database.writing.begin() as connection:
        jobs.move(connection, "a", expected=(State.RUNNING,), to=State.QUEUED)
    current = claim(database, "two")
    assert current
    assert current.fence > stale.fence
    with database.writing.connect() as connection, pytest.raises(StaleClaim):
        WRITES[name](connection, stale)
    with database.read() as connection:
        assert jobs.state_of(connection, "a") is State.RUNNING


@pytest.mark.parametrize("name", WRITES)
def test_a_cancelled_job_refuses_its_worker(database: Database, name: str) -> None:
    add(database, "a")
    held = claim(database, "one")
    assert held
    with database.writing.begin() as connection:
        assert jobs.move(connection, "a", expected=(State.RUNNING,), to=State.CANCELLED)
    with database.writing.connect() as connection, pytest.raises(StaleClaim):
        WRITES[name](connection, held)


def test_release_all_frees_only_this_workers_running_jobs(database: Database) -> None:
    add(database, "a", "b", "c")
    claim(database, "one")
    claim(database, "two")
    with database.writing.begin() as connection:
        assert jobs.release_all(connection, "one") == ["a"]
        assert [jobs.state_of(connection, name) for name in "abc"] == [State.QUEUED, State.RUNNING, State.QUEUED]


class Queue(RuleBasedStateMachine):
    """Workers that fall silent, come back and finish, in every order: a job's result is the last claimant's."""

    guarded = True

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name) / "stillroom.db")
        self.database.migrate()
        with self.database.writing.begin() as connection:
            auth.ensure_default_project(connection)
        add(self.database, "a", "b")
        self.clock = MovedClock()
        self.observer = Observer(self.clock)
        self.claims: list[Claim] = []
        self.accepted: list[Claim] = []

    @rule()
    def claim(self) -> None:
        held = claim(self.database, "worker")
        if held is not None:
            self.claims.append(held)

    @rule(seconds=st.sampled_from([-60.0, 1.0, 31.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.time += seconds
        look(self.database, self.observer)

    @rule(which=st.integers(0, 20))
    def beat(self, which: int) -> None:
        if self.claims:
            try:
                beat(self.database, self.claims[which % len(self.claims)])
            except StaleClaim:
                pass

    @rule(which=st.integers(0, 20))
    def finish(self, which: int) -> None:
        if not self.claims:
            return
        held = self.claims[which % len(self.claims)]
        try:
            with self.database.writing.begin() as connection:
                self.record(connection, held)
        except StaleClaim:
            return
        self.accepted.append(held)

    def record(self, connection, held: Claim) -> None:  # type: ignore[no-untyped-def]
        jobs.release(connection, held, State.SUCCEEDED)

    @invariant()
    def only_the_last_claimants_result_is_accepted_and_once(self) -> None:
        accepted = getattr(self, "accepted", [])
        last = {held.subject: held.fence for held in getattr(self, "claims", [])}
        assert all(held.fence == last[held.subject] for held in accepted), "a stale worker's result was accepted"
        assert len({held.subject for held in accepted}) == len(accepted)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()


class UnguardedQueue(Queue):
    """The control: a worker that writes its result without looking at its claim."""

    def record(self, connection, held: Claim) -> None:  # type: ignore[no-untyped-def]
        table = jobs.jobs
        connection.execute(update(table).where(table.c.number == held.number).values(state=State.SUCCEEDED.value))


FEW = settings(max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))


def test_whatever_happens_only_the_last_claimants_result_counts() -> None:

    run_state_machine_as_test(Queue, settings=FEW)


def test_without_the_guard_a_stale_result_is_found_accepted() -> None:

    no_shrinking = settings(FEW, max_examples=200, phases=[Phase.generate], print_blob=False)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(UnguardedQueue, settings=no_shrinking)


def test_the_writer_carries_a_claim_like_any_write(database: Database) -> None:
    add(database, "a")
    writer = Writer(database.writing)
    held = writer.write(lambda connection: jobs.claim(connection, "one", KINDS))
    assert held is not None
    writer.close()
