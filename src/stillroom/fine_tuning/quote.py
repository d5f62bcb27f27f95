"""What a fine-tuning job will cost and how long it will take, told before it runs, and compared after.

A quote is made of what the trainer measured on the job's own files (`Measurement`); here that becomes
minutes with an error bar and money, is kept, and is found again for the job. Owns the table `quotes`;
does not know how one measures.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Row,
    String,
    Table,
    Text,
    func,
    insert,
    or_,
    select,
)

from stillroom import catalog, ids
from stillroom.billing import Entry, Kind, cost_picousd
from stillroom.billing.break_even import BreakEven
from stillroom.billing.subjects import cost_of
from stillroom.config import Price, Settings, Student
from stillroom.errors import NotFound, shortened
from stillroom.fine_tuning.method import Hyperparameters
from stillroom.fine_tuning.order import Order
from stillroom.fine_tuning.table import Job, get_job, joined
from stillroom.jobs import State
from stillroom.jobs import jobs as queue
from stillroom.serving.savings import break_even_of
from stillroom.store.database import Database
from stillroom.store.tables import RowId, as_json, metadata
from stillroom.store.writer import Writer
from stillroom.student.hyperparameters import MethodType

HOURS_A_MONTH = 730
# Of the expected time: a machine is seldom as busy later as it was in a few seconds of measuring.
FLOOR = 0.2
BUSY_FLOOR = 0.5
CHECKPOINTS_KEPT = 3  # the trainer writes one at the end of each of the last epochs
# Student's t at 90 % (two-sided), by degrees of freedom from 1.
T = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81, 1.80, 1.78, 1.77, 1.76, 1.75)
T_OF_MANY = 1.70

quotes = Table(
    "quotes",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("model", String(256), nullable=False),
    Column("training_file", String(64)),
    # Of the training file's bytes: the same rows are found again in another file.
    Column("training_digest", String(64), nullable=False),
    Column("quote", Text, nullable=False),
    Index("ix_quotes_project_number", "project", "number"),
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What the trainer says of a run it has opened and begun. Times are seconds."""

    hyperparameters: Hyperparameters
    """The numbers it has chosen."""
    total_steps: int
    examples: int
    valid_examples: int
    tokens_per_epoch: int
    trained_tokens: int
    setup_seconds: float
    """From starting the process to the first step: loading the base, reading and encoding the files."""
    begin_seconds: float = 0.0
    """For what the method looks at before the first step."""
    step_seconds: list[float]
    validation_batch_seconds: float | None
    validation_batches: int
    checkpoint_seconds: float
    load: float
    """Processes that wanted to run, for each core, in the minute before; above 1 they took turns."""
    notes: list[str]
    dropped_prompt: dict[str, Any] | None = None
    """The system prompt that the rows are trained without, and how many `tokens` a call saves."""


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """`low` to `high` is where nine jobs in ten should end: the spread of the measured steps says how
    far their mean and their sum may be off, and less than a fifth either way is never claimed; less than
    a half, when the machine was busy with other things while it was measured."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Quote:
    """`asked` is what the job would be asked for, `numbers` what it would then be told. The training
    file is None when the rows were selected for the quote alone."""

    id: str
    created_at: int
    model: str
    training_file: str | None
    asked: Hyperparameters
    numbers: Hyperparameters
    examples: int
    valid_examples: int
    tokens_per_epoch: int
    steps: int
    trained_tokens: int
    cost_picousd: int
    hosting_month_picousd: int
    minutes: Minutes
    measured: str
    break_even: BreakEven | None
    warnings: list[str]
    # Quotes from before there were methods do not say.
    method: MethodType = MethodType.SUPERVISED
    teacher: str | None = None
    dropped_prompt_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Actual:
    """What a job that has succeeded came to."""

    trained_tokens: int
    cost_picousd: int
    minutes: float | None
    """Of its training process, pauses and waiting not counted; None for jobs older than this count."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A job, the quote that was made for it, if one was, and what it came to, once it has succeeded."""

    job: Job
    quote: Quote | None
    actual: Actual | None


