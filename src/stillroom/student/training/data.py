"""A run's files -> what is learned from them: rows read, the system prompt dropped, encoded, soft labels counted.

Owns which rows a method reads, and what must be true of all of them. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stillroom.errors import TrainingFailed
from stillroom.student.bases.base_models import Student
from stillroom.student.bases.checkpoint import DroppedPrompt
from stillroom.student.chats.examples import (
    AnyRow,
    encode_rows,
    encode_rows_cut,
    read_pairs,
    read_questions,
    read_rows,
    system_prompt_of,
    without_system_prompt,
)
from stillroom.student.chats.template import ChatTemplate, Lesson, examples_of
from stillroom.student.hyperparameters import LongRows, MethodType, SystemPrompt, long_rows_of
from stillroom.student.training.spec import Spec
from stillroom.student.training.targets import labelled_tokens


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a run's files say."""

    rows: Sequence[AnyRow[Any]]
    valid_rows: Sequence[AnyRow[Any]]
    dropped_prompt: str | None
    """What all rows began with."""


def read_data(spec: Spec, teacher: Student | None) -> Data:
    """`teacher`: the model that judges what the student says, if there is one."""
    read = _reader(spec.method, teacher)
    rows = read(spec.training_file)
    valid_rows = read(spec.validation_file, param="validation_file") if spec.validation_file else []
    if spec.hyperparameters.system_prompt is not SystemPrompt.DROP:
        return Data(rows=rows, valid_rows=valid_rows, dropped_prompt=None)
    prompt = system_prompt_of(rows)
    return Data(
        rows=without_system_prompt(rows, prompt),
        valid_rows=without_system_prompt(valid_rows, prompt, param="validation_file"),
        dropped_prompt=prompt,
    )


def _reader(method: MethodType, teacher: Student | None) -> Callable[..., Sequence[AnyRow[Any]]]:
    match method:
        case MethodType.SUPERVISED:
            return read_rows
        case MethodType.DPO:
            return read_pairs
        case MethodType.ON_POLICY:
            return partial(read_questions, teacher=teacher.template if teacher else None)


def dropped_prompt_of(data: Data, template: ChatTemplate) -> DroppedPrompt | None:
    """The prompt, and how much shorter the first row's prompt is without it."""
    if data.dropped_prompt is None:
        return None
    asked = data.rows[0].asked
    system = {"role": "system", "content": data.dropped_prompt}
    with_it, without = (len(template.encode_prompt(messages)) for messages in ([system, *asked], asked))
    return DroppedPrompt(text=data.dropped_prompt, tokens=max(0, with_it - without))


def labelled_share(spec: Spec, data: Data, lessons: Sequence[Lesson]) -> float | None:
    """Of trained tokens, those with a teacher's distribution; None where they have no weight. Raises TrainingFailed
    when it would be nothing: a run that was to learn from them must not end as one that did not."""
    if not spec.soft_label_weight:
        return None
    found = [labelled_tokens(example) for example in examples_of(lessons)]
    if share := sum(labelled for labelled, _ in found) / sum(trained for _, trained in found):
        return share
    have = sum(row.has_logprobs for row in data.rows)
    why = (
        f"{have} of {len(data.rows)} rows have `logprobs`, but at no token do they tell of the text that is trained "
        "there, with what else the teacher held likely (top_logprobs): they may be another answer's"
        if have
        else f"none of the {len(data.rows)} rows has `logprobs` on an assistant message"
    )
    raise TrainingFailed(
        f"'soft_label_weight' is {spec.soft_label_weight:g}, and there are no soft labels to weigh: {why}. Capture them "
        "(top_logprobs under [teachers]), or leave 'soft_label_weight' out.",
        code="soft_labels_missing",
        param="training_file",
    )


def encoded(
    rows: Sequence[AnyRow[Any]],
    *,
    param: str,
    spec: Spec,
    template: ChatTemplate,
    context_tokens: int,
    warn: Callable[[str], None],
) -> list[Any]:
    """Rows as what the method learns from; those that are too long, as the job wants them."""
    encode: Callable[..., list[Any]] = encode_rows
    if long_rows_of(spec.hyperparameters) is LongRows.TRUNCATE:
        encode = partial(encode_rows_cut, warn=warn)
    return encode(rows, template, context_tokens=context_tokens, param=param, labelled=spec.soft_label_weight > 0)
