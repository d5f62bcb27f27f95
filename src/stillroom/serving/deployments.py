"""Deployments come and go: a name is pointed at a model, the model is loaded, the state says so."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

from stillroom import catalog
from stillroom.catalog import Deployment, DeploymentState
from stillroom.config import Price, Settings
from stillroom.errors import InvalidRequest, StillroomError, shortened
from stillroom.serving.hosting import Hosting, Weights
from stillroom.serving.models import Models
from stillroom.store.database import Database
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

NAME_LETTERS = 64
# What stands in an address as it is: deployments are reached by one.
NAME = re.compile(rf"(?!\.{{1,2}}$)[A-Za-z0-9.:_-]{{1,{NAME_LETTERS}}}")


class Deployments:
    """Makes, lists and removes deployments. Lives on the event loop."""

    def __init__(
        self, settings: Settings, database: Database, writer: Writer, hosting: Hosting, models: Models
    ) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._hosting = hosting
        self._models = models
        self._making: set[asyncio.Task[None]] = set()

    async def put(self, project: int, name: str, model: str, extra: Mapping[str, Any]) -> tuple[Deployment, bool]:
        """Points the name at a model, which is then loaded; also whether the name is new.

        Raises InvalidRequest when the model is no fine-tuned one, no base with weights and no teacher.
        """
        _check_name(name)
        student = await asyncio.to_thread(self._models.find_student, project, model)
        if model in self._settings.teachers:
            student = None  # a teacher of that name is called first, too
        elif student is None:
            raise InvalidRequest(
                f"The model '{model}' cannot be deployed: it is no fine-tuned model, no base model with weights, and "
                "no teacher here.",
                param="properties.model.name",
                code="DeploymentModelNotSupported",
            )
        state = DeploymentState.CREATING if student else DeploymentState.SUCCEEDED
        old = await asyncio.to_thread(self._find, project, name)
        made = await self._writer.write_soon(
            lambda c: catalog.put_deployment(c, project, name, model=model, state=state, extra=extra)
        )
        if student is not None:
            self._make(project, name, student, model)
        return made, old is None

    async def get(self, project: int, name: str) -> Deployment:
        """Raises NotFound when there is none."""

        def read() -> Deployment:
            with self._database.read() as connection:
                return catalog.get_deployment(connection, project, name)

        return await asyncio.to_thread(read)

    async def of_project(self, project: int) -> list[Deployment]:
        def read() -> list[Deployment]:
            with self._database.read() as connection:
                return catalog.list_deployments(connection, project)

        return await asyncio.to_thread(read)

    async def delete(self, project: int, name: str) -> bool:
        """Removes the deployment and frees its model's memory; False when there was none."""
        old = await asyncio.to_thread(self._find, project, name)
        gone = await self._writer.write_soon(lambda c: catalog.delete_deployment(c, project, name))
        student = await asyncio.to_thread(self._models.find_student, project, old.model) if old else None
        if student is not None and not any(d.model == old.model for d in await self.of_project(project) if old):
            await self._hosting.unload(student[0])
        return gone

    async def finish_interrupted(self) -> None:
        """Goes on making the deployments that the last run of the server left unfinished."""

        def read() -> list[tuple[int, str, str]]:
            with self._database.read() as connection:
                return catalog.unfinished_deployments(connection)

        for project, name, model in await asyncio.to_thread(read):
            student = await asyncio.to_thread(self._models.find_student, project, model)
            if student is not None:
                self._make(project, name, student, model)

    async def close(self) -> None:
        for task in self._making:
            task.cancel()
        await asyncio.gather(*self._making, return_exceptions=True)

    def _make(self, project: int, name: str, student: tuple[Weights, Price], model: str) -> None:
        task = asyncio.create_task(self._load(project, name, student, model))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _load(self, project: int, name: str, student: tuple[Weights, Price], model: str) -> None:
        state, problem = DeploymentState.SUCCEEDED, None
        try:
            await self._hosting.upstream(*student)
        except StillroomError as error:
            log.warning("deployment %s failed: %s", name, error.message)
            state, problem = DeploymentState.FAILED, error.message
        await self._writer.write_soon(lambda c: catalog.set_deployment_state(c, project, name, model, state, problem))

    def _find(self, project: int, name: str) -> Deployment | None:
        with self._database.read() as connection:
            return catalog.find_deployment(connection, project, name)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"Invalid deployment name '{shortened(name)}': expected 1 to {NAME_LETTERS} letters (a-z, A-Z), digits, "
            "'.', ':', '_' or '-', and not '.' or '..' alone.",
            param="name",
        )
