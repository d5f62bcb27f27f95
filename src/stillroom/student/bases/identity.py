"""What a student said when it was trained, so that every other form of it can be held to that.

The trainer's model is asked 32 conversations of our own and its greedy answers go into the artefact. Before
the student is served, and before an export is handed over, the same is asked of the new form:

- the prompt's token ids must be equal;
- in the trainer's own arithmetic (float32), greedy tokens must be equal, and their log-probabilities
  within TOLERANCE; where the trainer itself hardly preferred one token, either will do (TIE);
- in other arithmetic (bfloat16, quantised), the mean KL divergence and the share of equal tokens must keep
  within MOST_DIVERGENCE and LEAST_AGREEMENT.

Whatever does not is refused with the first difference. Asking is plain transformers, batches and cache included:
nothing of the engine that serves is used, so that neither can hide the other's mistakes.

B conversations of a batch, T tokens, V vocabulary
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from stillroom.errors import BaseModelUnusable, StillroomError, StudentDiffers
from stillroom.student.bases.conversations import CONVERSATIONS, Conversation
from stillroom.student.chats.template import ChatTemplate

FILE = "identity.json"
NEW_TOKENS = 8
"""Of an answer; it ends sooner where the student ends it."""
REMEMBERED = 5
"""Likeliest tokens that are written down for each place."""
HEARD = 20
"""Likeliest tokens that are asked for when an answer is compared."""
TOLERANCE = 1e-3
"""Nats by which a log-probability may differ in float32: merging an adapter and other batches round elsewhere."""
TIE = 2 * TOLERANCE
"""Two log-probabilities so close may change places."""
MOST_DIVERGENCE = 0.02
"""Mean KL divergence in nats from the trainer's prediction, in other arithmetic."""
LEAST_AGREEMENT = 0.9
"""Share of the trainer's tokens that stay the likeliest, in other arithmetic."""
TOKENS_PER_PASS = 1024
"""Padded tokens that are read at once."""
MOMENT = datetime(2031, 5, 3, 14, 5)
"""For templates that write today's date: theirs must be the same on every day."""

Prediction = Sequence[tuple[int, float]]
"""Token ids with log-probabilities, likeliest first: the first one was said."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was said to one conversation."""

    prompt_ids: list[int] | None
    """None: the chat template refuses the conversation."""
    predictions: Sequence[Prediction]
    """One for each token said; none where the context has no room for them."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A student's answers, and what to ask for them."""

    arithmetic: str
    """The weights' number format while they were given."""
    conversations: Sequence[Conversation]
    answers: Sequence[Answer]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How like the trainer's model another form is."""

    conversations: int
    tokens: int
    agreement: float
    """Share of tokens that are the trainer's."""
    divergence: float
    """Mean KL divergence in nats, over the tokens written down and all others as one."""
    difference: float
    """The largest between two log-probabilities of what was said, in nats."""


def identity_of(model: nn.Module, template: ChatTemplate, *, context_tokens: int) -> Identity:
    """What the model says now. Leaves it as it was, in training or not."""
    prompts = [_prompt_of(template, conversation) for conversation in CONVERSATIONS]
    asked = [prompt if prompt and len(prompt) + NEW_TOKENS <= context_tokens else None for prompt in prompts]
    said = iter(predictions_of(model, [prompt for prompt in asked if prompt], template.end_ids, likeliest=REMEMBERED))
    answers = [
        Answer(prompt_ids=prompt, predictions=next(said) if is_asked else [])
        for prompt, is_asked in zip(prompts, asked, strict=True)
    ]
    return Identity(arithmetic=arithmetic_of(model), conversations=CONVERSATIONS, answers=answers)


def verify(
    identity: Identity, model: nn.Module, template: ChatTemplate, *, form: str, arithmetic: str | None = None
) -> Agreement:
    """Holds a model of transformers, or peft around one, to what the trainer's said. Raises StudentDiffers.

    `form` names it in errors. `arithmetic`: how its weights were rounded, where their format does not tell.
    """
    heard = predictions_of(model, questions(identity, template, form=form), template.end_ids)
    return compare(identity, heard, arithmetic=arithmetic or arithmetic_of(model), form=form)


