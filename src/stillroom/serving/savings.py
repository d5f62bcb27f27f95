"""Names -> break-even: which ledger rows a teacher's name stands for, and what a student's name costs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from stillroom import catalog
from stillroom.billing import Kind
from stillroom.billing.break_even import BreakEven, break_even, traffic_of
from stillroom.billing.subjects import cost_of
from stillroom.config import SCRATCH, Price, Settings, Student
from stillroom.errors import ModelNotFound, shortened
from stillroom.store.database import Database


def break_even_of(
    settings: Settings,
    database: Database,
    project: int,
    *,
    teachers: Sequence[str],
    student: str,
    now: int,
    training_picousd: int | None = None,
) -> BreakEven:
    """When `student` (a base, a fine-tuned model or a deployment of one) has earned its training by
    answering instead of `teachers` (teachers, deployments or models).

    Without `training_picousd`, what the student's own job came to; nothing for a base. Raises
    ModelNotFound for a student that is none.
    """
    with database.read() as connection:
        price, cost = _student(settings, connection, project, student, now)
        names = {answering(settings, connection, project, teacher) for teacher in teachers}
    traffic = traffic_of(database, project, names, now)
    return break_even(traffic, price, training_picousd=cost if training_picousd is None else training_picousd)


def answering(settings: Settings, connection: Connection, project: int, name: str) -> str:
    """The name that the ledger counts a called name's answers under. One that nobody knows is its own:
    a teacher that was taken out of the configuration still has its traffic."""
    if name in settings.teachers:
        return name
    deployment, tuned = catalog.look_up(connection, project, name)
    return tuned.openai_name if tuned else deployment.model if deployment else name


def _student(settings: Settings, connection: Connection, project: int, name: str, now: int) -> tuple[Price, int]:
    """Its price, and what its training came to."""
    deployment, tuned = catalog.look_up(connection, project, name)
    model = deployment.model if deployment else name
    base = tuned.base if tuned else model
    if tuned is None and base != SCRATCH and base not in settings.students:
        raise ModelNotFound(
            f"'{shortened(name)}' is no student: no base, fine-tuned model or deployment of one.", param="student"
        )
    price = settings.students.get(base, Student()).price
    if tuned is None:
        return price, 0
    # A job is counted with its last model; a checkpoint is older than that.
    return price, cost_of(connection, project, Kind.TRAINING, tuned.job, since=tuned.created_at - 1, until=now + 1) or 0
