"""Workers that are killed and stopped while they run jobs, and what must hold when all is over.

A real server that runs no jobs itself, real `stillroom worker` processes beside it, real signals. All jobs are the
same one (rows, seed, numbers), so that an undisturbed one beforehand says what each must end with, to the last bit.
A stopped worker wakes up after another has taken its job over, or before; half of them are stopped with their trainer.
`benchmarks/interrupted_jobs.py` does this at full size, `test_worker_faults.py` in small. Linux only.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.test_bad_input import upload
from tests.faults.wire import alive, children, send
from tests.support import Server, example_lines, wait_for

LEASE_SECONDS = 30.0
SETTINGS: dict[str, Any] = {
    "training_running_jobs": 1,
    "training_checkpoint_seconds": 0.2,
    "students": json.dumps({"scratch-small": {"price": {"training": 3.0}}}),
}
OF_THE_MACHINE = {"tokens_per_second", "computed_tokens_per_second", "memory_bytes", "elapsed_seconds"}
HYPERPARAMETERS = {"n_epochs": 6, "batch_size": 4}
EXAMPLES, TOTAL_STEPS = 24, 36
LOOK_SECONDS = 0.05
EARLY, EARLY_SECONDS = 0.2, 5.0  # of the blows, and how long a trainer takes at least until its first step
ORPHAN_SECONDS = 30.0  # for a trainer to notice that its worker is dead, on a machine that is busy


@dataclass(kw_only=True)
class Figures:
    """What was done, and what was found wrong afterwards."""

    jobs: int = 0
    kills: int = 0
    stops_taken_over: int = 0
    stops_short: int = 0
    while_training: int = 0
    """Of both; the others came while the trainer was starting."""
    not_used: int = 0
    seconds: float = 0.0
    longest_orphan_seconds: float = 0.0
    claims: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class _Worker:
    process: subprocess.Popen[bytes]
    wakes_at: float | None = None
    stopped: list[int] = field(default_factory=list)
    trainers: list[int] = field(default_factory=list)
    """Of a worker that was stopped without them, while they trained, for so long that they must end."""


@dataclass(frozen=True, kw_only=True)
class _Blow:
    """What is to happen to whoever holds the claim, and when: at a time, or as soon as it has trained to a step."""

    kind: str
    subject: str
    fence: int
    at: float | None
    step: int


class Torment:
    """One data folder, its server and its workers."""

    def __init__(self, folder: Path, *, jobs: int, kills: int, stops: int, workers: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._data = folder / "data"
        self._log = folder / "workers.log"
        self._num_jobs, self._num_workers = jobs, workers
        # Short ones end while the job is still the worker's, or nearly not any more.
        self._planned = ["kill"] * kills + ["stop"] * (stops - stops // 4) + ["short stop"] * (stops // 4)
        self._plans: dict[str, list[str]] = {}
        self._blows: list[_Blow] = []
        self._seen: set[tuple[str, int]] = set()
        self._workers: list[_Worker] = []
        self._orphans: dict[int, float] = {}
        self.figures = Figures(jobs=jobs)

    def run(self, *, limit_seconds: float) -> Figures:
        began = time.monotonic()
        with Server(self._data, **{**SETTINGS, "training_running_jobs": 0}).start() as server, self._put_away():
            self._workers = [self._start() for _ in range(self._num_workers)]
            file = upload(server, example_lines(EXAMPLES)).json["id"]
            control = self._submit(server, file)
            wait_for(lambda: self._states() == {control: "succeeded"}, seconds=600)
            subjects = [self._submit(server, file) for _ in range(self._num_jobs)]
            self._plans = {subject: [] for subject in subjects}
            self._rng.shuffle(self._planned)
            for number, kind in enumerate(self._planned):
                self._plans[subjects[number % len(subjects)]].append(kind)
            self._torment(until=time.monotonic() + limit_seconds)
            self._end_workers()
            wait_for(lambda: not any(map(self._left_in_run, subjects)), seconds=60)
            self._check(server, control, subjects)
        self.figures.seconds = time.monotonic() - began
        return self.figures

    # --- what is done to them ---------------------------------------------------------------------------

    def _torment(self, *, until: float) -> None:
        while not self._is_over():
            if time.monotonic() > until:
                self.figures.violations.append(f"not over in time: {Counter(self._states().values())}")
                return
            self._notice_claims()
            self._strike()
            self._hand_on()
            self._wake()
            self._watch_orphans()
            time.sleep(LOOK_SECONDS)

    def _is_over(self) -> bool:
        ended = all(state in ("succeeded", "failed") for state in self._states().values())
        return ended and not self._orphans and all(worker.wakes_at is None for worker in self._workers)

    def _notice_claims(self) -> None:
        """A claim that is new gets the next blow of its job's plan, at any moment from its start to its end."""
        for subject, (_, fence) in self._claims().items():
            if subject in self._plans and (subject, fence) not in self._seen:
                self._seen.add((subject, fence))
                if self._plans[subject]:
                    self._blows.append(self._blow(self._plans[subject].pop(), subject, fence))

    def _blow(self, kind: str, subject: str, fence: int) -> _Blow:
        """Now and then while the trainer starts; else at a step that is still to come, the last one's end included."""
        is_early = self._rng.random() < EARLY
        at = time.monotonic() + self._rng.uniform(0.0, EARLY_SECONDS) if is_early else None
        # As many steps on as leaves room for the blows that follow.
        step = self._steps_of(subject) + self._rng.randint(1, TOTAL_STEPS // (len(self._plans[subject]) + 1))
        return _Blow(kind=kind, subject=subject, fence=fence, at=at, step=min(step, TOTAL_STEPS))

    def _strike(self) -> None:
        claims = self._claims()
        for blow in list(self._blows):
            pid, fence = claims.get(blow.subject, (0, -1))
            worker = next((each for each in self._workers if each.process.pid == pid), None)
            if fence != blow.fence or worker is None or worker.wakes_at is not None:
                self._blows.remove(blow)
                self._plan_anew(blow.kind)  # it came too late: the job has ended or is somebody else's
            elif self._is_due(blow, worker):
                self._blows.remove(blow)
                self._land(blow, worker)

    def _is_due(self, blow: _Blow, worker: _Worker) -> bool:
        if blow.at is not None:
            return time.monotonic() >= blow.at
        return self._steps_of(blow.subject) >= blow.step and any(map(_trains, children(worker.process.pid)))

    def _land(self, blow: _Blow, worker: _Worker) -> None:
        if blow.at is None:
            self.figures.while_training += 1
        if blow.kind == "kill":
            self._kill(worker)
        else:
            self._stop(worker, short=blow.kind == "short stop")

    def _steps_of(self, subject: str) -> int:
        """How many steps the job's folder has the figures of."""
        path = self._data / "runs" / subject / "metrics.csv"
        return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0

    def _hand_on(self) -> None:
        """What was planned for a job that has ended by then is planned for another."""
        states = self._states()
        for subject, plan in self._plans.items():
            if states[subject] in ("succeeded", "failed"):
                left, plan[:] = list(plan), []
                for kind in left:
                    self._plan_anew(kind)

    def _plan_anew(self, kind: str) -> None:
        states = self._states()
        waiting = [subject for subject in self._plans if states[subject] not in ("succeeded", "failed")]
        if waiting:
            self._plans[self._rng.choice(waiting)].append(kind)
        else:
            self.figures.not_used += 1

    def _kill(self, worker: _Worker) -> None:
        for child in children(worker.process.pid):
            self._orphans[child] = time.monotonic()
        worker.process.kill()
        worker.process.wait()
        self._workers[self._workers.index(worker)] = self._start()
        self.figures.kills += 1

    def _stop(self, worker: _Worker, *, short: bool) -> None:
        pid = worker.process.pid
        below = children(pid)
        is_with_trainer = self._rng.random() < 0.5
        worker.stopped = [pid, *(below if is_with_trainer else [])]
        worker.trainers = [each for each in below if _trains(each)] if not is_with_trainer and not short else []
        for each in worker.stopped:
            _signal(each, signal.SIGSTOP)
        seconds = self._rng.uniform(2.0, LEASE_SECONDS) if short else self._rng.uniform(LEASE_SECONDS + 10, 60.0)
        worker.wakes_at = time.monotonic() + seconds
        if short:
            self.figures.stops_short += 1
        else:
            self.figures.stops_taken_over += 1

    def _wake(self) -> None:
        for worker in self._workers:
            if worker.wakes_at is not None and time.monotonic() >= worker.wakes_at:
                if any(map(alive, worker.trainers)):
                    self.figures.violations.append("a trainer went on though its worker was silent and its job gone")
                for each in worker.stopped:
                    _signal(each, signal.SIGCONT)
                worker.wakes_at, worker.stopped, worker.trainers = None, [], []

    def _watch_orphans(self) -> None:
        for pid, since in list(self._orphans.items()):
            lived = time.monotonic() - since
            if not alive(pid):
                del self._orphans[pid]
                self.figures.longest_orphan_seconds = max(self.figures.longest_orphan_seconds, lived)
            elif lived > ORPHAN_SECONDS:
                del self._orphans[pid]
                self.figures.violations.append(f"process {pid} outlived its worker by {lived:.0f} s")

    def _start(self) -> _Worker:
        environment = {f"STILLROOM_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        environment |= {"STILLROOM_DATA": str(self._data), "STILLROOM_TRAINING_THREADS": "1"}
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "stillroom", "worker"]
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        return _Worker(process=process)

    def _end_workers(self) -> None:
        """They are idle now and end as a service manager ends them."""
        for worker in self._workers:
            for each in worker.stopped:
                _signal(each, signal.SIGCONT)
            worker.process.terminate()
        for worker in self._workers:
            if (code := worker.process.wait(timeout=60)) != 0:
                self.figures.violations.append(f"a worker ended with {code}")

    @contextmanager
    def _put_away(self) -> Iterator[None]:
        try:
            yield
        finally:
            for worker in self._workers:
                if worker.process.poll() is None:
                    for child in children(worker.process.pid):
                        _signal(child, signal.SIGKILL)
                    worker.process.kill()
                    worker.process.wait()

    # --- what is looked at ------------------------------------------------------------------------------

    def _query(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self._data}/stillroom.db?mode=ro", uri=True, timeout=60)) as connection:
            return list(connection.execute(statement, values))

    def _states(self) -> dict[str, str]:
        return dict(self._query("SELECT subject, state FROM jobs"))

    def _claims(self) -> dict[str, tuple[int, int]]:
        """Whose each running job is: the process and the fence."""
        rows = self._query("SELECT subject, worker, fence FROM jobs WHERE state = 'running'")
        return {subject: (int(worker.split("-")[-2]), fence) for subject, worker, fence in rows}

    def _submit(self, server: Server, file: str) -> str:
        body = {"model": "scratch-small", "training_file": file, "seed": 1, "hyperparameters": HYPERPARAMETERS}
        made = send(server, "POST", "/v1/fine_tuning/jobs", {**body, "validation_file": file})
        assert made.status == 200, made.body
        return str(made.json["id"])

    def _left_in_run(self, subject: str) -> list[str]:
        left = {path.name for path in (self._data / "runs" / subject).iterdir()}
        return sorted(left & {"training.jsonl", "validation.jsonl", "checkpoints", "resume", "tokenizer"})

    # --- what must hold -----------------------------------------------------------------------------------

    def _check(self, server: Server, control: str, subjects: list[str]) -> None:
        wanted = self._outcome(server, control)
        self._expect("the control's steps", [step["step"] for step in wanted["steps"]], list(range(1, TOTAL_STEPS + 1)))
        for subject in subjects:
            found = self._outcome(server, subject)
            for name, value in wanted.items():
                self._expect(f"{name} of {subject}", found[name], value)
        claims = self._query("SELECT sum(fence), sum(worker IS NOT NULL), sum(crashes) FROM jobs")[0]
        self.figures.claims = claims[0]
        self._expect("claims that are left", claims[1], 0)
        self._expect("crashes that were counted", claims[2], 0)
        results = self._query("SELECT count(*) FROM files WHERE purpose = 'fine-tune-results'")[0][0]
        self._expect("result files", results, len(subjects) + 1)
        self._expect("blobs of models", self._blobs(), sorted(row[0] for row in self._query("SELECT blob FROM models")))
        self._expect("processes that are left", self._processes(server), [])

    def _expect(self, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            self.figures.violations.append(f"{what}: {_short(found)} instead of {_short(wanted)}")

    def _outcome(self, server: Server, subject: str) -> dict[str, Any]:
        """All that a job leaves behind, but for its names and times."""
        job = send(server, "GET", f"/v1/fine_tuning/jobs/{subject}").json
        events = self._query(
            "SELECT type, message, data FROM fine_tuning_events WHERE job = ? ORDER BY number", subject
        )
        metrics = [json.loads(data) for kind, _, data in events if kind == "metrics"]
        models = self._query("SELECT step, blob FROM models WHERE job = ? ORDER BY step", subject)
        bills = self._query("SELECT kind, trained_tokens, cost_picousd FROM ledger WHERE subject = ?", subject)
        return {
            "status": job["status"],
            "error": job["error"] and job["error"].get("code"),
            "bills": bills,
            "models": [(step, self._sum_of(blob)) for step, blob in models],
            "checkpoints": sorted(
                self._query("SELECT step, metrics FROM fine_tuning_checkpoints WHERE job = ?", subject)
            ),
            "steps": [_without_machine(step) for step in metrics],
            "ends": [message for _, message, _ in events if message == "The job has successfully completed"],
            "deaths": [message for _, message, _ in events if "died" in message],
            "result files": [self._results(file) for file in job["result_files"]],
        }

    def _results(self, file: str) -> list[dict[str, Any]]:
        rows = self._query("SELECT count(*) FROM files WHERE id = ? AND purpose = 'fine-tune-results'", file)
        assert rows == [(1,)], file
        with (self._data / "blobs" / "files" / file).open(newline="") as opened:
            return [_without_machine(row) for row in csv.DictReader(opened)]

    def _sum_of(self, blob: str) -> str:
        weights = self._data / "blobs" / blob / "model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "missing"

    def _blobs(self) -> list[str]:
        return sorted(f"models/{path.name}" for path in (self._data / "blobs" / "models").iterdir())

    def _processes(self, server: Server) -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(self._data) in command and int(path.parent.name) != server.pid:
                found.append(command)
        return found


def _without_machine(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in OF_THE_MACHINE}


def _trains(pid: int) -> bool:
    """Whether it has done with importing, which can take long on a busy machine: its figures' file is open."""
    try:
        return any(link.readlink().name == "metrics.csv" for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:200]} ... {text[-90:]}"