def questions(identity: Identity, template: ChatTemplate, *, form: str) -> list[list[int]]:
    """The prompts to ask of another form, by its own template and tokenizer. Raises StudentDiffers where they
    are not the trainer's."""
    for number, (conversation, answer) in enumerate(zip(identity.conversations, identity.answers, strict=True), 1):
        difference = _difference(answer.prompt_ids, _prompt_of(template, conversation))
        if difference:
            raise _refusal(form, f"{difference} conversation {number}")
    return [answer.prompt_ids or [] for answer in identity.answers if answer.predictions]


def predictions_of(
    model: nn.Module, prompts: Sequence[list[int]], end_ids: Sequence[int], *, likeliest: int = HEARD
) -> list[list[Prediction]]:
    """Greedy answers to the prompts: for each token, the likeliest in its place, and first of them what was said."""
    said: list[list[Prediction]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for indices in _batches(prompts):
            answers = _greedy(model, [prompts[index] for index in indices], end_ids, likeliest)
            for index, answer in zip(indices, answers, strict=True):
                said[index] = answer
    model.train(was_training)
    return said


def arithmetic_of(model: Any) -> str:
    """The number format of a model's weights; exactness can be asked for in float32 alone."""
    if getattr(model.config, "quantization_config", None) is not None:
        return "quantized"
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def compare(identity: Identity, heard: Sequence[Sequence[Prediction]], *, arithmetic: str, form: str) -> Agreement:
    """How alike the answers to `questions` are; raises StudentDiffers when they are not alike enough."""
    tally = _Tally(form, exact=identity.arithmetic == arithmetic == "float32")
    answered = [(number, answer) for number, answer in enumerate(identity.answers, 1) if answer.predictions]
    for (number, answer), found in zip(answered, heard, strict=True):
        tally.compare(number, answer.predictions, found)
    return tally.agreement(conversations=len(identity.answers))


def write_identity(folder: Path, identity: Identity) -> None:
    """A line for each conversation and each answer, so that a difference can be looked at."""
    parts = {"conversations": identity.conversations, "answers": [asdict(answer) for answer in identity.answers]}
    lines = [f'"{name}": [\n{_lines(values)}\n]' for name, values in parts.items()]
    text = ",\n".join([f'"arithmetic": {json.dumps(identity.arithmetic)}', *lines])
    (folder / FILE).write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def read_identity(folder: Path) -> Identity | None:
    """None for an artefact from before there were any."""
    try:
        values: Mapping[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        pairs = list(zip(values["conversations"], values["answers"], strict=True))
        return Identity(
            arithmetic=str(values["arithmetic"]),
            conversations=[conversation for conversation, _ in pairs],
            answers=[Answer(**answer) for _, answer in pairs],
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaseModelUnusable(f"{folder / FILE} cannot be read: {error!r}.", param="model") from error


def _prompt_of(template: ChatTemplate, conversation: Conversation) -> list[int] | None:
    try:
        return template.encode_prompt(conversation["messages"], conversation.get("tools", ()), moment=MOMENT)
    except (StillroomError, TypeError, ValueError, LookupError, AttributeError):
        # Templates refuse roles or tools in the ways of whoever wrote them; the next form must refuse them as well.
        return None


def _batches(prompts: Sequence[list[int]]) -> Iterator[list[int]]:
    """Indices of prompts of like length, so that little is padded."""
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        if batch and (len(batch) + 1) * len(prompts[index]) > TOKENS_PER_PASS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _greedy(
    model: nn.Module, prompts: Sequence[list[int]], end_ids: Sequence[int], likeliest: int
) -> list[list[Prediction]]:
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
    ids_BT = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts], device=device)
    positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    cache: Any = DynamicCache(config=model.config)
    said: list[list[Prediction]] = [[] for _ in prompts]
    for _ in range(NEW_TOKENS):
        output = model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = [_prediction(logprobs_V, likeliest) for logprobs_V in _logprobs(output.logits)]
        for answer, prediction in zip(said, chosen, strict=True):
            if not (answer and answer[-1][0][0] in end_ids):
                answer.append(prediction)
        ids_BT = torch.tensor([[prediction[0][0]] for prediction in chosen], device=device)
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(prompts), 1)], dim=1)
        positions_BT = positions_BT[:, -1:] + 1
    return said


def _logprobs(logits_BTV: Tensor) -> Tensor:
    return logits_BTV[:, -1].float().cpu().log_softmax(-1)


def _prediction(logprobs_V: Tensor, likeliest: int) -> Prediction:
    values, ids = logprobs_V.topk(min(likeliest, len(logprobs_V)))
    return [(token, round(value, 6)) for token, value in zip(ids.tolist(), values.tolist(), strict=True)]


