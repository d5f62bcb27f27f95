"""The whole way: spec -> rows -> labels -> files -> job -> outcome.

    outcome = distill("distillation.yaml")

Whatever interrupts it, the same call goes on: what was answered is in the run's journal, what was trained in the
job's saved state. A file that asks its teacher for something else begins a new run; one that only trains otherwise
keeps the labels.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from stillroom import auth, config
from stillroom.assembly import Platform, open_platform
from stillroom.config import Settings
from stillroom.curation import languages
from stillroom.distillation import examples, job, rows
from stillroom.distillation.allowance import MOST_TOKENS
from stillroom.distillation.asking import LIMITS, limit_of
from stillroom.distillation.identity import asks_of, makes_of
from stillroom.distillation.journal import FAILED, Journal
from stillroom.distillation.labels import Labelling, Progress
from stillroom.distillation.outcome import Outcome, outcome_of
from stillroom.distillation.problems import DistillationFailed
from stillroom.distillation.reading import read
from stillroom.distillation.rows import TRAINING, VALIDATION
from stillroom.distillation.spec import Spec
from stillroom.errors import MissingExtra

Event = str | Progress | job.Training
Watch = Callable[[Event], None]
STOPPING = (signal.SIGINT, signal.SIGTERM)


class SuccessRatioTooLow(DistillationFailed):
    """Too few of the rows were answered for a student to be trained on them."""

    code = "success_ratio_too_low"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One call of `distill`."""

    spec: Spec
    file: str
    settings: Settings
    retry_failed: bool
    watch: Watch
    stopping: list[Callable[[], object]] = field(default_factory=list)

    def stop(self) -> None:
        """Ends what runs in another thread."""
        for each in self.stopping:
            each()


def distill(
    file: str | Path | Mapping[str, Any],
    *,
    data: str | Path | None = None,
    configuration: str | None = None,
    settings: Settings | None = None,
    retry_failed: bool = False,
    watch: Watch = lambda event: None,
) -> Outcome:
    """Runs the distillation that a YAML file, or a mapping with its keys, describes; blocks until the model is there.

    `data` and `configuration` are the data folder and the configuration file, as for `stillroom serve`; `settings`
    stands for both. `retry_failed` asks again for the rows that failed. `watch` sees what happens: sentences,
    `Progress` of the labels, `Training` of the job.

    Raises InvalidJobFile, DistillationFailed and other StillroomErrors, and KeyboardInterrupt when it was interrupted;
    the same call then goes on.
    """
    settings = settings or config.load(configuration, data=str(data) if data is not None else None)
    given = file if isinstance(file, Mapping) else Path(file)
    spec = read(given, settings)
    name = "The distillation" if isinstance(given, Mapping) else str(given.resolve())
    asked = Asked(spec=spec, file=name, settings=settings, retry_failed=retry_failed, watch=watch)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(asked)
    with ThreadPoolExecutor(1) as beside:  # in a notebook, whose own loop is running
        running = beside.submit(_run, asked)
        try:
            return running.result()
        except KeyboardInterrupt:
            asked.stop()
            raise


def _run(asked: Asked) -> Outcome:
    platform = open_platform(_settings(asked), as_server=False)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_interruptible(asked, _distill(asked, platform)))
    finally:
        platform.close()


