"""The price book: what every name that can be called, trained or hosted is counted at, and why.

Prices are configuration: a fine-tuned model costs what its base costs, a deployment what its model
costs. Nothing here is a provider's list; what is not configured is counted at nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from stillroom import catalog
from stillroom.config import SCRATCH, Price, Settings, Student

UNPRICED = "none is configured; counted at 0"


class Sort(enum.StrEnum):
    """What a name stands for. A student is a base model that can be fine-tuned."""

    TEACHER = "teacher"
    STUDENT = "student"
    MODEL = "model"
    DEPLOYMENT = "deployment"


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A name and its price. `of`: a model's base, a deployment's model. `source`: where it is configured."""

    name: str
    sort: Sort
    of: str | None
    price: Price
    source: str


def price_book(settings: Settings, connection: Connection, project: int) -> list[Priced]:
    """Teachers, students, the project's models and deployments, each by name."""
    teachers = [
        Priced(
            name=name, sort=Sort.TEACHER, of=None, price=teacher.price, source=_source("teachers", name, teacher.price)
        )
        for name, teacher in sorted(settings.teachers.items())
    ]
    students = [_student(settings, name) for name in sorted({SCRATCH, *settings.students})]
    models = [
        replace(_student(settings, model.base), name=model.openai_name, sort=Sort.MODEL, of=model.base)
        for model in catalog.list_models(connection, project)
    ]
    known = {priced.name: priced for priced in (*students, *models, *teachers)}
    deployments = []
    for deployment in catalog.list_deployments(connection, project):
        model = catalog.find_model(connection, project, deployment.model)
        answers = known.get(model.openai_name if model else deployment.model)
        price, source = (answers.price, answers.source) if answers else (Price(), f"{deployment.model} is gone")
        deployments.append(
            Priced(name=deployment.name, sort=Sort.DEPLOYMENT, of=deployment.model, price=price, source=source)
        )
    return [*teachers, *students, *models, *deployments]


def _student(settings: Settings, name: str) -> Priced:
    price = settings.students.get(name, Student()).price
    return Priced(name=name, sort=Sort.STUDENT, of=None, price=price, source=_source("students", name, price))


def _source(table: str, name: str, price: Price) -> str:
    return UNPRICED if price == Price() else f'[{table}."{name}"]'
