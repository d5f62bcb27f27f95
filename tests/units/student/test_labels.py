"""A teacher's distributions on a student's tokens, where the two cut text differently."""

from __future__ import annotations

import base64
import json
import math
import random
from array import array
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stillroom.errors import InvalidTrainingFile
from stillroom.logprobs import Position, pack
from stillroom.student.chats.examples import Row, encode_rows
from stillroom.student.chats.labels import SoftLabels, Vocabulary, aligned, soft_labels
from stillroom.student.chats.template import CHATML, ChatTemplate, Example
from stillroom.student.chats.tokenizer import train_tokenizer
from stillroom.student.training.targets import labelled_tokens

ENGLISH = (
    "The parcel was shipped on Monday and should arrive before the weekend. Shipping costs are not refunded. "
    "Please keep the receipt; the courier may ask for it. 🙂 A café near the station keeps parcels, too."
)
JAPANESE = (
    "お荷物は月曜日に発送されました。週末までに届く予定です。送料は返金されません。"
    "領収書を保管してください。配達員が確認する場合があります。駅の近くのカフェでも受け取れます。"
)


def of_bytes() -> PreTrainedTokenizerBase:
    """As scratch students have it, learned from a part of the texts."""
    return train_tokenizer([ENGLISH[:90], JAPANESE[:30]] * 3)


def of_characters() -> PreTrainedTokenizerBase:
    """As Llama 2, Mistral and Phi-3 have it: a mark for spaces, and bytes for characters that have no token."""
    texts = [text.replace(" ", "▁") for text in (ENGLISH[:150], JAPANESE[:60])] * 3
    learned = Tokenizer(models.BPE())
    learned.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    told = json.loads(learned.to_str())["model"]
    vocabulary = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *told["vocab"]]
    made = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(vocabulary)},
            merges=[tuple(pair) for pair in told["merges"]],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


