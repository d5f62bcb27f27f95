"""Each method's loss and gradient, beside the formula computed one row after the other: whole logits, autograd,
float64, no tree, no chunks, no passes."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stillroom.student.bases.base_models import Student
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.labels import SoftLabels, soft_labels
from stillroom.student.chats.template import ChatTemplate, Example, Pair, Question
from stillroom.student.hyperparameters import Hyperparameters, Origin, method_of
from stillroom.student.training import objective
from stillroom.student.training.computation import Computation
from stillroom.student.training.learning import FOLLOWS, JUDGED_TOKENS, Imitation, OnPolicy, Preference
from stillroom.student.training.losses import Loss, cross_entropy, reverse_kl, softened_cross_entropy
from stillroom.student.training.packing import PADDED, SHARED, Layout, Passes

from .test_prefix_tree import VOCABULARY, a_model, gradients, one_task, words

EXACT = 1e-10
LAYOUTS = pytest.mark.parametrize("layout", [SHARED, PADDED], ids=["tree", "padded"])
PASSES = pytest.mark.parametrize("max_tokens", [10_000, 60], ids=["one pass", "passes"])


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch, norms_in_float64: None) -> None:
    monkeypatch.setattr(objective, "CHUNK_LOGITS", 1)
    monkeypatch.setattr(objective, "SMALLEST_CHUNK", 5)


def computation_of(model: nn.Module, loss: Loss, *, layout: Layout, max_tokens: int = 10_000) -> Computation:
    student = Student(
        model=model,
        template=cast("ChatTemplate", SimpleNamespace(end_ids=(1,))),  # nothing here is text
        method=method_of(Hyperparameters(), Origin()),
        base=BaseReference(name="tiny", path=None, revision=None),
        context_tokens=1000,
        compute_dtype=torch.float64,
    )
    made = Computation(student, loss, emit=lambda event: None)
    made.layout, made.passes = layout, Passes(max_tokens=max_tokens)
    return made


def assert_same(found: tuple[float, Tensor], expected: tuple[float, Tensor]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=EXACT)
    assert float((found[1] - expected[1]).norm() / expected[1].norm()) <= EXACT


# --- soft labels ------------------------------------------------------------------------------------------


def labelled(examples: list[Example], *, likely: int = 4) -> list[Example]:
    """Distributions of one to so many tokens at about two of three trained places; some leave nothing for others."""
    generator = torch.Generator().manual_seed(9)

    def draw(most: int) -> int:
        return int(torch.randint(0, most, (1,), generator=generator))

    def label() -> dict[int, float]:
        told = torch.randperm(VOCABULARY, generator=generator)[: 1 + draw(likely)].tolist()
        chances = torch.rand(len(told) + 1, generator=generator, dtype=torch.float64)
        chances[-1] *= draw(2)
        return dict(zip(told, (chances / chances.sum()).tolist(), strict=False))

    def at(example: Example) -> SoftLabels | None:
        return soft_labels({place: label() for place, mask in enumerate(example.mask) if mask and draw(3)})

    return [replace(example, labels=at(example)) for example in examples]


def mixed_one_by_one(model: nn.Module, examples: list[Example], weight: float) -> tuple[float, Tensor]:
    """Word by word, as the formula says: the teacher's tokens and, as one more, all the others."""
    model.zero_grad()
    losses = []
    for example in examples:
        chances_TV = model(input_ids=torch.tensor([list(example.ids)])).logits[0].softmax(-1)
        labels = {} if example.labels is None else {int(p): s for s, p in enumerate(example.labels.places_S)}
        for place in (place for place, mask in enumerate(example.mask) if mask and place):
            student = chances_TV[place - 1]
            lost = -student[example.ids[place]].log()
            if place in labels:
                assert example.labels is not None
                row = labels[place]
                told = [
                    (int(token), float(chance))
                    for token, chance in zip(example.labels.tokens_SK[row], example.labels.chances_SK[row], strict=True)
                    if token >= 0
                ]
                bins = [(chance, student[token]) for token, chance in told]
                bins += [(1 - sum(chance for _, chance in told), 1 - sum(student[token] for token, _ in told))]
                divergence = sum(t * (math.log(t) - s.log()) for t, s in bins if t > 1e-15)
                lost = (1 - weight) * lost + weight * divergence
            losses.append(lost)
    loss = torch.stack(losses).mean()
    loss.backward()
    return float(loss.detach()), gradients(model)


