"""Best of n: a judge scores several answers to one row, and the best is kept.

Owns what the judge is asked; how it is asked for a score, and how that is read, is a model grader's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillroom.distillation.said import Said
from stillroom.graders import judge
from stillroom.graders import order as graders
from stillroom.graders.subject import Subject, sample_of
from stillroom.graders.subject import text_of as said_in

SCORES = (0, 10)
INSTRUCTIONS = (
    "You compare how well answers do what was asked. Read the conversation and the answer to it. Score the answer from "
    "0 (useless or wrong) to 10 (nothing could be better): first whether it is right and follows every instruction of the "
    "conversation, then whether it is clear and no longer than it needs to be."
)
SHOWN = "Conversation:\n{{item.conversation}}\n\nAnswer:\n{{sample.output_text}}"


def question(model: str, asked: Sequence[Mapping[str, Any]], said: Said) -> tuple[graders.ScoreModel, dict[str, Any]]:
    """The grader, and the request that puts the answer before it."""
    grader = graders.read(
        {
            "type": "score_model",
            "name": "best_of_n",
            "model": model,
            "input": [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": SHOWN}],
            "range": list(SCORES),
        },
        param="curation.best_of_n",
    )
    assert isinstance(grader, graders.ScoreModel)
    conversation = "\n\n".join(f"{message['role']}: {said_in(message)}" for message in asked)
    return grader, judge.request(grader, Subject(item={"conversation": conversation}, sample=sample_of(said.text)))


def score(grader: graders.ScoreModel, completion: Mapping[str, Any]) -> float | None:
    """What the judge gives; None when that is no score."""
    found = judge.verdict(grader, completion)
    return float(found) if isinstance(found, (int, float)) else None


def best(answers: Sequence[Said], scores: Sequence[float | None]) -> int:
    """The place of the answer with the highest score, the first of equal ones."""
    return max(range(len(answers)), key=lambda place: (-1.0 if scores[place] is None else scores[place], -place))
