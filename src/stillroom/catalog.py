"""The names of fine-tuned models and deployments, and what each stands for.

A fine-tuned model has a name in each dialect's form; both always work. A deployment maps a name of
its owner's choice to a model. Owns the tables `models` and `deployments`.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Integer,
    RowMapping,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from stillroom.errors import Conflict, NotFound, shortened
from stillroom.store.tables import RowId, metadata

models = Table(
    "models",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("openai_name", String(256), nullable=False),
    Column("azure_name", String(256), nullable=False),
    # The base it descends from, through however many fine-tunes.
    Column("base", String(256), nullable=False),
    Column("job", String(64), nullable=False),
    # NULL for the final model, the training step for a checkpoint.
    Column("step", Integer),
    Column("blob", String(128), nullable=False),
    # The system prompt that it was trained without, and how many tokens a call saves by leaving it out.
    Column("dropped_prompt", Text),
    Column("dropped_prompt_tokens", Integer),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("project", "openai_name"),
    UniqueConstraint("project", "azure_name"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("name", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text),
    # What the caller sent besides the model (sku, tags, options), given back as it came.
    Column("extra", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("project", "name"),
)


# Every chat looks a name up: built once, because building a statement costs more than running it.
_FIND_DEPLOYMENT = select(deployments).where(
    deployments.c.project == bindparam("of"), deployments.c.name == bindparam("called")
)
_FIND_MODEL = select(models).where(
    models.c.project == bindparam("of"),
    or_(models.c.openai_name == bindparam("name"), models.c.azure_name == bindparam("name")),
)


class DeploymentState(enum.StrEnum):
    """ARM's provisioning states, as far as a deployment here can be in them."""

    CREATING = "Creating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A fine-tuned model, or a checkpoint of one, whose weights lie in the blob."""

    number: int
    project: int
    openai_name: str
    azure_name: str
    base: str
    job: str
    step: int | None
    blob: str
    created_at: int
    dropped_prompt: str | None = None
    """The system prompt that it knows by heart: it was trained without, and is asked without."""
    dropped_prompt_tokens: int | None = None

    @property
    def names(self) -> tuple[str, str]:
        """Both that it is called by."""
        return self.openai_name, self.azure_name


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A name that answers chat completions through a model."""

    name: str
    model: str
    state: DeploymentState
    error: str | None
    extra: dict[str, Any]
    created_at: int
    updated_at: int


def add_model(
    connection: Connection,
    *,
    project: int,
    openai_name: str,
    azure_name: str,
    base: str,
    job: str,
    step: int | None,
    blob: str,
    dropped_prompt: str | None = None,
    dropped_prompt_tokens: int | None = None,
) -> None:
    """Names new weights. Does nothing when the name is there: a job that was interrupted says it twice.

    `dropped_prompt`: the system prompt that they were trained without; a call that has it saves so many tokens."""
    if find_model(connection, project, openai_name) is None:
        names = {"openai_name": openai_name, "azure_name": azure_name}
        row = {**names, "project": project, "base": base, "job": job, "step": step, "blob": blob}
        prompt = {"dropped_prompt": dropped_prompt, "dropped_prompt_tokens": dropped_prompt_tokens}
        connection.execute(insert(models).values(**row, **prompt, created_at=int(time.time())))


def find_model(connection: Connection, project: int, name: str) -> Model | None:
    """The model of that name in either form; None when there is none."""
    row = connection.execute(_FIND_MODEL, {"of": project, "name": name}).mappings().first()
    return Model(**row) if row else None


def list_models(connection: Connection, project: int) -> list[Model]:
    """Final models and checkpoints, oldest first."""
    rows = connection.execute(select(models).where(models.c.project == project).order_by(models.c.number))
    return [Model(**row) for row in rows.mappings()]


def models_by_name(connection: Connection, project: int) -> dict[str, Model]:
    """The project's models by each of their names."""
    return {name: model for model in list_models(connection, project) for name in model.names}


def delete_model(connection: Connection, project: int, name: str) -> Model:
    """Forgets a model; its weights are the caller's to delete. Raises Conflict while it is deployed."""
    model = find_model(connection, project, name)
    if model is None:
        raise NotFound(f"The model '{shortened(name)}' does not exist.", param="model", code="model_not_found")
    using = [d.name for d in list_deployments(connection, project) if d.model in (model.openai_name, model.azure_name)]
    if using:
        raise Conflict(
            f"The model '{name}' is deployed as {', '.join(using)}; delete that deployment first.", param="model"
        )
    connection.execute(delete(models).where(models.c.number == model.number))
    return model


def put_deployment(
    connection: Connection, project: int, name: str, *, model: str, state: DeploymentState, extra: Mapping[str, Any]
) -> Deployment:
    """Makes the deployment, or points an existing one at the model."""
    now = int(time.time())
    values = {"model": model, "state": state.value, "error": None, "updated_at": now}
    text = msgspec.json.encode(extra).decode()
    same = (deployments.c.project == project, deployments.c.name == name)
    changed = connection.execute(update(deployments).where(*same).values(**values, extra=text)).rowcount
    if not changed:
        connection.execute(insert(deployments).values(**values, extra=text, project=project, name=name, created_at=now))
    return get_deployment(connection, project, name)


def set_deployment_state(
    connection: Connection, project: int, name: str, model: str, state: DeploymentState, error: str | None
) -> None:
    """Ends the making of a deployment, unless it has been pointed elsewhere meanwhile."""
    same = (deployments.c.project == project, deployments.c.name == name, deployments.c.model == model)
    connection.execute(update(deployments).where(*same).values(state=state.value, error=error))


def find_deployment(connection: Connection, project: int, name: str) -> Deployment | None:
    row = connection.execute(_FIND_DEPLOYMENT, {"of": project, "called": name}).mappings().first()
    return _deployment(row) if row else None


def look_up(connection: Connection, project: int, name: str) -> tuple[Deployment | None, Model | None]:
    """The deployment of that name, and the fine-tuned model that it, or else the name itself, stands for."""
    deployment = find_deployment(connection, project, name)
    return deployment, find_model(connection, project, deployment.model if deployment else name)


def get_deployment(connection: Connection, project: int, name: str) -> Deployment:
    """Raises NotFound when the project has no such deployment."""
    found = find_deployment(connection, project, name)
    if found is None:
        raise NotFound(
            f"The deployment '{shortened(name)}' does not exist.", param="deployment", code="DeploymentNotFound"
        )
    return found


def list_deployments(connection: Connection, project: int) -> list[Deployment]:
    """By name."""
    query = select(deployments).where(deployments.c.project == project).order_by(deployments.c.name)
    return [_deployment(row) for row in connection.execute(query).mappings()]


def unfinished_deployments(connection: Connection) -> list[tuple[int, str, str]]:
    """(project, name, model) of deployments whose making was interrupted."""
    query = select(deployments).where(deployments.c.state == DeploymentState.CREATING.value)
    return [(row.project, row.name, row.model) for row in connection.execute(query)]


def delete_deployment(connection: Connection, project: int, name: str) -> bool:
    """False when there was none."""
    statement = delete(deployments).where(deployments.c.project == project, deployments.c.name == name)
    return connection.execute(statement).rowcount == 1


def _deployment(row: RowMapping) -> Deployment:
    return Deployment(
        name=row["name"],
        model=row["model"],
        state=DeploymentState(row["state"]),
        error=row["error"],
        extra=msgspec.json.decode(row["extra"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
