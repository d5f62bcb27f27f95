"""The tokens a teacher weighed at each place of its answer, packed: `soft labels`, about 100 bytes a token.

Teachers tell them as OpenAI does, in `choices[].logprobs.content`: a kilobyte and more of JSON for each token
when 20 alternatives are asked for. Packed are the tokens' bytes and their logarithms of probability, each
kind in a row of its own, because like beside like is what compresses. What is lost is the form, and of a
logarithm what has no place in a half-precision float: it is right to one part in 2,048, a probability
therefore to 0.02 percentage points. What no probability can be (NaN, text, a sum above 1) is left out.
What is packed may come from anyone: how much it makes is known before any of it is made.

Knows nothing of tokenizers, models or databases; standard library only.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, NamedTuple

VERSION = b"\x01"
IMPOSSIBLE = -9999.0  # OpenAI's word for a token of no probability at all
MOST_SUM = 1.02  # of a place's probabilities; what adds up to more is something else
MOST_BYTES = 32 * 1024 * 1024  # that packed logprobs may unfold to: those of 100,000 tokens, and more
MOST_POSITIONS = 100_000  # tokens of an answer, and
MOST_ENTRIES = 21 * MOST_POSITIONS  # what is written down for them: what comes after these is left out
MOST_BITS = 28  # of a number in them, but for its last seven
SAME = 1 / 1024  # two logarithms that differ by less, as a part of themselves, are one when packed


class Position(NamedTuple):
    """One token of an answer: its bytes, its logarithm of probability, and the alternatives as the teacher
    ordered them, itself mostly among them. Empty bytes: the token has none, or could not be read."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


def pack(content: Sequence[Any]) -> bytes:
    """OpenAI's `logprobs.content` as few bytes. Never fails, like `positions`."""
    return packed(positions(content))


def positions(content: Iterable[Any]) -> list[Position]:
    """OpenAI's `logprobs.content` as it is read here. What cannot be read becomes a position without bytes, so that
    the others keep their places."""
    return list(_fitting(_position(entry) or Position(b"", IMPOSSIBLE, ()) for entry in content))


def packed(positions: Sequence[Position]) -> bytes:
    """The positions in VERSION's form, as far as they can be unpacked again."""
    kept = list(_fitting(positions))
    chosen = [_place(position) for position in kept]
    entries = list(_entries(kept, chosen))
    logarithms = struct.pack(f"<{len(entries)}e", *(logprob for _, logprob in entries))
    counts = [len(position.top) for position in kept]
    rows = (
        _numbers([len(kept), *counts, *chosen, *(len(token) for token, _ in entries)]),
        b"".join(token for token, _ in entries),
        logarithms[1::2],  # sign and magnitude, which resemble each other; the fine part does not
        logarithms[0::2],
    )
    return VERSION + zlib.compress(b"".join(rows), 9)


def unpack(data: bytes) -> list[Position]:
    """What `pack` was given. Raises ValueError for anything else."""
    return list(_positions(_parts(data)))


def of_message(value: Any) -> list[Position]:
    """The positions in a training row's `logprobs`: OpenAI's object, or base64 of what `pack` makes.
    Raises ValueError, saying what is wrong."""
    return unpack(_packed_in(value)) if isinstance(value, str) else list(_fitting(_readable(value)))


def check_message(value: Any) -> None:
    """Raises ValueError where `of_message` would, at a fraction of its cost."""
    if isinstance(value, str):
        _parts(_packed_in(value))
    else:
        for _ in _readable(value):
            pass


def as_text(data: bytes) -> str:
    """Packed logprobs as a training row holds them."""
    return base64.b64encode(data).decode()


def _packed_in(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"`logprobs` is text, but no base64: {error}") from error


def _readable(value: Any) -> Iterator[Position]:
    content = value.get("content") if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or not isinstance(content, (list, type(None))):
        raise ValueError("`logprobs` must be an object with a list `content`, or the base64 of packed logprobs")
    for place, entry in enumerate(content or ()):
        found = _position(entry)
        if found is None:
            raise ValueError(f"`logprobs.content[{place}]` is no object with a `token` or `bytes`, and a `logprob`")
        yield found


def _fitting(positions: Iterable[Position]) -> Iterator[Position]:
    """As many of them as can be packed."""
    room = MOST_ENTRIES
    for position in islice(positions, MOST_POSITIONS):
        room -= len(position.top) + 1
        if room < 0:
            return
        yield position


def _position(entry: Any) -> Position | None:
    own = _weighed(entry)
    if own is None:
        return None
    listed = entry.get("top_logprobs")
    found = map(_weighed, listed) if isinstance(listed, list) else ()
    top = tuple(each for each in found if each is not None)
    if sum(math.exp(logprob) for _, logprob in top) > MOST_SUM:
        top = ()
    return Position(*own, top)


