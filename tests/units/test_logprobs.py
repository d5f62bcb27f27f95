"""Soft labels as they are packed: nothing lost but the form, small, and hard to break."""

from __future__ import annotations

import math
import random
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stillroom import logprobs
from stillroom.logprobs import Position

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["token", "bytes", "logprob", "top_logprobs"]) | st.text(max_size=3), inner, max_size=4
        )
    ),
    max_leaves=20,
)


def entry(token: bytes, logprob: float, top: list[tuple[bytes, float]] | None = None) -> dict[str, Any]:
    said = {"token": token.decode(errors="replace"), "bytes": list(token), "logprob": logprob}
    return said if top is None else {**said, "top_logprobs": [entry(*each) for each in top]}


def answer(texts: list[str], tokens: int, k: int) -> list[dict[str, Any]]:
    """What a model might weigh: tokens of a byte-level BPE of these texts, each beside those that followed its
    predecessor somewhere and rarer ones, with the probabilities of a softmax."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8000, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    said = [token for text in texts for token in tokenizer.encode(text).tokens]
    places = {letter: number for number, letter in _letters().items()}
    chosen = random.Random(11)
    counts = Counter(said)
    vocabulary = sorted(tokenizer.get_vocab())
    weights = [math.sqrt(counts[token] + 0.5) for token in vocabulary]
    start = chosen.randrange(len(said) - tokens)
    found = []
    for token in said[start : start + tokens]:
        others = dict.fromkeys([token, *chosen.choices(vocabulary, weights, k=4 * k)])
        logits = sorted((chosen.gauss(0, 2.5) for _ in range(200)), reverse=True)
        logits[0] += chosen.choice([0, 3, 8])
        total = math.log(sum(map(math.exp, logits)))
        spelled = [bytes(places[letter] for letter in other) for other in list(others)[:k]]
        top = [(other, logit - total) for other, logit in zip(spelled, logits, strict=False)]
        found.append(entry(*top[0], top))
    return found


def _letters() -> dict[int, str]:
    """How byte-level BPE spells each byte: printable ones as themselves, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def texts(language: str) -> list[str]:
    where = {"English": ROOT / "docs", "Japanese": ROOT / "portal" / "src" / "i18n" / "ja"}[language]
    return [path.read_text() for path in sorted(where.glob("*.md" if language == "English" else "*.json"))]


@pytest.mark.parametrize("language", ["English", "Japanese"])
def test_twenty_alternatives_take_at_most_130_bytes_a_token(language: str) -> None:
    content = answer(texts(language), 200, 20)
    packed = logprobs.pack(content)
    assert len(packed) <= 130 * len(content)
    for position, said in zip(logprobs.unpack(packed), content, strict=True):
        assert position.token == bytes(said["bytes"])
        assert [token for token, _ in position.top] == [bytes(other["bytes"]) for other in said["top_logprobs"]]
        for (_, got), other in zip(position.top, said["top_logprobs"], strict=True):
            assert got == pytest.approx(other["logprob"], rel=1 / 2048)
            assert math.exp(got) == pytest.approx(math.exp(other["logprob"]), abs=0.0002)
        assert position.logprob == position.top[0][1]


def test_a_token_that_is_none_of_its_alternatives_is_kept_beside_them() -> None:
    content = [entry(b"odd", -9.5, [(b"a", -0.1), (b"b", -3.0)]), entry(b"\xe4\xba", -0.25, []), entry(b"\xac", -0.5)]
    first, second, third = logprobs.unpack(logprobs.pack(content))
    assert (first.token, first.logprob, len(first.top)) == (b"odd", -9.5, 2)
    assert second == Position(b"\xe4\xba", -0.25, ())
    assert third == Position(b"\xac", -0.5, ())


def test_a_token_whose_own_logarithm_differs_from_that_among_the_alternatives_keeps_it() -> None:
    (position,) = logprobs.unpack(logprobs.pack([entry(b"a", -2.0, [(b"a", -0.5), (b"b", -1.0)])]))
    assert position == Position(b"a", -2.0, ((b"a", -0.5), (b"b", -1.0)))


def test_places_may_have_different_numbers_of_alternatives() -> None:
    content = [entry(b"x", -1.0, [(bytes([n]), -1.0 - n) for n in range(k)]) for k in (0, 1, 5, 20, 200)]
    assert [len(position.top) for position in logprobs.unpack(logprobs.pack(content))] == [0, 1, 5, 20, 200]


def test_a_token_without_bytes_is_its_text() -> None:
    content = [{"token": "京", "logprob": -0.5, "top_logprobs": [{"token": "東", "bytes": None, "logprob": -1.0}]}]
    assert logprobs.unpack(logprobs.pack(content)) == [Position("京".encode(), -0.5, (("東".encode(), -1.0),))]


@pytest.mark.parametrize("wrong", [math.nan, None, "-1", True, [], {}])
def test_an_alternative_that_has_no_number_is_left_out_and_the_others_stay(wrong: Any) -> None:
    said = entry(b"a", -0.5, [(b"a", -0.5), (b"b", -1.5)])
    said["top_logprobs"][1]["logprob"] = wrong
    assert logprobs.unpack(logprobs.pack([said])) == [Position(b"a", -0.5, ((b"a", -0.5),))]


