"""Soft labels: what a teacher held likely at each token of its answer, put on the student's tokens.

Teacher and student may cut text differently, so that only bytes can be compared: a student's token gets a
distribution where a token of the teacher's begins at the same byte and goes on at least as long. Each of the
teacher's tokens then speaks for the student's token that begins it; those that speak for the same one add up.
Where the teacher's own token ends within the student's, nobody knows how likely the rest was: no label.

Knows tokenizers and bytes; neither files nor losses.

S labelled tokens of an example, of K student's tokens at most
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from stillroom.logprobs import Position

NO_TOKEN = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftLabels:
    """Distributions over a student's next token, at some tokens of an example."""

    places_S: numpy.ndarray
    """Which token of the example, in order."""
    tokens_SK: numpy.ndarray
    """Token ids, each once in its row; NO_TOKEN where a row has fewer. int32."""
    chances_SK: numpy.ndarray
    """Probabilities; what a row lacks to 1 are all other tokens together. float32."""

    def rows_at(self, places: numpy.ndarray) -> numpy.ndarray:
        """The row of each place; -1 for those without a label."""
        rows = numpy.searchsorted(self.places_S, places)
        rows[rows == len(self.places_S)] = 0
        found = self.places_S[rows] == places if len(self.places_S) else numpy.zeros(len(places), dtype=bool)
        return numpy.where(found, rows, -1)

    def widened(self, width: int) -> SoftLabels:
        """The same with room for so many tokens in a row."""
        missing = ((0, 0), (0, width - self.tokens_SK.shape[1]))
        return SoftLabels(
            places_S=self.places_S,
            tokens_SK=numpy.pad(self.tokens_SK, missing, constant_values=NO_TOKEN),
            chances_SK=numpy.pad(self.chances_SK, missing),
        )


def soft_labels(found: Mapping[int, Mapping[int, float]]) -> SoftLabels | None:
    """From probabilities by place and token; None of nothing."""
    if not found:
        return None
    places = sorted(found)
    width = max(len(found[place]) for place in places)
    tokens_SK = numpy.full((len(places), width), NO_TOKEN, dtype=numpy.int32)
    chances_SK = numpy.zeros((len(places), width), dtype=numpy.float32)
    for row, place in enumerate(places):
        count = len(found[place])
        tokens_SK[row, :count] = list(found[place])
        chances_SK[row, :count] = list(found[place].values())
    return SoftLabels(places_S=numpy.array(places), tokens_SK=tokens_SK, chances_SK=chances_SK)


class Vocabulary:
    """A tokenizer's tokens as the bytes that they stand for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder
        read = _bytes_of_letters if _writes_bytes(tokenizer) else _bytes_of_text
        self._bytes: dict[int, bytes] = {
            place: token.encode() if place in added else read(token) for token, place in tokenizer.get_vocab().items()
        }
        self._controls = {place for place, token in added.items() if token.special}
        # Where several stand for the same bytes: rather a word than one of the bytes that stand in for unknown
        # characters, and then the first.
        stand_ins = {place for token, place in tokenizer.get_vocab().items() if _STAND_IN.fullmatch(token)}
        ranked = sorted(self._bytes, key=lambda place: (place not in stand_ins, -place))
        self._ids = {self._bytes[place]: place for place in ranked}
        self._longest = max(map(len, self._ids))
        self._beginning: dict[bytes, int | None] = {}

    def bytes_of(self, token: int) -> bytes:
        """What the token writes into an answer: nothing if it is a control token."""
        return b"" if token in self._controls else self._bytes.get(token, b"")

    def beginning(self, text: bytes) -> int | None:
        """The longest token that the text begins with; None if there is none."""
        if text not in self._beginning:
            lengths = range(min(len(text), self._longest), 0, -1)
            self._beginning[text] = next((self._ids[text[:end]] for end in lengths if text[:end] in self._ids), None)
        return self._beginning[text]


def aligned(
    turn: Sequence[int], content: str, positions: Sequence[Position], vocabulary: Vocabulary
) -> dict[int, dict[int, float]]:
    """The teacher's distributions over the student's next token, by places in the turn.

    Of `positions`, those that wrote the content count, of which they may be a part or which may be a part of theirs:
    what a teacher thought before it answered is told by some, and kept in rows by some. {} where the texts differ.
    """
    pieces, teachers = [vocabulary.bytes_of(token) for token in turn], [position.token for position in positions]
    core = min(content.strip().encode(), b"".join(teachers).strip(), key=len)
    starts, teachers_starts = _starts(pieces), _starts(teachers)
    own = next(_where(core, pieces, starts), None)
    theirs = next(_where(core, teachers, teachers_starts[::-1]), None)
    if not core or own is None or theirs is None:
        return {}
    positions_at = {start - theirs: each for start, each in zip(teachers_starts, positions, strict=True) if each.token}
    found: dict[int, dict[int, float]] = {}
    for place, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
        position = positions_at.get(start - own) if piece and 0 <= start - own < len(core) else None
        if position is not None and position.top and position.token.startswith(piece):
            found[place] = _distribution(position, turn[place], vocabulary)
    return found


def _starts(pieces: Sequence[bytes]) -> list[int]:
    """At which byte each begins."""
    return [0, *accumulate(map(len, pieces))][:-1]


def _where(core: bytes, pieces: Sequence[bytes], starts: Sequence[int]) -> Iterator[int]:
    """Where the text stands among the pieces: rather where one of them begins."""
    text = b"".join(pieces)
    yield from (start for start in starts if text.startswith(core, start))
    if core in text:
        yield text.index(core)


def _distribution(position: Position, token: int, vocabulary: Vocabulary) -> dict[int, float]:
    """Over the student's tokens; of the teacher's own we know which one that is."""
    chances = {position.token: position.logprob} | dict(position.top)
    found: dict[int, float] = {}
    for text, logprob in chances.items():
        speaks_for = token if text == position.token else vocabulary.beginning(text)
        if speaks_for is not None:
            found[speaks_for] = found.get(speaks_for, 0.0) + math.exp(logprob)
    total = max(1.0, sum(found.values()))  # rounded, they may come to a little more
    return {each: chance / total for each, chance in found.items()}


# --- how tokenizers write bytes ---------------------------------------------------------------------

_STAND_IN = re.compile("<0x([0-9A-F]{2})>")
_SPACE = "▁"


def _writes_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every character of a token is a byte, as GPT-2 began it; otherwise they are characters (SentencePiece)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return isinstance(backend, Tokenizer) and '"ByteLevel"' in json.dumps(json.loads(backend.to_str())["decoder"])


@cache
def _letters() -> dict[str, int]:
    """GPT-2's letter for each byte."""
    return {str(letter): int(byte) for byte, letter in bytes_to_unicode().items()}


def _bytes_of_letters(token: str) -> bytes:
    """Nothing for a token with letters that are no bytes."""
    letters = _letters()
    return bytes(letters[letter] for letter in token) if all(letter in letters for letter in token) else b""


def _bytes_of_text(token: str) -> bytes:
    stand_in = _STAND_IN.fullmatch(token)
    return bytes([int(stand_in[1], 16)]) if stand_in else token.replace(_SPACE, " ").encode()