def _weighed(entry: Any) -> tuple[bytes, float] | None:
    """A token's bytes and logarithm; None when one of them cannot be read."""
    if not isinstance(entry, Mapping):
        return None
    token, logprob = _bytes(entry), entry.get("logprob")
    if token is None or isinstance(logprob, bool) or not isinstance(logprob, (int, float)):
        return None
    # A rounding error may lift a teacher's above 0. The order matters: NaN stays what it is.
    within = float(min(max(logprob, IMPOSSIBLE), 0.0))
    return None if math.isnan(within) else (token, within)


def _bytes(entry: Mapping[str, Any]) -> bytes | None:
    listed, token = entry.get("bytes"), entry.get("token")
    if isinstance(listed, list):
        try:
            return bytes(listed)
        except (TypeError, ValueError):
            pass  # then its text is the next best
    return token.encode(errors="replace") if isinstance(token, str) else None


def _entries(positions: Sequence[Position], chosen: Sequence[int]) -> Iterator[tuple[bytes, float]]:
    """Every token that is written down: a position's alternatives, and its own token when it is none of them."""
    for position, place in zip(positions, chosen, strict=True):
        yield from position.top
        if not place:
            yield position.token, position.logprob


def _place(position: Position) -> int:
    """Which of the alternatives, from 1, is the token itself; 0 when none is."""
    for place, (token, logprob) in enumerate(position.top, 1):
        if token == position.token and abs(logprob - position.logprob) <= SAME * abs(logprob):
            return place
    return 0


def _numbers(values: Iterable[int]) -> bytes:
    """Seven bits a byte, the last one without the eighth."""
    written = bytearray()
    for value in values:
        rest = value
        while rest > 127:
            written.append(rest & 127 | 128)
            rest >>= 7
        written.append(rest)
    return bytes(written)


class _Parts(NamedTuple):
    """Packed logprobs unfolded, their numbers read and found to fit."""

    counts: list[int]
    chosen: list[int]
    lengths: list[int]
    plain: bytes
    at: int  # where the tokens' bytes begin, and after them the logarithms


def _parts(data: bytes) -> _Parts:
    """Raises ValueError for what `pack` cannot have made."""
    if data[:1] != VERSION:
        raise ValueError("these are no packed logprobs, or those of a newer version")
    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(data[1:], MOST_BYTES)
        if not inflate.eof:
            raise ValueError("the packed logprobs are cut off, or unfold to too much")
        return _fit(plain)
    except (zlib.error, IndexError) as error:
        raise ValueError(f"the packed logprobs are damaged: {error}") from error


def _fit(plain: bytes) -> _Parts:
    (count,), at = _read(plain, 0, 1)
    if count > MOST_POSITIONS:
        raise ValueError(f"the packed logprobs tell of {count} tokens; at most {MOST_POSITIONS} can be")
    counts, at = _read(plain, at, count)
    chosen, at = _read(plain, at, count)
    if any(place > top for top, place in zip(counts, chosen, strict=True)):
        raise ValueError("the packed logprobs are damaged: a token is an alternative that there is not")
    entries = sum(counts) + chosen.count(0)
    if entries > MOST_ENTRIES:
        raise ValueError(f"the packed logprobs tell of {entries} alternatives; at most {MOST_ENTRIES} can be")
    lengths, at = _read(plain, at, entries)
    if len(plain) - at != sum(lengths) + 2 * entries:
        raise ValueError("the packed logprobs are damaged: their parts have different lengths")
    return _Parts(counts, chosen, lengths, plain, at)


def _positions(parts: _Parts) -> Iterator[Position]:
    counts, chosen, lengths, plain, at = parts
    ends = list(accumulate(lengths, initial=at))
    high, low = plain[ends[-1] : ends[-1] + len(lengths)], plain[ends[-1] + len(lengths) :]
    halves = bytearray(2 * len(lengths))
    halves[0::2], halves[1::2] = low, high
    tokens = (plain[start:end] for start, end in pairwise(ends))
    entries = zip(tokens, struct.unpack(f"<{len(lengths)}e", halves), strict=True)
    for top, place in zip(counts, chosen, strict=True):
        alternatives = tuple(islice(entries, top))
        yield Position(*(alternatives[place - 1] if place else next(entries)), alternatives)


def _read(plain: bytes, at: int, count: int) -> tuple[list[int], int]:
    """That many numbers from there on, and where they end."""
    if count > len(plain) - at:
        raise ValueError("the packed logprobs are damaged: they promise more than they hold")
    if plain[at : at + count].isascii():  # each is one byte, as most are
        return list(plain[at : at + count]), at + count
    found: list[int] = []
    for _ in range(count):
        value, shift = 0, 0
        while plain[at] > 127:
            value |= (plain[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if shift > MOST_BITS:
                raise ValueError("the packed logprobs are damaged: a number is too large")
        found.append(value | plain[at] << shift)
        at += 1
    return found, at
