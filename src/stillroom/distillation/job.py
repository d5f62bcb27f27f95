"""Training files to a model: an ordinary fine-tuning job of the data folder, seen through to its end.

It runs in this process, as `stillroom worker` would run it; when a server runs on the data folder, the server's own
queue has it, and it is watched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

from stillroom import auth, catalog, config, fine_tuning, jobs
from stillroom.assembly import Platform
from stillroom.distillation.examples import Files
from stillroom.distillation.journal import Journal
from stillroom.distillation.problems import DistillationFailed, InvalidJobFile
from stillroom.distillation.spec import Spec
from stillroom.errors import InvalidRequest, MissingExtra
from stillroom.fine_tuning import Job, Order
from stillroom.jobs import State
from stillroom.student import hyperparameters as student
from stillroom.worker.supervisor import Supervisor

LOOK_SECONDS = 0.25
NO_FILE = "file-none"  # stands for the files of an order that is only checked


@dataclass(frozen=True, kw_only=True)
class Training:
    """How far a job is."""

    status: str
    step: int
    steps: int | None
    loss: float | None


Watch = Callable[[Training | str], None]


def check(spec: Spec, platform: Platform) -> None:
    """What a job would be refused for, before any label is paid. Raises InvalidJobFile, MissingExtra, BudgetSpent."""
    if find_spec("torch") is None and not server_runs(platform):
        raise MissingExtra("Fine-tuning needs `pip install 'stillroom[students]'` where jobs run.")
    platform.budgets.refuse_if_spent(auth.DEFAULT_PROJECT)
    try:
        order = order_of(spec, platform, NO_FILE, None, {})
        platform.fine_tuning.check_method(auth.DEFAULT_PROJECT, order, _base(spec, platform))
    except InvalidRequest as error:
        key = spec.student_key if error.param == "model" else error.param or "hyperparameters"
        raise InvalidJobFile(f"`{key}` cannot be used: {error.message}", param=key) from error


def order_of(
    spec: Spec, platform: Platform, training: str, validation: str | None, metadata: Mapping[str, str]
) -> Order:
    """The job's order."""
    hyperparameters = dict(spec.hyperparameters)
    if spec.learning_rate is not None:
        hyperparameters["learning_rate_multiplier"] = spec.learning_rate / _base_rate(spec, platform)
    body = {
        "model": spec.student,
        "training_file": training,
        "validation_file": validation,
        "method": spec.job_method(hyperparameters),
        "suffix": spec.suffix,
        "seed": spec.seed,
        "metadata": dict(metadata),
    }
    return fine_tuning.parse_order(body)


async def see_through(spec: Spec, journal: Journal, platform: Platform, files: Files, watch: Watch) -> Job:
    """The run's job once it has succeeded. Raises DistillationFailed when it does not."""
    job = await asyncio.to_thread(_job, spec, journal, platform, files)
    if server_runs(platform):
        job = await _ended(platform, job, watch)
    else:
        job = await _run_here(journal, platform, job, watch)
    if job.state is State.SUCCEEDED:
        return job
    reason = job.error["message"] if job.error else f"it was {job.state}."
    hint = ""
    if server_runs(platform) and spec.student in platform.settings.students:
        hint = f' The server on this data folder ran it, whose configuration needs [students."{spec.student}"] too.'
    raise DistillationFailed(
        f"The fine-tuning job {job.id} did not succeed: {reason}{hint} The labels are kept: run the same command to train "
        "again.",
        job=job.id,
    )


def server_runs(platform: Platform) -> bool:
    """Whether a server runs on the data folder, which then runs its jobs."""
    pid = config.running_server(platform.settings.folder).get("pid")
    try:
        os.kill(int(pid or 0), 0) if pid else None
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True  # somebody else's
    return bool(pid)


def model_is_there(platform: Platform, name: str) -> bool:
    with platform.database.read() as connection:
        return catalog.find_model(connection, auth.DEFAULT_PROJECT, name) is not None


def _job(spec: Spec, journal: Journal, platform: Platform, files: Files) -> Job:
    """The run's job on these files: the one it has, unless that came to nothing."""
    metadata = {"distillation": spec.name[:512], "run": journal.state.run, "files": files.digest[:32]}
    metadata["asked"] = journal.state.makes[:32]
    found, _ = platform.fine_tuning.page(
        auth.DEFAULT_PROJECT, after=None, limit=1, metadata=metadata, without_metadata=False
    )
    for job in found:
        gone = job.state is State.SUCCEEDED and not model_is_there(platform, job.openai_name)
        if job.state not in (State.FAILED, State.CANCELLED) and not gone:
            return job
    return platform.fine_tuning.create(
        auth.DEFAULT_PROJECT, order_of(spec, platform, files.training, files.validation, metadata)
    )


async def _run_here(journal: Journal, platform: Platform, job: Job, watch: Watch) -> Job:
    if journal.state.worker:
        # The run's folder is locked by us, so whoever worked on it under that name is dead.
        before = journal.state.worker
        await platform.writer.write_soon(lambda connection: jobs.release_all(connection, before))
    journal.state.worker = platform.worker_name
    journal.save()
    supervisor = asyncio.create_task(Supervisor(platform, only=[job.id]).run())
    try:
        return await _ended(platform, job, watch)
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)


async def _ended(platform: Platform, job: Job, watch: Watch) -> Job:
    before = 0
    while True:
        job, progress = await asyncio.to_thread(_look, platform, job.id)
        if progress.step < before:
            state = "where its state was last saved" if progress.step else "as no state was saved yet"
            watch(f"The training was interrupted at step {before}; it goes on from step {progress.step}, {state}.")
        before = progress.step
        watch(progress)
        if job.state in jobs.ENDED:
            return job
        await asyncio.sleep(LOOK_SECONDS)


def _look(platform: Platform, job_id: str) -> tuple[Job, Training]:
    job = platform.fine_tuning.get(auth.DEFAULT_PROJECT, job_id)
    progress = platform.fine_tuning.progress([job]).get(job_id)
    step, steps, loss = (progress.step, progress.steps, progress.train_loss) if progress else (0, None, None)
    return job, Training(status=job.state.value, step=step, steps=steps, loss=loss)


def _base(spec: Spec, platform: Platform) -> str:
    return platform.fine_tuning.base_of(auth.DEFAULT_PROJECT, spec.student)


def _base_rate(spec: Spec, platform: Platform) -> float:
    """The rate that a multiplier of 1 means for this student and method."""
    numbers = {name: value for name, value in spec.hyperparameters.items() if name != "learning_rate_multiplier"}
    order = fine_tuning.parse_order(
        {"model": spec.student, "training_file": NO_FILE, "method": spec.job_method(numbers)}
    )
    wanted = replace(fine_tuning.wanted_of(order.hyperparameters), learning_rate_multiplier=1.0)
    origin = platform.fine_tuning.origin_of(auth.DEFAULT_PROJECT, spec.student, _base(spec, platform))
    method = student.method_of(wanted, origin, order.method)
    return student.resolve(wanted, num_examples=1000, method=method).learning_rate
