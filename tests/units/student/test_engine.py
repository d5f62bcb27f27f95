"""The engine at token level, with transformers' own generate() as the other derivation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from stillroom.errors import InvalidRequest, ModelNotFound, StudentUnavailable
from stillroom.student.bases.adapters import load_adapter
from stillroom.student.bases.base_models import Student, open_artefact
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.examples import Row
from stillroom.student.chats.tokenizer import train_tokenizer
from stillroom.student.hyperparameters import Hyperparameters
from stillroom.student.serving.engine import Engine, FinishReason, GenerateRequest, TokenEvent, describe_token
from stillroom.student.serving.sampling import Sampler, Sampling
from stillroom.student.serving.text_stream import Characters, Holdback

from .conftest import trained_run

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def student(trained_folder: Path) -> Student:
    return open_artefact(trained_folder)


@pytest.fixture
def serving(engine: Engine, student: Student) -> Engine:
    engine.attach_student("kyle", student)
    return engine


async def _all(engine: Engine, request: GenerateRequest, *, after_seconds: float = 0) -> list[TokenEvent]:
    await asyncio.sleep(after_seconds)
    return [event async for event in engine.generate(request)]


def _ids(events: Sequence[TokenEvent]) -> list[int]:
    return [event.token_id for event in events]


def _text(events: Sequence[TokenEvent]) -> str:
    return "".join(event.text for event in events)


def _request(prompt: Sequence[int], max_tokens: int = 12, **options: object) -> GenerateRequest:
    return GenerateRequest(model="kyle", prompt_ids=prompt, max_tokens=max_tokens, **options)  # type: ignore[arg-type]


def _prompts(student: Student, rows: list[Row]) -> list[list[int]]:
    """Some with a common system prompt, some without one, all of different lengths."""
    template = student.template
    with_system = [template.encode_prompt(row.messages[:2]) for row in rows[:4]]
    without = [template.encode_prompt([{"role": "user", "content": "x " * size}]) for size in (1, 7, 40)]
    return [*with_system, *without]


def _reference(student: Student, prompt: list[int], max_tokens: int) -> list[int]:
    assert isinstance(student.model, PreTrainedModel)
    ids_1T = torch.tensor([prompt])
    generated = student.model.generate(
        ids_1T,
        attention_mask=torch.ones_like(ids_1T),
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=list(student.template.end_ids),
        pad_token_id=0,
    )
    return list(generated[0, len(prompt) :].tolist())


def test_greedy_answers_are_transformers_own_however_requests_join(
    serving: Engine, student: Student, ticket_rows: list[Row]
) -> None:
    prompts = _prompts(student, ticket_rows)
    lengths = [3, 30, 12, 30, 1, 25, 18]

    async def ask() -> list[list[TokenEvent]]:
        requests = [
            _all(serving, _request(prompt, length, sampling=GREEDY), after_seconds=0.01 * index)
            for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]
        return await asyncio.gather(*requests)

    answers = asyncio.run(ask())
    for prompt, length, answer in zip(prompts, lengths, answers, strict=True):
        assert _ids(answer) == _reference(student, prompt, length)
        assert answer[-1].finish is not None and all(event.finish is None for event in answer[:-1])
    assert serving.stats()["kyle"]["cached_prompt_tokens"] > 0


def test_a_merged_adapter_answers_as_its_trainer_would(
    engine: Engine, tmp_path: Path, ticket_rows: list[Row], tiny_base: BaseReference
) -> None:
    fast = Hyperparameters(n_epochs=2, batch_size=4, learning_rate_multiplier=30.0)
    events = trained_run(tmp_path, ticket_rows, base=tiny_base, hyperparameters=fast)
    plain = AutoModelForCausalLM.from_pretrained(tiny_base.path)
    adapted = load_adapter(plain, Path(events[-1]["path"]), trainable=False).eval()

    asyncio.run(engine.attach("kyle", Path(events[-1]["path"])))
    prompt = engine.student("kyle").template.encode_prompt(ticket_rows[0].messages[:2])
    answer = asyncio.run(_all(engine, _request(prompt, 10, sampling=GREEDY)))
    ids = list(prompt)
    with torch.no_grad():
        for event in answer:
            assert event.token_id == int(adapted(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(event.token_id)


def test_a_seeded_answer_does_not_depend_on_who_shares_the_batch(
    serving: Engine, student: Student, ticket_rows: list[Row]
) -> None:
    prompts = _prompts(student, ticket_rows)
    seeded = _request(prompts[0], 20, sampling=Sampling(temperature=1.0, top_p=0.95, seed=42))

    async def with_company() -> list[int]:
        others = [_request(prompt, 25, sampling=Sampling(seed=None)) for prompt in prompts[1:]]
        answers = await asyncio.gather(*(_all(serving, request) for request in [*others[:3], seeded, *others[3:]]))
        return _ids(answers[3])

    alone = _ids(asyncio.run(_all(serving, seeded)))
    assert asyncio.run(with_company()) == alone
    other = _request(prompts[0], 20, sampling=Sampling(temperature=1.0, top_p=0.95, seed=43))
    assert _ids(asyncio.run(_all(serving, other))) != alone


def test_tokens_are_drawn_as_often_as_their_probability_says_within_top_p() -> None:
    logits_V = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()

    def shares(sampling: Sampling) -> list[float]:
        sampler = Sampler(sampling)
        drawn = torch.tensor([sampler.pick(logits_V).token_id for _ in range(4000)])
        return (torch.bincount(drawn, minlength=4) / 4000).tolist()

    assert shares(Sampling(seed=1)) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert shares(Sampling(seed=1, top_p=0.8)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(Sampling(seed=1, top_p=0.0)) == [1, 0, 0, 0]
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    assert shares(Sampling(seed=1, temperature=0.5)) == pytest.approx((squares / squares.sum()).tolist(), abs=0.03)


def test_a_stop_string_across_tokens_ends_the_answer_and_is_never_shown(
    serving: Engine, student: Student, ticket_rows: list[Row]
) -> None:
    prompt = _prompts(student, ticket_rows)[1]
    whole = _text(asyncio.run(_all(serving, _request(prompt, 30, sampling=GREEDY))))
    stop = whole[5:14]
    assert len(student.template.tokenizer.encode(stop)) > 1
    events = asyncio.run(_all(serving, _request(prompt, 30, sampling=GREEDY, stop=("never", stop))))
    assert _text(events) == whole[: whole.index(stop)]
    assert events[-1].finish is FinishReason.STOP


def test_what_only_begins_like_a_stop_string_is_shown_in_the_end() -> None:
    holdback = Holdback(["<stop>"])
    assert [holdback.push(text) for text in ("a<", "st", "ub<s")] == ["a", "", "<stub"]
    assert holdback.finish() == "<s"


def test_streamed_text_never_splits_a_character() -> None:
    tokenizer = train_tokenizer(["abc"])  # has seen no Japanese: every character is three tokens
    text = "質問: 👩‍🚀 は?"
    characters = Characters(tokenizer)
    shown = [characters.push(token) for token in tokenizer.encode(text)]
    assert all("\ufffd" not in piece for piece in shown)
    assert "".join(shown) == text and characters.finish() == ""


def test_the_bytes_of_an_answers_tokens_spell_it_where_they_split_characters_too(student: Student) -> None:
    answer = "東京です。👩‍🚀"  # the student has learned English tickets
    told = [describe_token(student, token) for token in student.template.tokenizer.encode(answer)]
    assert any("\ufffd" in each["token"] for each in told)
    assert b"".join(bytes(each["bytes"]) for each in told).decode() == answer
    (end,) = {each["token"] for each in (describe_token(student, token) for token in student.template.end_ids)}
    assert end == "<|im_end|>"


def test_a_character_that_stays_incomplete_comes_as_a_replacement() -> None:
    tokenizer = train_tokenizer(["abc"])
    characters = Characters(tokenizer)
    assert [characters.push(token) for token in tokenizer.encode("質")[:2]] == ["", ""]
    assert "\ufffd" in characters.finish()


def test_closing_the_iterator_cancels_and_frees_the_place(serving: Engine, student: Student) -> None:
    prompt = student.template.encode_prompt([{"role": "user", "content": "go on"}])
    ends = dict.fromkeys(student.template.end_ids, -100.0)

    async def read_three_and_leave() -> None:
        events = serving.generate(_request(prompt, 5000, sampling=Sampling(temperature=0, logit_bias=ends)))
        for _ in range(3):
            await anext(events)
        await events.aclose()
        while serving.stats()["kyle"]["running"]:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(read_three_and_leave(), timeout=10))
    assert serving.stats()["kyle"]["generated_tokens"] < 500


def test_a_prompt_beyond_the_context_is_refused_in_openais_words(serving: Engine) -> None:
    with pytest.raises(
        InvalidRequest, match=r"maximum context length is 8192 tokens\. However, your messages"
    ) as caught:
        serving.generate(_request([1] * 8192))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_max_tokens_are_clipped_to_the_room_left(serving: Engine) -> None:
    events = asyncio.run(_all(serving, _request([5] * 8190, 100, sampling=GREEDY)))
    assert len(events) <= 2


def test_penalties_and_bias_steer_the_choice() -> None:
    logits_V = torch.tensor([3.0, 2.0, 1.5, -1.0])

    def picked(**options: Any) -> list[int]:
        sampler = Sampler(Sampling(temperature=0, **options))
        return [sampler.pick(logits_V).token_id for _ in range(4)]

    assert picked() == [0, 0, 0, 0]
    assert picked(logit_bias={3: 100.0}) == [3, 3, 3, 3]
    assert picked(presence_penalty=1.8) == [0, 1, 2, 0]
    assert picked(frequency_penalty=1.2) == [0, 1, 0, 2]


def test_scores_are_the_log_probabilities_that_generation_reports(
    serving: Engine, student: Student, ticket_rows: list[Row]
) -> None:
    prompt = _prompts(student, ticket_rows)[2]
    told = Sampling(temperature=0, top_logprobs=3)

    async def both() -> None:
        events = await _all(serving, _request(prompt, 6, sampling=told))
        scored = await serving.score("kyle", [*prompt, *_ids(events)], start=len(prompt), k=3)
        assert [each.token_id for each in scored] == _ids(events)
        for score, event in zip(scored, events, strict=True):
            assert score.logprob == pytest.approx(event.logprob, abs=1e-4)
            assert [token for token, _ in score.top] == [token for token, _ in event.top]

    asyncio.run(both())


def test_unknown_and_detached_students_are_said(serving: Engine, student: Student) -> None:
    async def detach_while_running() -> None:
        ends = dict.fromkeys(student.template.end_ids, -100.0)
        events = serving.generate(_request([5, 6], 5000, sampling=Sampling(logit_bias=ends)))
        await anext(events)
        await serving.detach("kyle")
        with pytest.raises(StudentUnavailable, match="detached"):
            async for _ in events:
                pass

    asyncio.run(detach_while_running())
    with pytest.raises(ModelNotFound):
        serving.generate(_request([5]))
