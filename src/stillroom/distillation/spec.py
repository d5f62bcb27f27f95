"""A distillation, every value of it checked: what is asked for, in our own words. Files are read by `reading.py`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.config import Teacher
from stillroom.curation import Curation

DPO = "dpo"


class Task(enum.StrEnum):
    """What the rows ask; it decides how the teacher is prompted to reason."""

    NLI = "nli"
    NLU_QA = "nlu_qa"
    CONVERSATION = "conversation"
    MATH = "math"
    SUMMARIZATION = "summarization"


class Thinking(enum.StrEnum):
    """How the teacher is made to think before it answers."""

    NONE = "none"
    CHAIN_OF_THOUGHT = "chain_of_thought"
    CHAIN_OF_DENSITY = "chain_of_density"


class Reasoning(enum.StrEnum):
    """What becomes of the teacher's reasoning in the student's rows."""

    STRIP = "strip"
    KEEP = "keep"
    SUMMARISE = "summarise"


class Kind(enum.StrEnum):
    """Where rows come from."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    DATASET = "dataset"
    STORED_COMPLETIONS = "stored_completions"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows to be labelled. `key` is where the file names them. `columns` maps roles to a table's columns."""

    key: str
    kind: Kind
    path: Path | None = None
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """How a row becomes a question to the teacher."""

    task: Task | None
    thinking: Thinking
    summary_words: int
    system_prompt: str | None
    """Ours replaces the row's for the teacher alone; `{system}` in it stands for the row's."""
    sees_own_answers: bool
    """In a conversation: whether the teacher sees its own earlier answers, or as at Azure only what the user said."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One distillation, every value checked."""

    name: str
    teacher: str | None
    """Who is asked; None: the rows bring their answers along."""
    endpoint: Teacher | None
    """Where the teacher is, when the file says so and the configuration does not."""
    student: str
    student_key: str
    suffix: str | None
    training: Source
    validation: Source | None
    validation_fraction: float
    minimum_rows: int
    needs_system: bool
    prompting: Prompting
    inference: Mapping[str, Any]
    at_once: int
    success_ratio: float
    reasoning: Reasoning
    curation: Curation
    samples: int
    """How many answers to each row; the best is kept."""
    judge: str | None
    budget_microusd: int | None
    method: str
    judged_by: str | None
    """Of the method on_policy: who judges what the student says, unless it is the student."""
    hyperparameters: Mapping[str, Any]
    learning_rate: float | None
    """Azure's, to be made a multiplier of the base's own rate."""
    seed: int
    warnings: tuple[str, ...] = ()

    @property
    def asks_logprobs(self) -> bool:
        """Whether the student learns from how likely the teacher held each word."""
        return bool(self.hyperparameters.get("soft_label_weight"))

    def job_method(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """The `method` of a fine-tuning job with these."""
        own: dict[str, Any] = {"hyperparameters": dict(hyperparameters)}
        if self.judged_by is not None:
            own["teacher"] = self.judged_by
        return {"type": self.method, self.method: own}
