"""Why a grade could not be given, in the words of OpenAI's grader errors.

Each kind of problem is one of the flags in a grader run's `metadata.errors`; three further fields
there say more about python and model graders, and `details`, which is ours, says it for all.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ProblemKind(enum.StrEnum):
    """The flags of `metadata.errors`, by their names."""

    FORMULA_PARSE = "formula_parse_error"
    """A multi grader's formula has no finite result."""
    SAMPLE_PARSE = "sample_parse_error"
    """`sample.output_json` is asked for, and the answer is no JSON."""
    TRUNCATED_OBSERVATION = "truncated_observation_error"
    """The judge's answer was cut short before its result."""
    UNRESPONSIVE_REWARD = "unresponsive_reward_error"
    """The judge answered nothing."""
    INVALID_VARIABLE = "invalid_variable_error"
    """A template asks for what the item or the sample lacks."""
    OTHER = "other_error"
    """None of the others: a text too long to compare."""
    PYTHON_SERVER = "python_grader_server_error"
    """The python grader could not be run."""
    PYTHON_RUNTIME = "python_grader_runtime_error"
    """The python grader's own code failed or gave no finite number."""
    MODEL_SERVER = "model_grader_server_error"
    """The judge could not be asked."""
    MODEL_REFUSAL = "model_grader_refusal_error"
    """The judge refused to answer."""
    MODEL_PARSE = "model_grader_parse_error"
    """The judge's answer is no grade: not the form asked for, an unknown label, out of range."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What went wrong and, in `details`, a sentence for whoever wrote the grader.

    `code` is the error's own code when the python grader could not be run.
    """

    kind: ProblemKind
    details: str
    code: str | None = None


def flags(problem: Problem | None) -> dict[str, bool | str | None]:
    """The `metadata.errors` object of a grader run."""
    kind = problem.kind if problem else None
    told: dict[str, bool | str | None] = {flag.value: flag is kind for flag in ProblemKind}
    details = problem.details if problem else None
    return {
        **told,
        "details": details,
        "python_grader_server_error_type": (problem.code or "server_error")
        if problem and kind is ProblemKind.PYTHON_SERVER
        else None,
        "python_grader_runtime_error_details": details if kind is ProblemKind.PYTHON_RUNTIME else None,
        "model_grader_server_error_details": details if kind is ProblemKind.MODEL_SERVER else None,
    }
