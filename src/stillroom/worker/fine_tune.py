"""Runs one fine-tuning job: lays out its folder, starts the trainer, records what it reports."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from stillroom import fine_tuning, jobs
from stillroom.assembly import Platform
from stillroom.config import Settings, Student, TrainingSettings
from stillroom.datasets.files import PreparedFile
from stillroom.errors import MissingExtra, StillroomError, TrainingFailed
from stillroom.fine_tuning import Job, integrations
from stillroom.jobs import Claim, State
from stillroom.student.records.metrics import CHECKPOINT_FIGURES, rows_of
from stillroom.worker.child import Child, ended_badly

log = logging.getLogger(__name__)

TRAINER = "stillroom.student.training.launch"
REPORTER = "stillroom.student.records.report"
REPORT_SECONDS = 60
FLUSH_SECONDS = 0.5  # between two transactions of training steps
EVENTS_A_JOB = 2000  # metric events of a long job at most; the result file has every step
# The trainer was asked to stop before it could listen, or has not heard from us for too long (see student/training/run.py).
NO_CRASH = (-signal.SIGTERM, -signal.SIGINT, 3)
GIGABYTE = 10**9
LEFT_BEHIND = ("training.jsonl", "validation.jsonl", "checkpoints", "resume", "tokenizer")


class FineTune:
    """One claimed job in this process."""

    def __init__(self, platform: Platform, claim: Claim, job: Job) -> None:
        self._platform = platform
        self._claim = claim
        self._job = job
        self._folder = platform.settings.folder / "runs" / job.id
        self._steps: list[dict[str, Any]] = []
        self._flushed = 0.0
        self._began = time.monotonic()
        self._pace: tuple[float, int] | None = None
        self._stopping_for: State | None = None
        self.concluding = False
        """From when the job's end is being written: the claim may be gone, and that is right."""
        self._child: Child | None = None
        self._dropped_prompt: dict[str, Any] | None = None
        """The system prompt that the model learns to do without, once the trainer has said."""

    async def run(self) -> None:
        """Trains until the job ends, is set aside, or the claim is lost (StaleClaim)."""
        if find_spec("torch") is None:
            raise MissingExtra("Fine-tuning needs `pip install 'stillroom[students]'` where jobs run.")
        await asyncio.to_thread(self._lay_out)
        self._began = time.monotonic()
        environment = integrations.environment_of(self._job.integrations, self._platform.settings.training)
        self._child = await Child.start(TRAINER, self._folder, environment)
        self._child.reassure()
        if self._stopping_for is not None:
            self._child.ask_to_stop()
        try:
            async for message in self._child.messages():
                await self._take(message)
            await self._conclude(await self._child.ended())
        finally:
            await self._child.close()

    def stop(self, to: State) -> None:
        """Asks the trainer to save its state and end; the job then becomes `to`."""
        self._stopping_for = to
        if self._child is not None:
            self._child.ask_to_stop()

    def still_ours(self) -> None:
        """Tells the trainer, which ends when it has heard nothing for long: another worker may have the job then."""
        if self._child is not None:
            self._child.reassure()

    # --- before ---------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, file_id in (("training", self._job.training_file), ("validation", self._job.validation_file)):
            target = self._folder / f"{name}.jsonl"
            # A copy of its own: the file may be deleted while the job runs.
            if file_id and not target.exists():
                # Of this claim alone: a worker that was taken for dead may be writing the same.
                draft = target.with_suffix(f".{self._claim.fence}.part")
                shutil.copyfile(self._platform.files.path(self._job.project, file_id), draft)
                draft.rename(target)
        self._platform.lineage.record(self._job.project, self._job.id, self._job.model, self._folder / "training.jsonl")
        draft = self._folder / f"spec.{self._claim.fence}.part"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self._spec()), indent=2))
        draft.rename(self._folder / "spec.json")

    def _spec(self) -> dict[str, Any]:
        settings = self._platform.settings.training
        validation = self._folder / "validation.jsonl"
        return {
            "base": self._platform.fine_tuning.base_reference(self._job.project, self._job.model, self._job.base),
            "training_file": str(self._folder / "training.jsonl"),
            "validation_file": str(validation) if self._job.validation_file else None,
            "method": self._job.method,
            "teacher": self._platform.fine_tuning.teacher_reference(self._job.project, self._job.teacher),
            "hyperparameters": self._asked_hyperparameters(),
            "seed": self._job.seed,
            "threads": settings.threads or os.cpu_count() or 1,
            "checkpoint_seconds": settings.checkpoint_seconds,
            "memory_bytes": memory_bytes(settings),
            "processes": settings.processes,
            "sharding": settings.sharding,
            "model_name": self._job.openai_name,
            "integrations": integrations.told(self._job.integrations, self._job.id, self._job.base),
        }

    def _asked_hyperparameters(self) -> Any:
        """What the job was asked for: once it has started, the job itself has the numbers chosen
        instead, which a run that goes on would take for another job's."""
        path = self._folder / "spec.json"
        if path.exists():
            return msgspec.json.decode(path.read_bytes())["hyperparameters"]
        return self._job.hyperparameters

    def _student(self) -> Student:
        return self._platform.settings.students.get(self._job.base, Student())

    # --- while it trains --------------------------------------------------------------------------

    async def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "step":
            self._steps.append(message)
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                await self._flush()
            return
        await self._flush()
        if kind == "started":
            await self._start(message)
        elif kind == "message":
            await self._write(
                lambda c: fine_tuning.record_message(c, self._claim, message["level"], message["message"])
            )
        elif kind == "checkpoint":
            await self._checkpoint(message)
        elif kind == "done":
            await self._finish(message)
        elif kind == "error":
            raise TrainingFailed(message["message"], code=message["code"], param=message.get("param"))
        elif kind == "stopped":
            await self._set_aside()

    async def _start(self, started: dict[str, Any]) -> None:
        digest = await asyncio.to_thread(digest_of, self._folder / "training.jsonl")
        known = {**started, "training_digest": digest}
        self._dropped_prompt = started.get("dropped_prompt")
        await self._write(lambda c: fine_tuning.record_start(c, self._claim, known))
        if started["resumed_from_step"]:
            # What the trainer reported to a worker that died before it could record it.
            steps, checkpoints = await asyncio.to_thread(reported_before, self._folder, started)
            self._steps = steps
            await self._flush()
            for checkpoint in checkpoints:
                await self._checkpoint(checkpoint)

    async def _set_aside(self) -> None:
        """For the owner, who asked for it, or for the next worker."""
        to = self._stopping_for or State.QUEUED
        self.concluding = True
        await self._write(lambda c: fine_tuning.set_aside(c, self._claim, to))

    async def _flush(self) -> None:
        steps, self._steps = self._steps, []
        self._flushed = time.monotonic()
        if not steps:
            return
        shown = [step for step in steps if _is_shown(step)]
        finish = self._expected_finish(steps[-1])
        running = self._running_milliseconds()
        await self._write(lambda c: fine_tuning.record_steps(c, self._claim, shown, finish, running))

    def _running_milliseconds(self) -> int:
        """This run's time, and that of the runs before it that were interrupted."""
        return (self._job.running_milliseconds or 0) + round((time.monotonic() - self._began) * 1000)

    def _expected_finish(self, step: dict[str, Any]) -> int | None:
        now, done = time.monotonic(), step["step"]
        if self._pace is None:
            self._pace = (now, done)
            return None
        since, first = self._pace
        seconds_a_step = (now - since) / max(1, done - first)
        return int(time.time() + seconds_a_step * (step["total_steps"] - done)) + 1

    async def _checkpoint(self, message: dict[str, Any]) -> None:
        step = message["step"]
        blob = f"models/{self._job.id}-step-{step}"
        try:
            await asyncio.to_thread(self._platform.blobs.write_folder, blob, Path(message["path"]))
        except FileNotFoundError:
            # We were held up, and the trainer is so far ahead that it has dropped this one for newer ones.
            log.warning("the checkpoint of %s at step %s is gone already", self._job.id, step)
            return
        prompt = self._dropped_prompt
        dropped = await self._write(
            lambda c: fine_tuning.record_checkpoint(c, self._claim, self._job, step, message["metrics"], blob, prompt)
        )
        for old in dropped:
            await asyncio.to_thread(self._platform.blobs.delete, old)

    async def _finish(self, message: dict[str, Any]) -> None:
        blob = f"models/{self._job.id}"
        await asyncio.to_thread(self._platform.blobs.write_folder, blob, Path(message["path"]))
        results = await asyncio.to_thread(self._prepare_results, Path(message["metrics_csv"]))
        self.concluding = True
        running = self._running_milliseconds()

        def end(connection: Connection) -> None:
            fine_tuning.finish(
                connection,
                self._claim,
                self._job,
                blob=blob,
                trained_tokens=message["trained_tokens"],
                result_file=results.id,
                price=self._student().price,
                running_milliseconds=running,
                dropped_prompt=self._dropped_prompt,
            )
            self._platform.files.add(connection, results)

        await self._write(end)

    def _prepare_results(self, path: Path) -> PreparedFile:
        """Under an id that is the job's: what a worker prepared and died over is replaced, not left behind."""
        file_id = f"file-{self._job.id.removeprefix('ftjob-')}"
        return self._platform.files.prepare(
            file_id, self._job.project, "step_metrics.csv", "fine-tune-results", iter([path.read_bytes()])
        )

    # --- after ------------------------------------------------------------------------------------

    async def _conclude(self, status: int) -> None:
        if self.concluding:
            return  # what the process still does on its way out changes nothing
        if status in NO_CRASH:
            await self._set_aside()
            return
        assert self._child is not None
        log.error("the trainer of %s ended with status %s:\n%s", self._job.id, status, self._child.last_words())
        if status < 0 and await asyncio.to_thread(self._crashes) + 1 < self._platform.settings.training.attempts:
            await self._write(lambda c: fine_tuning.record_crash(c, self._claim))
            return
        raise ended_badly("training", status, ". Use a smaller batch_size, shorter examples or a smaller base model.")

    def _crashes(self) -> int:
        with self._platform.database.read() as connection:
            return jobs.crashes_of(connection, self._claim)

    async def _write(self, work: Callable[[Connection], Any]) -> Any:
        return await self._platform.writer.write_soon(work)


