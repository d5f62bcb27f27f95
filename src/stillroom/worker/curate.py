"""Curates the rows of a selection in a process of their own: comparing them takes a core, and some of it NumPy."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from stillroom import errors
from stillroom.assembly import QUOTE_FOLDERS, Platform
from stillroom.auth import Principal
from stillroom.completions.table import Filter
from stillroom.curation import Curation, FileRows, Outcome
from stillroom.datasets import selection
from stillroom.datasets.answers import PLAIN, Style
from stillroom.datasets.selection import Candidates, Parts
from stillroom.errors import InvalidRequest, StillroomError
from stillroom.graders.subject import sample_of_completion
from stillroom.worker.child import KILLED, Child
from stillroom.worker.grade_once import Answer, grade_each

log = logging.getLogger(__name__)

CURATOR = "stillroom.curation"
MOST_JUDGED = 2000


class CurationFailed(StillroomError):
    """The process that curates ended without a result."""

    code = "curation_failed"


@dataclass(frozen=True, kw_only=True)
class BestOf:
    """How the best of several answers to a prompt is known: by the number under a metadata key, or by what a grader says.
    With neither the first is taken: who only counts need not pay a judge."""

    rating: str | None = None
    grader: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How to curate a selection. `survey`: to count, too, what checks would find that were not asked for."""

    curation: Curation
    best_of: BestOf | None
    validation_fraction: float
    seed: int
    survey: bool
    style: Style = PLAIN

    def spec(self, scores: Sequence[float | None] | None) -> dict[str, Any]:
        """As the process is told of it."""
        return {
            "curation": self.curation,
            "scores": scores,
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "survey": self.survey,
        }


async def curated(platform: Platform, principal: Principal, chosen: Filter, wish: Wish) -> tuple[Candidates, Parts]:
    """The completions that match, and which of them to use for what. One curation at a time."""
    with tempfile.TemporaryDirectory(prefix=QUOTE_FOLDERS, dir=platform.settings.folder / "runs") as name:
        folder = Path(name)
        found = await asyncio.to_thread(_survey, platform, principal.project, chosen, wish, folder)
        scores, notes = await _scores(platform, principal, found, wish, folder)
        outcome = await _outcome(platform, folder, wish.spec(scores))
    return found, await asyncio.to_thread(_parts, found, outcome, wish, notes)


def _survey(platform: Platform, project: int, chosen: Filter, wish: Wish, folder: Path) -> Candidates:
    rating = wish.best_of.rating if wish.best_of is not None else None
    with (folder / "rows.jsonl").open("wb") as rows:
        return selection.survey(
            platform.database,
            project,
            chosen,
            rows=rows,
            rating=rating,
            style=wish.style,
        )


async def _scores(
    platform: Platform, principal: Principal, found: Candidates, wish: Wish, folder: Path
) -> tuple[list[float | None] | None, list[str]]:
    """How good each answer is, None where nobody can say, and what to note of it. None for all when the best is not
    asked for."""
    if wish.best_of is None:
        return None, []
    if (key := wish.best_of.rating) is not None:
        has_some = any(score is not None for score in found.ratings)
        note = f"No completion has a number under the metadata key '{key}'; of each prompt the first stays."
        return found.ratings, [] if has_some else [note]
    scores: list[float | None] = [None] * len(found.numbers)
    if wish.best_of.grader is None:
        return scores, ["The grader was not asked; of each prompt the first stays for now."]
    rivals = await _rivals(platform, wish, folder)
    graded = grade_each(platform, principal, wish.best_of.grader, _answers(folder, rivals))
    async with aclosing(graded):
        async for message in graded:
            for result in message["results"]:
                if result["problem"] is None:
                    scores[rivals[message["number"]]] = float(result["score"])
    failed = sum(scores[place] is None for place in rivals)
    return scores, [
        f"{failed} of {len(rivals)} answers could not be graded, and lose to those that were."
    ] if failed else []


async def _rivals(platform: Platform, wish: Wish, folder: Path) -> list[int]:
    """The places of answers that would stay, and whose prompt has another one: only they are worth a judge's time."""
    cheap = msgspec.structs.replace(wish.curation, exact_duplicates=True, near_duplicates=False)
    alone = replace(wish, curation=cheap, validation_fraction=0.0, survey=False)
    rivals = (await _outcome(platform, folder, alone.spec(None))).rivals
    if len(rivals) > MOST_JUDGED:
        raise InvalidRequest(
            f"{len(rivals)} answers would have to be judged; at most {MOST_JUDGED} are at a time. Select fewer, or store "
            "ratings in the metadata and name their key in 'curation.best_of.metadata'.",
            param="curation.best_of",
        )
    return rivals


def _answers(folder: Path, places: Sequence[int]) -> Iterator[Answer]:
    """As items of a run over stored completions, whose templates fit."""
    with FileRows(folder / "rows.jsonl") as rows:
        for place in places:
            row = rows[place]
            *asked, answer = row["messages"]
            sample = sample_of_completion({"choices": [{"message": answer, "finish_reason": row["finish_reason"]}]})
            yield Answer(item={"input": asked, "output_text": sample["output_text"]}, sample=sample)


async def _outcome(platform: Platform, folder: Path, spec: Mapping[str, Any]) -> Outcome:
    """What the process makes of the rows in the folder. One at a time."""
    async with platform.files.curating:
        (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
        child = await Child.start(CURATOR, folder)
        try:
            async for told in child.messages():
                raise _error(told)
            if status := await child.ended():
                raise _broken(status, child.last_words())
        finally:
            await child.close()
    data = await asyncio.to_thread((folder / "outcome.json").read_bytes)
    return await asyncio.to_thread(msgspec.json.decode, data, type=Outcome)


def _broken(status: int, last_words: str) -> CurationFailed:
    log.error("the process that curates ended with status %s:\n%s", status, last_words)
    why = "was killed, most likely because memory ran out; select fewer rows" if status == KILLED else "failed"
    return CurationFailed(f"Curation {why}. The server's log says more.")


def _error(told: Mapping[str, Any]) -> StillroomError:
    kind: type[StillroomError] = getattr(errors, told["kind"], CurationFailed)
    return kind(told["message"], param=told["param"], code=told["code"])


def _parts(found: Candidates, outcome: Outcome, wish: Wish, notes: Sequence[str]) -> Parts:
    report = replace(outcome.report, notes=[*notes, *outcome.report.notes])
    asked = {name: value for name, value in msgspec.to_builtins(wish.curation).items() if value not in (False, None)}
    return Parts(
        training=_numbers(found, outcome.training),
        validation=_numbers(found, outcome.validation),
        skipped={left.reason: left.count for left in report.left_out},
        report=msgspec.json.encode(report),
        curation=asked,
        notes=report.notes,
    )


def _numbers(found: Candidates, places: Sequence[int]) -> list[int]:
    return [found.numbers[place] for place in places]