@LAYOUTS
@PASSES
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_soft_labels_are_mixed_with_the_words_as_their_formula_says(
    layout: Layout, max_tokens: int, weight: float
) -> None:
    # The same row twice, with different teachers, and a row that nobody labelled.
    rows = one_task()
    examples = [*labelled(rows), *labelled(rows[:1], likely=2), *one_task(prompt=9, answers=(5,))]
    model = a_model("qwen3", torch.float64)
    expected = mixed_one_by_one(model, examples, weight)
    model.zero_grad()
    computation = computation_of(model, softened_cross_entropy(weight), layout=layout, max_tokens=max_tokens)
    learned = Imitation(computation).learn(examples)
    assert_same((learned.loss, gradients(model)), expected)
    looked = Imitation(computation).look(examples)
    assert looked.loss == pytest.approx(expected[0], rel=EXACT)
    # The control: the labels count.
    assert abs(mixed_one_by_one(model, examples, 0.0)[0] - expected[0]) > 0.01


def test_a_weight_of_nothing_is_imitation_bit_by_bit() -> None:
    examples, model = labelled(one_task()), a_model("llama", torch.float64)
    found = []
    for loss, rows in ((softened_cross_entropy(0.0), examples), (cross_entropy, examples), (cross_entropy, one_task())):
        model.zero_grad()
        learned = Imitation(computation_of(model, loss, layout=PADDED)).learn(rows)
        found.append((learned.loss, gradients(model)))
    assert found[0][0] == found[1][0] == found[2][0]
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][1], found[2][1])


def test_the_divergence_is_nothing_where_the_student_agrees_and_all_of_it_where_every_token_is_told() -> None:
    """Of a student that says at some place exactly what the teacher held likely; and against torch's own divergence."""
    model: Any = a_model("llama", torch.float64)
    (row,) = one_task(answers=(2,))
    place = row.mask.index(1)
    chances_V = model(input_ids=torch.tensor([list(row.ids)])).logits[0, place - 1].softmax(-1).detach()
    told = {token: float(chances_V[token]) for token in (3, 5, 8)}
    agreed = replace(row, labels=soft_labels({place: told}))
    computation = computation_of(model, softened_cross_entropy(1.0), layout=SHARED)
    assert abs(computation.sums([agreed]).loss) < 1e-7  # labels are float32

    teacher_V = torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(-1)
    # All tokens but the last, which is then all the others.
    whole = replace(row, labels=soft_labels({place: dict(enumerate(teacher_V.tolist()[:-1]))}))
    expected = float(functional.kl_div(chances_V.log(), teacher_V, reduction="sum"))
    assert computation.sums([whole]).loss == pytest.approx(expected, rel=1e-5)


# --- preference -------------------------------------------------------------------------------------------


def pairs(*, prompt: int = 30, count: int = 3) -> list[Pair]:
    """Answers that share their prompt, and of which some begin alike."""
    generator = torch.Generator().manual_seed(11)
    start = words(generator, prompt)

    def answer(begins: list[int], length: int) -> Example:
        asked = start + begins
        ids = asked + words(generator, length)
        return Example(ids=array("i", ids), mask=bytes(len(asked)) + bytes([1]) * length)

    made = []
    for index in range(count):
        begins = words(generator, 3)
        made.append(Pair(preferred=answer(begins, 5 + index), other=answer(begins, 9 - index)))
    return made