def memory_bytes(settings: TrainingSettings) -> int | None:
    """How much a training process is told to take at most; None: what is free."""
    return round(settings.memory_gb * GIGABYTE) or None


def reported_before(folder: Path, started: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps and the checkpoints that a trainer which goes on has reported before, from what lies in its folder."""
    total, epochs = started["total_steps"], started["hyperparameters"]["n_epochs"]
    rows = [row for row in rows_of(folder / "metrics.csv") if row["step"] <= started["resumed_from_step"]]
    steps = [
        {name: figure for name, figure in row.items() if not name.startswith("full_")}
        | {"total_steps": total, "epoch": int(row["step"] - 1) * epochs // total}
        for row in rows
    ]
    checkpoints = [
        {"step": int(row["step"]), "path": str(path), "metrics": {name: row.get(name) for name in CHECKPOINT_FIGURES}}
        for row in rows
        if (path := folder / "checkpoints" / f"step-{int(row['step']):06d}").is_dir()
    ]
    return steps, checkpoints


def digest_of(file: Path) -> str:
    """What a training file's rows are known by, whatever the file is called."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_shown(step: dict[str, Any]) -> bool:
    every = -(-step["total_steps"] // EVENTS_A_JOB)
    is_validated = step.get("valid_loss") is not None  # seldom, and the only one of its kind
    return step["step"] % every == 0 or step["step"] in (1, step["total_steps"]) or is_validated


def tidy(platform: Platform) -> None:
    """Removes what ended jobs left behind that can be large or someone's data; logs and figures stay."""
    for folder in (platform.settings.folder / "runs").iterdir():
        # By what lies there, so that what a trainer wrote while it was being ended is found the next time.
        left = [folder / part for part in LEFT_BEHIND if (folder / part).exists()]
        state = _state_of(platform, folder.name) if left else None
        if state in jobs.ENDED:
            if state is State.CANCELLED:
                # In a process of its own: it draws, which the server's must not be able to.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    subprocess.run([sys.executable, "-m", REPORTER, str(folder)], timeout=REPORT_SECONDS, check=False)
            for path in left:
                _remove(path)
            platform.blobs.clear_drafts(f"models/{folder.name}")


def _state_of(platform: Platform, job_id: str) -> State | None:
    with platform.database.read() as connection:
        return jobs.state_of(connection, job_id)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def room(settings: Settings) -> int:
    """How many such jobs run at a time."""
    return settings.training.running_jobs


def held_back(platform: Platform) -> list[int]:
    """The jobs that must wait though it is their turn: none."""
    return []


async def start(platform: Platform, claim: Claim) -> FineTune:
    """The claimed job, ready to run."""

    def read() -> Job:
        with platform.database.read() as connection:
            return fine_tuning.get_job(connection, claim.project, claim.subject)

    return FineTune(platform, claim, await asyncio.to_thread(read))


async def give_up(platform: Platform, claim: Claim, error: StillroomError) -> None:
    """The job has failed for good."""
    await platform.writer.write_soon(lambda connection: fine_tuning.fail(connection, claim, error))
