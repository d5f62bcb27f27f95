"""A called name -> who answers it: a deployment's model, else a teacher, else a fine-tuned model, else a base.

A deployment wins over a teacher of the same name: that is how a student takes over without a
change in the caller's code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from stillroom import catalog
from stillroom.chat import Upstream
from stillroom.config import SCRATCH, GatewaySettings, Price, Settings, Student
from stillroom.errors import ModelNotFound, StudentUnavailable, shortened
from stillroom.serving.hosting import Hosting, Weights, base_weights
from stillroom.store.database import Database
from stillroom.teachers.http import HttpUpstream, open_session, teacher_upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Who answers a call: the upstream, the model's name in its words, and what its tokens cost."""

    upstream: Upstream
    upstream_model: str
    price: Price
    model: str
    """The teacher's or student's name, for the ledger."""
    top_logprobs: int = 0
    """How many alternatives at each token of stored answers are to be kept."""
    dropped_prompt: str | None = None
    """The system prompt that a student was trained without: it is asked without it."""
    dropped_prompt_tokens: int = 0
    """How many tokens a call saves by that."""


class Models:
    """Resolves names for the gateway. Lives on the event loop."""

    def __init__(self, settings: Settings, database: Database, hosting: Hosting) -> None:
        self._settings = settings
        self._database = database
        self._hosting = hosting
        self._session: aiohttp.ClientSession | None = None
        self._teachers: Mapping[str, HttpUpstream] = {}
        self._warned: set[str] = set()

    def start(self) -> None:
        """Opens the connections to teachers."""
        limits: GatewaySettings = self._settings.gateway
        self._session = open_session(limits)
        self._teachers = {
            name: teacher_upstream(name, teacher, self._session, limits)
            for name, teacher in self._settings.teachers.items()
        }

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def resolve(self, project: int, name: str, *, by_model_name: bool) -> Target:
        """Who answers under the name. `by_model_name`: a fine-tuned model, and a base with weights of its
        own, also answer undeployed, as on OpenAI's API. Raises ModelNotFound; a student that was not
        loaded is loaded first."""
        # A teacher's name is looked up too: a deployment may have taken it over.
        deployment, model = await asyncio.to_thread(self._look_up, project, name)
        if deployment is not None:
            return await self._deployed(project, deployment, model)
        if name in self._teachers:
            return self._teacher(name)
        student = self._student(project, name, model)
        if by_model_name and student is not None:
            return await self._hosted(*student, model)
        if name == SCRATCH:
            raise ModelNotFound(
                f"`{name}` is a base model of random weights, which knows no words before its job: fine-tune it, and "
                "call what that makes.",
                param="model",
            )
        raise ModelNotFound(
            f"The model `{shortened(name)}` does not exist or you do not have access to it.", param="model"
        )

    def teacher(self, name: str) -> Target:
        """The configured teacher, even where a deployment answers in its place. Raises ModelNotFound."""
        if name not in self._teachers:
            known = ", ".join(sorted(self._teachers)) or "none"
            raise ModelNotFound(f"'{shortened(name)}' is no teacher. The configuration has: {known}.", param="name")
        return self._teacher(name)

    def find_student(self, project: int, name: str) -> tuple[Weights, Price] | None:
        """The weights that a fine-tuned model's or base's name stands for, and their price; None when it
        stands for none. Blocks."""
        with self._database.read() as connection:
            return self._student(project, name, catalog.find_model(connection, project, name))

    def _student(self, project: int, name: str, model: catalog.Model | None) -> tuple[Weights, Price] | None:
        if model is not None:
            return self._hosting.tuned_weights(model), self._settings.students.get(model.base, Student()).price
        student = self._settings.students.get(name)
        return (base_weights(project, name, student), student.price) if student and student.path else None

    def _look_up(self, project: int, name: str) -> tuple[catalog.Deployment | None, catalog.Model | None]:
        with self._database.read() as connection:
            return catalog.look_up(connection, project, name)

    async def _deployed(self, project: int, deployment: catalog.Deployment, model: catalog.Model | None) -> Target:
        if deployment.state is catalog.DeploymentState.FAILED:
            raise StudentUnavailable(f"The deployment '{deployment.name}' has failed: {deployment.error}")
        self._warn_of_clash(deployment.name)
        if model is None and deployment.model in self._teachers:
            return self._teacher(deployment.model)
        student = self._student(project, deployment.model, model)
        if student is not None:
            return await self._hosted(*student, model)
        raise ModelNotFound(
            f"The deployment '{deployment.name}' points to '{deployment.model}', which is gone.", param="model"
        )

    def _teacher(self, name: str) -> Target:
        teacher = self._settings.teachers[name]
        return Target(
            upstream=self._teachers[name],
            upstream_model=teacher.model or name,
            price=teacher.price,
            model=name,
            top_logprobs=teacher.top_logprobs,
        )

    async def _hosted(self, weights: Weights, price: Price, model: catalog.Model | None) -> Target:
        upstream = await self._hosting.upstream(weights, price)
        return Target(
            upstream=upstream,
            upstream_model=weights.name,
            price=price,
            model=weights.name,
            dropped_prompt=None if model is None else model.dropped_prompt,
            dropped_prompt_tokens=(0 if model is None else model.dropped_prompt_tokens) or 0,
        )

    def _warn_of_clash(self, name: str) -> None:
        if name in self._teachers and name not in self._warned:
            self._warned.add(name)
            log.warning("The deployment '%s' answers instead of the teacher of the same name.", name)
