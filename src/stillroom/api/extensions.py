"""What is stillroom's own, below `/v1/stillroom`: selections and keys; costs are in `costs.py`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import msgspec

from stillroom import bodies
from stillroom.api import files as files_api
from stillroom.api.filters import SelectionFilter, filter_of, numbers_of
from stillroom.api.wire import Call, Reply, unless_caller_leaves
from stillroom.completions.table import Filter
from stillroom.curation import Curation
from stillroom.datasets import selection
from stillroom.datasets.answers import Reasoning, Style
from stillroom.errors import InvalidRequest
from stillroom.graders import order
from stillroom.worker.curate import BestOf, Wish, curated

T = TypeVar("T")


class BestOfRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the best of several answers to the same prompt is known: by the number that each has in its `metadata`
    under this key, or by the score of a `grader` (such as a score_model)."""

    metadata: str | None = None
    grader: dict[str, Any] | None = None


class CurationRequest(Curation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows are left out. `true` switches a check on; everything is off at first. docs/curation.md says more."""

    best_of: BestOfRequest | None = None


class SelectionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give `filter`, `ids`, or both. `validation_fraction` of the rows, chosen by `seed`, go to a
    validation file instead of the training file. With `curation`, even an empty one, there is a `report`. A
    `dry_run` makes no files: it counts, and its report says what each check would leave out. `soft_labels` adds to each
    answer what its teacher weighed at each token, as far as that is kept; `reasoning` says whether what a teacher
    thought before it answered stays."""

    filter: SelectionFilter | None = None
    ids: list[str] | None = None
    validation_fraction: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    seed: int = 0
    filename: str | None = None
    curation: CurationRequest | None = None
    reasoning: Reasoning = Reasoning.STRIP
    soft_labels: bool = False
    dry_run: bool = False

    @property
    def style(self) -> Style:
        return Style(reasoning=self.reasoning, soft_labels=self.soft_labels)


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name` says later what the key is for."""

    name: str


async def select(call: Call) -> Reply:
    """Make a training file of stored completions."""
    asked = body_as(call, SelectionRequest)
    work = selected(call, asked)
    # Nobody else needs what a dry run finds.
    made = await (unless_caller_leaves(call.receive, work) if asked.dry_run else work)
    return Reply(
        body={
            "object": "stillroom.selection",
            "training_file": files_api.shown(made.training_file) if made.training_file else None,
            "validation_file": files_api.shown(made.validation_file) if made.validation_file else None,
            "training_examples": made.training_examples,
            "validation_examples": made.validation_examples,
            "skipped": made.skipped,
            "soft_labels": made.soft_labels,
            "warnings": made.warnings,
            "report": msgspec.json.decode(made.report) if made.report is not None else None,
        }
    )


def show_report(call: Call) -> Reply:
    """Retrieve the report of the curation that made a file."""
    return Reply(body=msgspec.json.decode(call.platform.files.report(call.project, call.parameters["id"])))


async def selected(call: Call, asked: SelectionRequest, *, only_counted: bool = False) -> selection.Selection:
    """The selection that a request describes, its files made, unless it is dry. `only_counted`: which of several
    answers to a prompt stays does not matter, only how many rows there are; no judge is asked."""
    if asked.filter is None and asked.ids is None:
        raise InvalidRequest("Give 'filter' (which may be empty: {}), 'ids', or both.", param="filter")
    chosen = filter_of(asked.filter or SelectionFilter())
    if asked.ids is not None:
        chosen = replace(chosen, numbers=numbers_of(asked.ids))
    if asked.curation is None and not asked.dry_run:
        return await asyncio.to_thread(_plain, call, asked, chosen)
    wish = await asyncio.to_thread(_wish, call, asked, only_counted)
    found, parts = await curated(call.platform, call.principal, chosen, wish)
    return await asyncio.to_thread(_written, call, asked, found, parts)


def _plain(call: Call, asked: SelectionRequest, chosen: Filter) -> selection.Selection:
    return selection.select(
        call.platform.database,
        call.platform.files,
        call.project,
        chosen,
        validation_fraction=asked.validation_fraction,
        seed=asked.seed,
        filename=asked.filename,
        style=asked.style,
    )


def _written(
    call: Call, asked: SelectionRequest, found: selection.Candidates, parts: selection.Parts
) -> selection.Selection:
    return selection.write(
        call.platform.database,
        call.platform.files,
        call.project,
        found,
        parts,
        filename=asked.filename,
        dry_run=asked.dry_run,
    )


def _wish(call: Call, asked: SelectionRequest, only_counted: bool) -> Wish:
    request = asked.curation or CurationRequest()
    curation = Curation(**{name: getattr(request, name) for name in Curation.__struct_fields__})
    curation.check()
    best_of = None if request.best_of is None else _best_of(call, request.best_of)
    if best_of is not None and (asked.dry_run or only_counted):
        best_of = replace(best_of, grader=None)
    return Wish(
        curation=curation,
        best_of=best_of,
        validation_fraction=asked.validation_fraction,
        seed=asked.seed,
        survey=asked.dry_run,
        style=asked.style,
    )


def _best_of(call: Call, asked: BestOfRequest) -> BestOf:
    """Raises InvalidRequest for a grader that cannot be run here, or gives no score."""
    if (asked.metadata is None) == (asked.grader is None):
        raise InvalidRequest(
            "'curation.best_of' has either 'metadata', a key under which completions have a number, or 'grader'.",
            param="curation.best_of",
        )
    if asked.grader is not None:
        param = "curation.best_of.grader"
        call.platform.evals.check_grader(call.project, order.read(asked.grader, param=param), param)
    return BestOf(rating=asked.metadata, grader=asked.grader)


def create_key(call: Call) -> Reply:
    """Make an API key; its secret is in this answer and nowhere else."""
    key, secret = call.platform.keys.create(call.project, body_as(call, KeyRequest).name)
    return Reply(body={"object": "stillroom.key", **msgspec.to_builtins(key), "key": secret})


def list_keys(call: Call) -> Reply:
    """List the project's API keys, without their secrets."""
    keys = call.platform.keys.of_project(call.project)
    data = [{"object": "stillroom.key", **msgspec.to_builtins(key)} for key in keys]
    return Reply(body={"object": "list", "data": data, "has_more": False})


def revoke_key(call: Call) -> Reply:
    """Revoke an API key."""
    call.platform.keys.revoke(call.project, call.parameters["id"])
    return Reply(body={"id": call.parameters["id"], "object": "stillroom.key.revoked", "deleted": True})


def body_as(call: Call, kind: type[T]) -> T:
    """The request's body as the struct that describes it. Raises InvalidRequest naming what is wrong."""
    return bodies.read(call.json(), kind)
