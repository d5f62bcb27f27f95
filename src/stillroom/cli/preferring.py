"""`stillroom distill pairs`: preference pairs out of what is stored, and a student that learns from them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stillroom.cli.client import ServerError, connect
from stillroom.cli.distilling import JOBS, Beta, DropSystemPrompt, Epochs, Suffix, finish, method_of
from stillroom.cli.options import Data, Json, Metadata, Wait, metadata, since
from stillroom.cli.output import as_json, note, say

PREFERENCES = "/v1/stillroom/preferences"


def make_pairs(
    preferred: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Whose stored answers are the better ones.")
    ] = None,
    rejected: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Whose stored answers are the worse ones.")
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="ID", help="Of an eval run: the teacher's answers over the model's; may be repeated."
        ),
    ] = None,
    failed_only: Annotated[bool, typer.Option("--failed-only", help="Of runs, only what a grader failed.")] = False,
    metadata_: Metadata = None,
    since_: Annotated[
        str | None, typer.Option("--since", metavar="T", help="Only from 30m, 2h, 7d ago, or ISO.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Fraction of the conversations to hold out.", min=0, max=0.9)] = 0.0,
    student: Annotated[
        str | None, typer.Option("--student", metavar="MODEL", help="Let this one learn from the pairs, by dpo.")
    ] = None,
    epochs: Epochs = None,
    beta: Beta = None,
    drop_system_prompt: DropSystemPrompt = False,
    suffix: Suffix = None,
    seed: Annotated[int | None, typer.Option(help="Makes the split and the job repeatable.")] = None,
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
) -> None:
    """Make preference pairs of stored answers: of two models, of an eval run, or as people chose (the default)."""
    reached = connect(data)
    rows: dict[str, Any] = {"validation_fraction": validation, "failed_only": failed_only, "seed": seed or 0}
    sides = {name: {"model": model} for name, model in (("preferred", preferred), ("rejected", rejected)) if model}
    conditions = {"metadata": metadata(metadata_), "created_after": since(since_)}
    shared = {"filter": conditions} if any(conditions.values()) else {}
    made = reached.post(PREFERENCES, {**rows, **sides, **shared, "runs": runs or []})
    _tell(made)
    if student is None:
        as_json(made) if json else say(made["training_file"]["id"])
        return
    files = {name: made[name]["id"] for name in ("training_file", "validation_file") if made[name]}
    chosen = {name: value for name, value in (("suffix", suffix), ("seed", seed)) if value is not None}
    drop = "drop" if drop_system_prompt else None
    method = method_of("dpo", n_epochs=epochs, beta=beta, system_prompt=drop)
    try:
        job = reached.post(JOBS, {"model": student, **files, **chosen, **method})
    except ServerError:
        for file in files.values():  # made for a job that is not to be
            reached.delete(f"/v1/files/{file}")
        raise
    note(f"Job {job['id']} created.")
    finish(reached, job, wait=wait, json=json)


def _tell(made: dict[str, Any]) -> None:
    held_out = f", {made['validation_pairs']} more held out" if made["validation_pairs"] else ""
    note(f"{made['pairs']} preference pairs{held_out}.")
    for reason, count in made["skipped"].items():
        note(f"Left out: {count} ({reason.replace('_', ' ')}).")
    for warning in made["warnings"]:
        note(f"Note: {warning}")