def a_teachers() -> PreTrainedTokenizerBase:
    """With longer words than the students know, learned from all of the texts."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(
        [ENGLISH, JAPANESE] * 4,
        trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        ),
    )
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def said(text: str, teacher: PreTrainedTokenizerBase, *, likely: int = 6) -> list[Position]:
    """What a teacher tells of an answer, with some of its other tokens as what it could have said."""
    draw, vocabulary = random.Random(1), Vocabulary(teacher)
    positions = []
    for token in teacher.encode(text, add_special_tokens=False):
        others = [each for each in draw.sample(range(len(teacher)), likely) if each != token]
        chances = {each: draw.random() for each in (token, *others)}
        told = [(vocabulary.bytes_of(each), chance / (1 + sum(chances.values()))) for each, chance in chances.items()]
        top = tuple((spelled, math.log(chance)) for spelled, chance in told)
        positions.append(Position(*top[0], top))
    return positions


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE], ids=["English", "Japanese"])
@pytest.mark.parametrize("student", [of_bytes, of_characters])
def test_labels_lie_where_both_begin_a_token_and_hold_the_teachers_mass(student: Any, text: str) -> None:
    tokenizer, teacher = student(), a_teachers()
    turn = tokenizer.encode(text, add_special_tokens=False)
    positions = said(text, teacher)
    found = aligned(turn, text, positions, Vocabulary(tokenizer))

    # Where each token begins, found by decoding ever longer beginnings; those that end within a character say nothing.
    def spelled(ids: list[int]) -> bytes | None:
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return None if "\ufffd" in decoded else decoded.encode()

    beginnings = [spelled(turn[:place]) for place in range(len(turn) + 1)]
    teachers = [len(b"".join(position.token for position in positions[:at])) for at in range(len(positions))]
    checked = 0
    for place in range(len(turn)):
        begins, ends = beginnings[place], beginnings[place + 1]
        if begins is None or ends is None:
            continue
        checked += 1
        both = len(begins) in teachers
        position = positions[teachers.index(len(begins))] if both else None
        goes_on = position is not None and len(ends) - len(begins) <= len(position.token)
        assert (place in found) == (both and goes_on), (place, begins)
        if position is not None and place in found:
            own = math.exp(position.logprob)
            assert found[place][turn[place]] >= own - 1e-12
            # The teacher's mass is all there, and each of its tokens begins with the one that speaks for it.
            assert sum(found[place].values()) == pytest.approx(sum(math.exp(each) for _, each in position.top))
            spellings = {tokenizer.decode([token]).encode() for token in found[place]}
            for other, _ in position.top:
                if not other.decode(errors="replace").count("\ufffd"):
                    assert any(other.startswith(each) or b"\xef\xbf\xbd" in each for each in spellings)
    assert checked > 3
    assert 0 < len(found) < len(turn)  # they do cut differently


def test_with_one_tokenizer_every_token_has_the_teachers_own_distribution() -> None:
    teacher = a_teachers()
    turn = teacher.encode(ENGLISH, add_special_tokens=False)
    positions = said(ENGLISH, teacher)
    found = aligned(turn, ENGLISH, positions, Vocabulary(teacher))
    assert list(found) == list(range(len(turn)))
    ids = {spelled: token for token in range(len(teacher)) if (spelled := Vocabulary(teacher).bytes_of(token))}
    for place, position in enumerate(positions):
        expected = {ids[spelled]: math.exp(logprob) for spelled, logprob in position.top}
        assert found[place] == pytest.approx(expected)


def test_tokens_of_one_beginning_add_up_and_what_begins_with_none_is_left_to_the_others() -> None:
    tokenizer = of_bytes()
    vocabulary = Vocabulary(tokenizer)
    turn = tokenizer.encode("abc", add_special_tokens=False)
    begin = vocabulary.bytes_of(turn[0])
    top = ((b"abc", math.log(0.5)), (begin, math.log(0.2)), (b"\xff\xfe", math.log(0.1)), (b"", math.log(0.1)))
    found = aligned(turn, "abc", [Position(*top[0], top)], vocabulary)
    assert found[0][turn[0]] == pytest.approx(0.7)
    assert sum(found[0].values()) == pytest.approx(0.8)  # the byte has a token of its own; nothing has none


@pytest.mark.parametrize(
    ("content", "told", "labelled"),
    [
        ("abc", "abc", True),
        (" abc\n", "abc", True),
        ("abc", "Let me think. abc", True),  # a teacher tells of its thoughts, too
        ("<think>\nso\n</think>\n\nabc", "abc", True),  # a row keeps them, and the teacher tells of the answer alone
        ("abd", "abc", False),
        ("abc", "", False),
    ],
)
def test_only_the_words_that_the_teacher_wrote_are_labelled(content: str, told: str, labelled: bool) -> None:
    tokenizer = of_bytes()
    positions = [Position(bytes([byte]), -1.0, ((bytes([byte]), -1.0), (b"z", -2.0))) for byte in told.encode()]
    turn = tokenizer.encode(content, add_special_tokens=False)
    assert bool(aligned(turn, content, positions, Vocabulary(tokenizer))) is labelled


def test_a_position_without_alternatives_is_no_label() -> None:
    tokenizer = of_bytes()
    turn = tokenizer.encode("abc", add_special_tokens=False)
    assert aligned(turn, "abc", [Position(b"abc", -0.1, ())], Vocabulary(tokenizer)) == {}


# --- in rows ----------------------------------------------------------------------------------------------


def _template() -> ChatTemplate:
    tokenizer = train_tokenizer([ENGLISH] * 3)
    tokenizer.chat_template = CHATML
    return ChatTemplate(tokenizer, end_ids=[tokenizer.eos_token_id], name="tiny")


def _row(logprobs: Any, **more: Any) -> Row:
    answer = {"role": "assistant", "content": "shipped on Monday", "logprobs": logprobs, **more}
    return Row(line=3, messages=[{"role": "user", "content": "Where is it?"}, answer], tools=[])


def _content(text: str) -> list[dict[str, Any]]:
    return [
        {
            "token": position.token.decode(errors="replace"),
            "bytes": list(position.token),
            "logprob": position.logprob,
            "top_logprobs": [
                {"token": spelled.decode(errors="replace"), "bytes": list(spelled), "logprob": logprob}
                for spelled, logprob in position.top
            ],
        }
        for position in said(text, a_teachers())
    ]


def _labels(row: Row, *, labelled: bool = True) -> SoftLabels | None:
    (example,) = encode_rows([row], _template(), context_tokens=1000, labelled=labelled)
    return example.labels


def test_rows_carry_logprobs_as_openai_writes_them_or_packed() -> None:
    content = _content("shipped on Monday")
    plain = _labels(_row({"content": content}))
    packed = _labels(_row(base64.b64encode(pack(content)).decode()))
    assert plain is not None
    assert packed is not None
    assert plain.places_S.tolist() == packed.places_S.tolist() != []
    assert plain.chances_SK == pytest.approx(packed.chances_SK, abs=1e-3)
    # The controls: not asked for, or not trained.
    assert _labels(_row({"content": content}), labelled=False) is None
    both = Row(line=1, messages=[*_row({"content": content}, weight=0).messages, *_row(None).messages], tools=[])
    assert _labels(both) is None


def test_logprobs_that_cannot_be_read_are_named_with_their_line() -> None:
    with pytest.raises(InvalidTrainingFile, match=r"Line 3: .*base64"):
        _labels(_row("?"))


def test_a_tokenizer_learns_nothing_from_logprobs() -> None:
    assert list(_row("AAAA").texts()) == list(_row(None).texts())


def test_labels_behind_a_cut_are_gone() -> None:
    labels = soft_labels({2: {1: 0.5}, 4: {1: 0.5}})
    example = Example(ids=array("i", range(6)), mask=bytes([0, 1, 1, 1, 1, 1]), labels=labels)
    assert labelled_tokens(example) == (2, 5)
    assert labelled_tokens(example.cut(4)) == (1, 3)