def _difference(expected: Sequence[int] | None, found: Sequence[int] | None) -> str | None:
    """Between two prompts, as the beginning of a phrase that names the conversation; None when there is none."""
    if expected == found:
        return None
    if expected is None or found is None:
        return "its chat template refuses" if found is None else "its chat template no longer refuses"
    at = next((at for at, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
    if at is None:
        return f"{len(found)} instead of {len(expected)} tokens are the prompt of"
    return f"token {found[at]} stands instead of {expected[at]} at position {at + 1} of the prompt of"


class _Tally:
    """Counts what is alike, and refuses what must be."""

    def __init__(self, form: str, *, exact: bool) -> None:
        self._form = form
        self._exact = exact
        self._tokens = self._equal = 0
        self._divergence = self._difference = 0.0
        self._first = ""

    def compare(self, number: int, expected: Sequence[Prediction], found: Sequence[Prediction]) -> None:
        """One answer, as far as it was said behind the same words."""
        for place, (trained, other) in enumerate(zip(expected, found, strict=False), 1):
            where = f"position {place} of the answer to conversation {number}"
            is_equal = trained[0][0] == other[0][0]
            self._tokens += 1
            self._equal += is_equal or _is_tie(trained)
            self._divergence += _divergence(trained, other)
            if not is_equal:
                if not _is_tie(trained):
                    self._differs(f"token {other[0][0]} is said instead of {trained[0][0]} at {where}")
                return
            self._compare_probabilities(trained[0], other[0], where)
        if len(found) < len(expected):
            self._differs(f"the answer to conversation {number} ends after {len(found)} of {len(expected)} tokens")

    def agreement(self, *, conversations: int) -> Agreement:
        """Raises StudentDiffers when too little is alike."""
        tokens = max(self._tokens, 1)
        made = Agreement(
            conversations=conversations,
            tokens=self._tokens,
            agreement=self._equal / tokens if self._tokens else 1.0,
            divergence=self._divergence / tokens,
            difference=self._difference,
        )
        if not self._exact:
            self._check_bounds(made)
        return made

    def _check_bounds(self, made: Agreement) -> None:
        first = f"; {self._first}" if self._first else ""
        if not made.divergence <= MOST_DIVERGENCE:
            raise _refusal(
                self._form,
                f"its predictions diverge by {made.divergence:.3f} nats, not {MOST_DIVERGENCE} at most{first}",
            )
        if not made.agreement >= LEAST_AGREEMENT:
            raise _refusal(
                self._form, f"{made.agreement:.1%} of its tokens are the trained ones, not {LEAST_AGREEMENT:.0%}{first}"
            )

    def _compare_probabilities(self, trained: tuple[int, float], other: tuple[int, float], where: str) -> None:
        difference = abs(trained[1] - other[1])
        self._difference = max(self._difference, difference)
        if self._exact and not difference <= TOLERANCE:
            self._differs(
                f"token {trained[0]} has the log-probability {other[1]:.4f} instead of {trained[1]:.4f} at {where}"
            )

    def _differs(self, difference: str) -> None:
        if self._exact:
            raise _refusal(self._form, difference)
        self._first = self._first or difference


def _refusal(form: str, difference: str) -> StudentDiffers:
    return StudentDiffers(
        f"{form} does not behave as it was trained: {difference}. Its files, its base model or a library have changed "
        "since; restore them, or train again."
    )


def _is_tie(trained: Prediction) -> bool:
    return len(trained) > 1 and trained[0][1] - trained[1][1] < TIE


def _divergence(trained: Prediction, other: Prediction) -> float:
    """KL(trained || other) over the tokens written down and all others as one: never above that over all tokens.

    Of tokens that the other form does not list, all that is known is that they are less likely than its last.
    """
    listed: dict[int, float] = dict(other)
    least = other[-1][1]
    pairs = [(logprob, listed.get(token, least)) for token, logprob in trained]
    rest = [1 - sum(math.exp(pair[which]) for pair in pairs) for which in (0, 1)]
    divergence = sum(math.exp(mine) * (mine - theirs) for mine, theirs in pairs)
    if rest[0] > 1e-6:
        divergence += rest[0] * (math.log(rest[0]) - math.log(max(rest[1], 1e-6)))
    return max(float(divergence), 0.0)


def _lines(values: Sequence[Any]) -> str:
    return ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