def test_logarithms_that_are_a_little_positive_or_infinite_are_brought_into_range() -> None:
    content = [entry(b"a", 1e-7, [(b"a", 1e-7), (b"b", -math.inf), (b"c", -1e300)])]
    (position,) = logprobs.unpack(logprobs.pack(content))
    assert position.logprob == 0
    assert [logprob for _, logprob in position.top] == [0, *[pytest.approx(-9999, rel=1 / 1000)] * 2]


def test_weights_that_add_up_to_more_than_one_are_no_distribution() -> None:
    content = [entry(b"a", -0.1, [(b"a", 4.0), (b"b", 3.0)]), entry(b"a", -0.1, [(b"a", -0.1), (b"b", -2.4)])]
    assert [len(position.top) for position in logprobs.unpack(logprobs.pack(content))] == [0, 2]


def test_what_cannot_be_read_keeps_its_place() -> None:
    content = [entry(b"a", -1.0), "nonsense", {"token": 7}, {"bytes": [999], "logprob": -1}, entry(b"b", -1.0)]
    assert [position.token for position in logprobs.unpack(logprobs.pack(content))] == [b"a", b"", b"", b"", b"b"]


@given(st.lists(JSON, max_size=6))
@settings(max_examples=60)
def test_any_json_can_be_packed_and_unpacked(content: list[Any]) -> None:
    assert len(logprobs.unpack(logprobs.pack(content))) == len(content)


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_damaged_bytes_are_refused(plain: bytes) -> None:
    for data in (plain, logprobs.VERSION + plain, logprobs.VERSION + zlib.compress(plain)):
        try:
            logprobs.unpack(data)
        except ValueError:
            continue


def test_bytes_that_are_cut_off_are_refused() -> None:
    packed = logprobs.pack([entry(b"a", -1.0, [(b"a", -1.0)])])
    for end in range(len(packed)):
        with pytest.raises(ValueError, match="packed logprobs"):
            logprobs.unpack(packed[:end])


def test_bytes_that_unfold_to_more_than_memory_are_refused() -> None:
    bomb = logprobs.VERSION + zlib.compress(bytes(logprobs.MOST_BYTES + 1))
    with pytest.raises(ValueError, match="too much"):
        logprobs.unpack(bomb)


def alike(count: int, top: int) -> bytes:
    """As many tokens with so many alternatives as are said to be there, all alike: few bytes that unfold to many."""
    entries = count * (top or 1)
    numbers = logprobs._numbers([count, *[top] * count, *[min(top, 1)] * count])
    return logprobs.VERSION + zlib.compress(numbers + bytes(3 * entries), 9)


@pytest.mark.parametrize(
    ("count", "top"), [(logprobs.MOST_POSITIONS + 1, 0), (logprobs.MOST_ENTRIES // 1000 + 1, 1000)]
)
def test_more_tokens_or_alternatives_than_an_answer_has_are_refused_before_any_is_made(count: int, top: int) -> None:
    data = alike(count, top)
    assert len(data) < 10_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="at most"):
        logprobs.unpack(data)
    most, _ = tracemalloc.get_traced_memory()[1], tracemalloc.stop()
    assert most < 40_000_000  # what it unfolds to, thrice; the tokens would be some hundred millions


def test_to_be_checked_labels_need_not_be_made() -> None:
    text = logprobs.as_text(alike(2000, 20))
    used = []
    for read in (logprobs.check_message, logprobs.of_message):
        tracemalloc.start()
        found = read(text)
        used.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        del found
    assert used[0] < used[1] / 5


def test_an_answer_of_more_tokens_than_can_be_kept_keeps_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "MOST_POSITIONS", 3)
    monkeypatch.setattr(logprobs, "MOST_ENTRIES", 5)
    content = [entry(bytes([n]), -1.0, [(bytes([n]), -1.0)]) for n in range(5)]
    assert [position.token for position in logprobs.unpack(logprobs.pack(content))] == [b"\0", b"\1"]
    bare = [entry(bytes([n]), -1.0) for n in range(5)]
    assert len(logprobs.positions(bare)) == len(logprobs.unpack(logprobs.pack(bare))) == 3


@given(st.binary(max_size=60))
@settings(max_examples=60)
def test_what_is_checked_is_what_can_be_read(plain: bytes) -> None:
    text = logprobs.as_text(logprobs.VERSION + zlib.compress(plain))

    def refused(read: Callable[[Any], Any]) -> str | None:
        try:
            read(text)
        except ValueError as error:
            return str(error)
        return None

    assert refused(logprobs.check_message) == refused(logprobs.of_message)


def test_a_row_may_hold_either_form() -> None:
    content = [entry(b"a", -1.0, [(b"a", -1.0), (b"b", -2.0)])]
    as_object = logprobs.of_message({"content": content, "refusal": None})
    assert as_object == logprobs.of_message(logprobs.as_text(logprobs.pack(content)))
    assert logprobs.of_message({"content": None}) == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("%%", "no base64"),
        ("AAAA", "newer version"),
        (7, "must be an object"),
        ({"content": "text"}, "must be an object"),
        ({"content": [{"token": "a"}]}, r"content\[0\]"),
    ],
)
def test_what_is_neither_form_is_refused_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        logprobs.of_message(value)