class Quotes:
    """The quotes of all projects. All methods block; none is for the event loop."""

    def __init__(self, settings: Settings, database: Database, writer: Writer) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self.measuring = asyncio.Lock()
        """Whoever measures holds it: two at a time would each see a machine that the other makes slow."""

    def make(
        self,
        project: int,
        order: Order,
        base: str,
        measurement: Measurement,
        *,
        is_kept: bool,
        digest: str,
        teachers: Sequence[str],
        warnings: Sequence[str],
        now: int,
    ) -> Quote:
        """The quote of what was measured, kept for the job that may follow. `is_kept`: whether the
        training file stays; `teachers`: whose calls the student would answer."""
        price = self._settings.students.get(base, Student()).price
        training = Entry(project=project, kind=Kind.TRAINING, model=base, trained_tokens=measurement.trained_tokens)
        month = Entry(project=project, kind=Kind.HOSTING, model=base, hosted_seconds=HOURS_A_MONTH * 3600)
        cost = cost_picousd(training, price)
        quote = Quote(
            id=ids.random_id("quote-"),
            created_at=now,
            model=order.model,
            training_file=order.training_file if is_kept else None,
            method=order.method,
            teacher=order.teacher,
            dropped_prompt_tokens=(measurement.dropped_prompt or {}).get("tokens"),
            asked=order.hyperparameters,
            numbers=measurement.hyperparameters,
            examples=measurement.examples,
            valid_examples=measurement.valid_examples,
            tokens_per_epoch=measurement.tokens_per_epoch,
            steps=measurement.total_steps,
            trained_tokens=measurement.trained_tokens,
            cost_picousd=cost,
            hosting_month_picousd=cost_picousd(month, price),
            minutes=minutes_of(measurement, self._settings.training.checkpoint_seconds),
            measured=_how(measurement),
            break_even=self._break_even(project, base, teachers, cost, now) if teachers else None,
            warnings=[*warnings, *self._warnings(base, price, measurement), *measurement.notes],
        )
        self._keep(project, quote, digest)
        return quote

    def get(self, project: int, quote_id: str) -> Quote:
        """Raises NotFound when the project has no such quote."""
        query = select(quotes.c.quote).where(quotes.c.project == project, quotes.c.id == quote_id)
        with self._database.read() as connection:
            text = connection.execute(query).scalar()
        if text is None:
            raise NotFound(f"No such quote: {shortened(quote_id)}", param="id")
        return _quote(text)

    def is_known(self, project: int, name: str) -> bool:
        """Whether someone answers, or may answer, under the name."""
        if name in self._settings.teachers or name in self._settings.students:
            return True
        with self._database.read() as connection:
            tuned = catalog.find_model(connection, project, name)
            return tuned is not None or catalog.find_deployment(connection, project, name) is not None

    def made_for(self, project: int, jobs: Sequence[Job]) -> dict[str, Quote]:
        """The quotes that were made for the jobs, by the job's id: see `compare`."""
        with self._database.read() as connection:
            return _made_for(connection, project, jobs)

    def compare(self, project: int, job_id: str) -> Comparison:
        """The job beside its quote: the newest of the same model, rows and hyperparameters, made before
        the job was. Raises NotFound when the project has no such job."""
        with self._database.read() as connection:
            job = get_job(connection, project, job_id)
            quote = _made_for(connection, project, [job]).get(job.id)
            if job.state is not State.SUCCEEDED or job.trained_tokens is None or job.finished_at is None:
                return Comparison(job=job, quote=quote, actual=None)
            at = job.finished_at
            cost = cost_of(connection, project, Kind.TRAINING, job.id, since=at - 1, until=at + 1)
        minutes = job.running_milliseconds / 60_000 if job.running_milliseconds is not None else None
        actual = Actual(trained_tokens=job.trained_tokens, cost_picousd=cost or 0, minutes=minutes)
        return Comparison(job=job, quote=quote, actual=actual)

    def _break_even(self, project: int, base: str, teachers: Sequence[str], cost: int, now: int) -> BreakEven:
        return break_even_of(
            self._settings,
            self._database,
            project,
            teachers=teachers,
            student=base,
            now=now,
            training_picousd=cost,
        )

    def _warnings(self, base: str, price: Price, measurement: Measurement) -> list[str]:
        found = []
        if not price.training:
            found.append(f"No training price is configured for '{base}'; its training is counted at 0.")
        with self._database.read() as connection:
            running = joined().where(queue.c.state == State.RUNNING.value).subquery()
            if connection.execute(select(func.count()).select_from(running)).scalar():
                found.append("A fine-tuning job was running while this was measured; alone it may go faster.")
        if self._settings.training.processes > 1:
            found.append(
                f"This was measured in one process; jobs here are trained by {self._settings.training.processes} and may be "
                "faster."
            )
        if measurement.load > 1:
            found.append(
                f"The machine was busy while this was measured ({measurement.load:.1f} processes for each core), so the "
                "minutes may be far off."
            )
        return found

    def _keep(self, project: int, quote: Quote, digest: str) -> None:
        row = {
            "id": quote.id,
            "project": project,
            "created_at": quote.created_at,
            "model": quote.model,
            "training_file": quote.training_file,
            "training_digest": digest,
            "quote": as_json(quote),
        }
        self._writer.write(lambda connection: connection.execute(insert(quotes).values(**row)))