def preferred_one_by_one(model: nn.Module, reference: nn.Module, made: list[Pair], beta: float) -> tuple[float, Tensor]:
    """-log sigmoid(beta * (log-ratio of the better answer - log-ratio of the other)), Rafailov et al. 2023, eq. 7."""

    def log_ratio(example: Example) -> Tensor:
        ids = torch.tensor([list(example.ids)])
        trained = [place for place, mask in enumerate(example.mask) if mask]

        def log_prob(of: nn.Module) -> Tensor:
            told_TV = of(input_ids=ids).logits[0].log_softmax(-1)
            return torch.stack([told_TV[at - 1, ids[0, at]] for at in trained]).sum()

        return log_prob(model) - log_prob(reference).detach()

    model.zero_grad()
    losses = [-functional.logsigmoid(beta * (log_ratio(pair.preferred) - log_ratio(pair.other))) for pair in made]
    loss = torch.stack(losses).mean()
    loss.backward()
    return float(loss.detach()), gradients(model)


def moved(model: nn.Module) -> nn.Module:
    """As if it had learned something since it began."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in (each for each in model.parameters() if each.requires_grad):
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return model


@LAYOUTS
@PASSES
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_preference_has_the_loss_and_gradient_of_its_formula(layout: Layout, max_tokens: int, lora: bool) -> None:
    made, beta = pairs(), 0.3
    model, reference = (a_model("llama", torch.float64, lora=lora) for _ in range(2))
    learning = Preference(computation_of(model, cross_entropy, layout=layout, max_tokens=max_tokens), beta=beta)
    learning.begin(made, [], {})
    moved(model)
    expected = preferred_one_by_one(model, reference, made, beta)
    model.zero_grad()
    learned = learning.learn(made)
    assert_same((learned.loss, gradients(model)), expected)
    assert learning.look(made) == replace(learned, computed=0)


def test_at_its_beginning_a_student_prefers_nothing_and_then_what_it_has_learned() -> None:
    made, model = pairs(), a_model("llama", torch.float64)
    learning = Preference(computation_of(model, cross_entropy, layout=SHARED), beta=0.1)
    kept: dict[str, Tensor] = {}
    learning.begin(made[:2], made[2:], kept)
    first = learning.learn(made)
    assert (first.loss, first.accuracy, first.more) == (math.log(2), 0.0, {"rewards_margin": 0.0})
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 0.05 * parameter.grad
        model.zero_grad()
        last = learning.learn(made)
    assert last.loss < first.loss
    assert last.accuracy == 1.0
    assert last.more["rewards_margin"] > 0

    # A run that goes on finds what it compares with; one that began here would compare with itself.
    resumed = Preference(computation_of(model, cross_entropy, layout=SHARED), beta=0.1)
    resumed.begin(made[:2], made[2:], dict(kept))
    assert resumed.look(made) == replace(last, computed=0)
    anew = Preference(computation_of(model, cross_entropy, layout=SHARED), beta=0.1)
    anew.begin(made, [], {})
    assert anew.look(made).loss == pytest.approx(math.log(2))


def test_pairs_compute_their_prompt_once() -> None:
    model: Any = a_model("qwen3", torch.float64)
    learning = Preference(computation_of(model, cross_entropy, layout=SHARED), beta=0.1)
    seen: list[int] = []
    model.model.layers[0].register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape[1]))
    made = pairs(prompt=200)
    learned = learning.learn(made)
    assert sum(seen) == learned.computed  # to look, and to learn
    assert learned.computed < 2 * (200 + sum(len(each.ids) - 200 for pair in made for each in pair.examples))


# --- on-policy --------------------------------------------------------------------------------------------


def questions() -> list[Question]:
    """Of prompts and answers of different lengths; what a teacher reads begins otherwise and is longer."""
    generator = torch.Generator().manual_seed(13)
    start, hint = words(generator, 12), words(generator, 9)
    made = []
    for index in range(3):
        prompt, answer = start + words(generator, 2 + index), words(generator, 6 - index)
        ids = array("i", prompt + answer)
        answered = Example(ids=ids, mask=bytes(len(prompt)) + bytes([1]) * len(answer))
        made.append(Question(answered=answered, taught=array("i", start + hint + answer + prompt[12:])))
    return made


def judged_one_by_one(
    model: nn.Module, teacher: nn.Module, asked: list[Question], answers: Any
) -> tuple[float, Tensor]:
    """KL(student || teacher) at each token of the student's answers, over the teacher's likeliest tokens, the one that
    is there, and all others."""
    model.zero_grad()
    losses = []
    for question, answer in zip(asked, answers, strict=True):
        student_TV, teacher_TV = (
            of(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].softmax(-1)
            for of, prompt in ((model, question.prompt), (teacher, question.taught))
        )
        for place, token in enumerate(answer):
            told = set(teacher_TV[place].topk(JUDGED_TOKENS).indices.tolist()) | {token}
            bins = [(student_TV[place, each], float(teacher_TV[place, each].detach().float())) for each in sorted(told)]
            bins += [(1 - sum(s for s, _ in bins), 1 - sum(t for _, t in bins))]
            losses.append(sum(s * (s.log() - math.log(t)) for s, t in bins))
    loss = torch.stack(losses).mean()
    loss.backward()
    return float(loss.detach()), gradients(model)


@LAYOUTS
@PASSES
@pytest.mark.parametrize("itself", [True, False], ids=["itself", "another"])
def test_on_policy_has_the_divergence_from_its_teacher_at_its_own_words(
    layout: Layout, max_tokens: int, itself: bool
) -> None:
    asked, model = questions(), a_model("llama", torch.float64)
    other = moved(moved(a_model("llama", torch.float64)))
    computation = computation_of(model, reverse_kl, layout=layout, max_tokens=max_tokens)
    judge = None if itself else computation_of(other, cross_entropy, layout=PADDED)
    learning = OnPolicy(computation, judge)
    learning.begin(asked, [], {})
    averaged = deepcopy(model)
    moved(model)
    with torch.no_grad():
        for mean, own in zip(averaged.parameters(), model.parameters(), strict=True):
            mean += FOLLOWS * (own - mean)
    torch.manual_seed(5)
    answers = computation.answers([each.prompt for each in asked], [sum(each.answered.mask) for each in asked])
    assert all(0 < len(answer) <= sum(each.answered.mask) for each, answer in zip(asked, answers, strict=True))
    expected = judged_one_by_one(model, averaged if itself else other, asked, answers)
    model.zero_grad()
    torch.manual_seed(5)
    learned = learning.learn(asked)
    assert learned.loss == pytest.approx(expected[0], rel=1e-6)  # what a teacher tells is float32
    assert float((gradients(model) - expected[1]).norm() / expected[1].norm()) <= 1e-5
    # What it looks at is what rows say, as in imitation.
    rows = [each.answered for each in asked]
    assert learning.look(asked) == Imitation(computation).look(rows)


def test_a_student_that_is_its_teacher_and_reads_the_same_has_nothing_to_learn() -> None:
    asked, model = questions(), a_model("llama", torch.float64)
    same = [replace(each, taught=each.prompt) for each in asked]
    learned = OnPolicy(computation_of(model, reverse_kl, layout=SHARED), None).learn(same)
    assert abs(learned.loss) < 1e-6
    assert float(gradients(model).norm()) < 1e-4


def test_answers_are_drawn_as_the_student_would_say_them_whatever_stands_beside_them() -> None:
    model: Any = a_model("qwen3", torch.float64)
    with torch.no_grad():
        model.lm_head.weight *= 40
    computation = computation_of(model, cross_entropy, layout=SHARED, max_tokens=4000)
    short, long = array("i", [5, 9, 2]), array("i", range(2, 40))
    torch.manual_seed(0)
    count = 1500
    answers = computation.answers([short, long] * count, [1] * (2 * count))
    for prompt, drawn in ((short, answers[::2]), (long, answers[1::2])):
        chances_V = model(input_ids=torch.tensor([list(prompt)])).logits[0, -1].softmax(-1).detach()
        seen = Counter(answer[0] for answer in drawn)
        differs = sum(abs(seen[token] / count - float(chances_V[token])) for token in range(VOCABULARY)) / 2
        assert differs < 0.12
    # The control: the two prompts are not answered alike.
    first, second = (Counter(answer[0] for answer in drawn) for drawn in (answers[::2], answers[1::2]))
    assert (first & second).total() < 0.7 * count

    ended = computation.answers([short] * 200, [30] * 200)
    assert all(1 not in answer[:-1] for answer in ended)
    assert {len(answer) for answer in ended if answer[-1] != 1} <= {30}
