"""Preference pairs, below `/v1/stillroom`: a training file for the method `dpo`, made of what is stored or was found."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from stillroom.api import files as files_api
from stillroom.api.extensions import body_as
from stillroom.api.filters import SelectionFilter, filter_of
from stillroom.api.wire import Call, Reply
from stillroom.datasets import preferences
from stillroom.datasets.preferences import PREFERENCE, PREFERRED, REJECTED, Found
from stillroom.errors import Conflict, InvalidRequest
from stillroom.evals.preferences import of_runs
from stillroom.evals.table import Run, get_run
from stillroom.jobs import ENDED

MOST_RUNS = 20


class PreferencesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the pairs come from: stored answers to the same conversation, of which those that match `preferred` are
    better than those that match `rejected`; or `runs` of evals on stored completions, where the teacher's answer is
    better than the model's. Without either: the answers that people marked, by the metadata `preference`.

    `filter` holds for both sides. `failed_only`: of runs, only answers that a grader failed. A `dry_run` makes no
    file."""

    preferred: SelectionFilter | None = None
    rejected: SelectionFilter | None = None
    filter: SelectionFilter | None = None
    runs: Annotated[list[str], msgspec.Meta(max_length=MOST_RUNS)] = []
    failed_only: bool = False
    validation_fraction: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    seed: int = 0
    filename: str | None = None
    dry_run: bool = False


def create(call: Call) -> Reply:
    """Make a training file of preference pairs: two models' stored answers, people's choices, or eval runs."""
    asked: PreferencesRequest = body_as(call, PreferencesRequest)
    found = _found(call, asked)
    told = {"object": "stillroom.preferences", "skipped": dict(found.skipped)}
    if asked.dry_run:
        nothing = {"training_file": None, "validation_file": None}
        return Reply(body={**told, **nothing, "pairs": found.count, "validation_pairs": 0, "warnings": []})
    made = preferences.write(
        call.platform.files,
        call.project,
        found,
        validation_fraction=asked.validation_fraction,
        seed=asked.seed,
        filename=asked.filename,
    )
    body = {
        **told,
        "training_file": files_api.shown(made.training_file),
        "validation_file": files_api.shown(made.validation_file) if made.validation_file else None,
        "pairs": made.pairs,
        "validation_pairs": made.validation_pairs,
        "warnings": made.warnings,
    }
    return Reply(body=body)


def _found(call: Call, asked: PreferencesRequest) -> Found:
    if asked.runs:
        _refuse_both(asked)
        runs = [_run(call, run) for run in dict.fromkeys(asked.runs)]
        return of_runs(call.platform.evals, runs, failed_only=asked.failed_only)
    if asked.failed_only:
        raise InvalidRequest("'failed_only' has no effect without 'runs'. Leave it out.", param="failed_only")
    if (asked.preferred is None) != (asked.rejected is None):
        missing = "preferred" if asked.preferred is None else "rejected"
        raise InvalidRequest(
            f"Missing required parameter: '{missing}'. A pair takes both sides.",
            param=missing,
            code="missing_required_parameter",
        )
    better = filter_of(_side(asked.filter, asked.preferred or _marked(PREFERRED)))
    worse = filter_of(_side(asked.filter, asked.rejected or _marked(REJECTED)))
    if better == worse:
        raise InvalidRequest(
            "'preferred' and 'rejected' say the same; no answer is better than itself.", param="rejected"
        )
    return preferences.of_stored(call.platform.database, call.project, better, worse)


def _refuse_both(asked: PreferencesRequest) -> None:
    for name in ("preferred", "rejected", "filter"):
        if getattr(asked, name) is not None:
            raise InvalidRequest(f"Give either 'runs' or '{name}'.", param=name)


def _run(call: Call, run_id: str) -> Run:
    with call.platform.database.read() as connection:
        run = get_run(connection, call.project, run_id)
    if run.state not in ENDED:
        raise Conflict(f"The run {run.id} is under way; make pairs of it when it has ended.", param="runs")
    return run


def _marked(value: str) -> SelectionFilter:
    return SelectionFilter(metadata={PREFERENCE: value})


def _side(shared: SelectionFilter | None, own: SelectionFilter) -> SelectionFilter:
    """What is asked of both sides, and of this one."""
    both = _given(shared) if shared else {}
    mine = _given(own)
    pairs = {**both.pop("metadata", {}), **mine.pop("metadata", {})}
    return SelectionFilter(**{**both, **mine}, metadata=pairs)


def _given(conditions: SelectionFilter) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(conditions).items() if value is not None}