def minutes_of(measured: Measurement, checkpoint_seconds: float) -> Minutes:
    """How long the measured run will take; a state is saved every `checkpoint_seconds`, too."""
    steps = measured.total_steps
    mean = statistics.mean(measured.step_seconds)
    stepping = steps * mean + measured.validation_batches * (measured.validation_batch_seconds or 0.0)
    epochs = measured.hyperparameters.n_epochs
    assert isinstance(epochs, int)
    saves = min(epochs, CHECKPOINTS_KEPT) + stepping // max(checkpoint_seconds, mean)
    expected = measured.setup_seconds + measured.begin_seconds + stepping + saves * measured.checkpoint_seconds
    count = len(measured.step_seconds)
    spread = statistics.stdev(measured.step_seconds) if count > 1 else mean
    # The mean of `count` steps may be off, and so may the sum of all steps around their true mean.
    doubt = _t(count - 1) * spread * steps * (1 / count + 1 / steps) ** 0.5
    margin = max(doubt, (BUSY_FLOOR if measured.load > 1 else FLOOR) * expected)
    # However far steps may be off, nothing ends before it has begun.
    low = max(expected - margin, measured.setup_seconds / 2)
    return Minutes(expected=expected / 60, low=min(low, expected) / 60, high=(expected + margin) / 60)


def _made_for(connection: Connection, project: int, jobs: Sequence[Job]) -> dict[str, Quote]:
    row, found = quotes.c, dict[str, Quote]()
    same_rows = [row.training_file.in_([job.training_file for job in jobs])]
    if digests := [job.training_digest for job in jobs if job.training_digest is not None]:
        same_rows.append(row.training_digest.in_(digests))
    query = select(quotes).where(row.project == project, row.model.in_({job.model for job in jobs}), or_(*same_rows))
    for made in connection.execute(query.order_by(row.number.desc())):
        candidates = [job for job in jobs if job.id not in found and _is_of(made, job)]
        quote = _quote(made.quote) if candidates else None
        # A job has what it was asked for until it starts, and then the numbers instead.
        found |= {job.id: quote for job in candidates if quote and _is_for(quote, job)}
    return found


def _is_for(quote: Quote, job: Job) -> bool:
    """Whether the quote is of what the job was asked to learn by."""
    same = quote.method is job.method and quote.teacher == job.teacher
    return same and job.hyperparameters in (quote.asked, quote.numbers)


def _is_of(made: Row[Any], job: Job) -> bool:
    """Whether a quote is of the job's model and rows, and was made before it."""
    same_rows = made.training_file == job.training_file or made.training_digest == job.training_digest
    return bool(made.model == job.model and made.created_at <= job.created_at and same_rows)


def _t(freedom: int) -> float:
    return T[max(freedom, 1) - 1] if freedom <= len(T) else T_OF_MANY


def _how(measured: Measurement) -> str:
    count, seconds = len(measured.step_seconds), sum(measured.step_seconds)
    return f"{count} steps on this machine, which took {seconds:.1f} seconds"


def _quote(text: str) -> Quote:
    return msgspec.json.decode(text, type=Quote)