async def _interruptible(asked: Asked, work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """SIGTERM ends it as Ctrl-C does: by KeyboardInterrupt, with all that is under way kept."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    asked.stopping.append(lambda: loop.call_soon_threadsafe(task.cancel))
    # Signals are the main thread's.
    numbers = STOPPING if threading.current_thread() is threading.main_thread() else ()
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _distill(asked: Asked, platform: Platform) -> Outcome:
    spec, tell = asked.spec, asked.watch
    async with _answering(platform):
        with Journal(platform.settings.folder, spec.name) as journal:
            # 1. Is there something to do, and could a job be made of it?
            for warning in spec.warnings:
                tell(f"Note: {warning}")
            _check(asked, platform)
            await asyncio.to_thread(_open, asked, journal, platform)
            if (made := await asyncio.to_thread(_finished, asked, journal, platform)) is not None:
                return made
            journal.state.outcome = None  # what is new from here on is not in it
            journal.save()
            # 2. Labels.
            if spec.teacher is not None:
                await _label(asked, journal, platform)
            # 3. Files.
            files = await asyncio.to_thread(examples.write, spec, journal, platform)
            tell(f"{files.training_rows} rows to train on, {files.validation_rows} to validate with: {journal.folder}")
            if files.cut_short:
                tell(
                    f"Note: {files.cut_short} answers were cut off (finish_reason length), and are trained on as they are. A "
                    "higher max_tokens lets them end; `curation: {truncated: true}` leaves them out."
                )
            if files.alike:
                tell(f"{files.alike} rows make no pair: teacher and student said the same.")
            # 4. The job.
            trained = await job.see_through(spec, journal, platform, files, tell)
            # 5. What came of it.
            outcome = await asyncio.to_thread(outcome_of, spec, journal, platform, files, trained)
            journal.state.outcome = msgspec.to_builtins(outcome)
            journal.save()
            if not journal.failing:  # else what was answered of them is needed when they are asked about again
                await asyncio.to_thread(
                    platform.kept_answers.forget, auth.DEFAULT_PROJECT, f"distillation/{journal.state.run}/"
                )
            return outcome


def _settings(asked: Asked) -> Settings:
    """The installation's, with the file's endpoint among the teachers, and one try a call: trying again, and how
    often, is the labels' own."""
    settings, spec = asked.settings, asked.spec
    seconds = settings.distillation.timeout_seconds
    gateway = msgspec.structs.replace(settings.gateway, attempts=1, total_seconds=seconds, first_token_seconds=seconds)
    teachers = dict(settings.teachers)
    if spec.teacher is not None and spec.endpoint is not None:
        teachers.setdefault(spec.teacher, spec.endpoint)
    return msgspec.structs.replace(settings, gateway=gateway, teachers=teachers)


@asynccontextmanager
async def _answering(platform: Platform) -> AsyncIterator[None]:
    """What teachers and students need to answer here."""
    platform.models.start()
    tending = asyncio.create_task(platform.hosting.tend())
    try:
        yield
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await platform.gateway.close()
        await platform.hosting.close()
        await platform.models.close()


# --- before anybody is asked ----------------------------------------------------------------------------


def _check(asked: Asked, platform: Platform) -> None:
    """What would stop the run later, said before it costs anything."""
    spec = asked.spec
    if spec.curation.languages is not None and not languages.is_there():
        raise MissingExtra("`curation.languages` needs `pip install 'stillroom[distill]'`.")
    job.check(spec, platform)
    price = platform.settings.teachers[spec.teacher].price if spec.teacher in platform.settings.teachers else None
    if spec.budget_microusd is None or price is None:
        return
    if not (price.input or price.output):
        asked.watch(f'Note: `budget_usd` has no effect: [teachers."{spec.teacher}"] has no `price`.')
    elif price.output and not any(name in spec.inference for name in LIMITS):
        asked.watch(
            f"Note: `budget_usd` needs a limit to every answer, and `inference_parameters` has none: the teacher is asked "
            f"with {limit_of(spec.inference)} {MOST_TOKENS}."
        )


def _open(asked: Asked, journal: Journal, platform: Platform) -> None:
    """The run that the journal holds, or a new one when there is none or the file asks for something else."""
    spec = asked.spec
    asks, makes = asks_of(spec, platform.settings), makes_of(spec)
    if journal.state.asks != asks:
        _begin(asked, journal, platform, asks)
    elif journal.state.makes not in ("", makes):
        asked.watch("The student is made differently than before: the labels are kept, and a new job trains it.")
    journal.load()
    if journal.labels and journal.waiting(retry_failed=False):
        asked.watch(f"Going on with the run of before: {len(journal.labels)} of {len(journal.rows)} rows are labelled.")
    journal.state.makes = makes
    journal.save()


def _begin(asked: Asked, journal: Journal, platform: Platform, asks: str) -> None:
    """Puts another run in the place of the one that is there, if there is one: one of before that asked for just this,
    or a new one. Rows that cannot be read change nothing."""
    before = journal.find(asks)
    fresh = rows.read(asked.spec, platform, Path(asked.file).name) if before is None else []
    if not journal.is_new:
        away = journal.set_away()
        this = "a new run" if before is None else f"the run of before that was kept as {before.name}"
        asked.watch(
            f"The file asks its teacher for something else than the run that is kept as {asked.spec.name}: this is {this}. "
            f"The other one is now {away}; with a `name` of its own each would stay where it is."
        )
    elif before is not None:
        asked.watch(f"Going on with the run that was kept as {before.name}, which asked for the same.")
    if before is None:
        journal.begin(asked.file, asks, fresh)
    else:
        journal.take_back(before)


def _finished(asked: Asked, journal: Journal, platform: Platform) -> Outcome | None:
    """The outcome of a run that has nothing left to do."""
    if journal.state.outcome is None or (asked.retry_failed and journal.failing):
        return None
    outcome = msgspec.convert(journal.state.outcome, Outcome)
    if outcome.asked_as != journal.state.makes or not job.model_is_there(platform, outcome.model):
        return None
    return msgspec.structs.replace(outcome, repeated=True)


# --- labels ----------------------------------------------------------------------------------------------


async def _label(asked: Asked, journal: Journal, platform: Platform) -> None:
    """Raises SuccessRatioTooLow, and what asking raises; whatever it was, the failed rows are listed."""
    spec = asked.spec
    labelling = Labelling(platform, spec, journal, asked.watch)
    try:
        await labelling.run(retry_failed=asked.retry_failed)
    finally:
        with suppress(OSError):
            journal.write_failed()
    if labelling.throttle.fewest < spec.at_once:
        asked.watch(
            f"Note: the teacher was overloaded; at times only {labelling.throttle.fewest} rows were asked for at once, "
            f"instead of {spec.at_once} (request_batch_size)."
        )
    _check_ratio(spec, journal)


def _check_ratio(spec: Spec, journal: Journal) -> None:
    parts = [part for part in (TRAINING, VALIDATION) if any(row.part == part for row in journal.rows)]
    low = [(part, ratio) for part in parts if (ratio := journal.success_ratio(part)) < spec.success_ratio]
    if not low:
        return
    told = " and ".join(f"{_below(ratio, spec.success_ratio)} of the {part} rows" for part, ratio in low)
    reasons = "; ".join(f"{label.row}: {label.failed}" for label in journal.failed()[:3])
    raise SuccessRatioTooLow(
        f"The success ratio is {told}, below min_endpoint_success_ratio {spec.success_ratio:g}; no model is made. "
        f"{len(journal.failed())} rows failed, such as {reasons} All are in {journal.folder / FAILED}. Run the same "
        "command with --retry-failed to ask for these again, or lower min_endpoint_success_ratio.",
        param="min_endpoint_success_ratio",
        success_ratio=low[0][1],
    )


def _below(ratio: float, least: float) -> str:
    """With so many places that it is seen to be less."""
    return next(text for places in (2, 3, 4, 6) if float(text := f"{ratio:.{places}f}") < least or places == 6)
