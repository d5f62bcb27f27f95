"""`stillroom distill run`: a distillation from a file, in this process, with its progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from stillroom import config
from stillroom.cli.options import Json
from stillroom.cli.output import as_json, err, fail, note, say
from stillroom.telemetry import start_logging

if TYPE_CHECKING:
    from stillroom import distillation

PICO = 1_000_000_000_000
LINE_SECONDS = 10.0  # between two lines where no bar can be drawn
INTERRUPTED = 130


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A distillation in YAML, Azure ML's or the short form.")],
    data: Annotated[str | None, typer.Option(help="The data folder. Default: ./stillroom-data.")] = None,
    config_file: Annotated[
        str | None, typer.Option("--config", help="The configuration file. Default: ./stillroom.toml.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again for the rows that failed, and for no others.")
    ] = False,
    json: Json = False,
) -> None:
    """Distill as a file says: ask the teacher for labels, train the student, save it. Needs no server. Run again, it
    goes on where it was interrupted."""
    # Here, because the commands that only talk to a server would take much longer to start.
    from stillroom.distillation import distill  # noqa: PLC0415
    from stillroom.distillation.outcome import lines_of  # noqa: PLC0415

    start_logging("warning")
    settings = config.load(config_file, data=data)
    start_logging("warning" if settings.log_level == "info" else settings.log_level)
    try:
        with _Shown() as shown:
            outcome = distill(file, settings=settings, retry_failed=retry_failed, watch=shown)
    except KeyboardInterrupt:
        fail("Interrupted. What was answered and trained is kept: run the same command to go on.")
        raise typer.Exit(INTERRUPTED) from None
    if outcome.repeated:
        failed = outcome.training.failed + (outcome.validation.failed if outcome.validation else 0)
        rest = (
            f"{failed:,} rows failed, for which `--retry-failed` asks again"
            if failed
            else "there is nothing left to do"
        )
        note(f"This run is finished, and {rest}.")
    if json:
        as_json(msgspec.to_builtins(outcome))
        return
    for line in lines_of(outcome, str(settings.folder)):
        say(line)


class _Shown:
    """What happens, as a bar on a terminal and as lines elsewhere; on standard error, which is not the data."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
        )
        self._bars = Progress(*columns, console=err) if err.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[float, str, int]] = {}

    def __enter__(self) -> _Shown:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, event: str | distillation.Progress | distillation.Training) -> None:
        from stillroom.distillation import Progress as Labelled  # noqa: PLC0415 - as above; it is there by now

        if isinstance(event, str):
            note(event)
        elif isinstance(event, Labelled):
            self._show("labels", event.done, event.total, _told_of_labels(event))
        else:
            self._show("training", event.step, event.steps, _told_of_training(event), is_new=event.status)

    def _show(self, what: str, done: int, total: int | None, told: str, *, is_new: str = "") -> None:
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total, told="")
            self._bars.update(self._tasks[what], completed=done, total=total, told=told)
            return
        at, before, so_far = self._said.get(what, (0.0, "-", -1))
        is_due = done == total or time.monotonic() - at > LINE_SECONDS
        if is_new != before or (is_due and done != so_far):
            self._said[what] = (time.monotonic(), is_new, done)
            note(f"{what}: {done:,}/{total if total is not None else '?'} {told}")


def _told_of_labels(event: distillation.Progress) -> str:
    left = "" if event.seconds_left is None or event.done == event.total else f", {_duration(event.seconds_left)} left"
    return (
        f"rows, {event.failed:,} failed, {event.rows_per_second:.1f} rows/s, {event.at_once} at once, "
        f"{event.cost_picousd / PICO:.4f} USD{left}"
    )


def _told_of_training(event: distillation.Training) -> str:
    loss = "" if event.loss is None else f", loss {event.loss:.4f}"
    status = "checking the files" if event.status == "validating" else event.status
    return f"steps, {status}{loss}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
