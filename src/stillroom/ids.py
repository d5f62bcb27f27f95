"""Identifiers: what they look like, and the one kind that is ordered by time.

Objects get a prefix and 24 random letters and digits (`file-…`, `ftjob-…`). Stored completions
number in the millions and are listed by time, so theirs is a 63-bit integer, milliseconds first,
written in base 62 with a fixed width: text order, integer order and time order agree.
"""

from __future__ import annotations

import secrets
import string
import threading
import time

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_LETTERS = 24
ORDERED_DIGITS = 11  # 62**11 > 2**63
RANDOM_BITS = 20  # below the milliseconds of an ordered id
NUMBERS_PER_SECOND = 1000 << RANDOM_BITS
COMPLETION_PREFIX = "chatcmpl-"


def random_id(prefix: str) -> str:
    """`prefix` and 24 random letters and digits."""
    return prefix + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LETTERS))


class OrderedNumbers:
    """Mints 63-bit integers that grow with time and, within a process, with every call."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def mint(self) -> int:
        candidate = (time.time_ns() // 1_000_000) << RANDOM_BITS | secrets.randbits(RANDOM_BITS - 1)
        with self._lock:
            # A clock set back must not put new rows before old ones.
            self._last = max(candidate, self._last + 1)
            return self._last


def completion_id(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return COMPLETION_PREFIX + digits.rjust(ORDERED_DIGITS, "0")


def completion_number(identifier: str) -> int | None:
    """The integer behind a completion id; None when the text is not one of ours."""
    text = identifier.removeprefix(COMPLETION_PREFIX)
    if text == identifier or len(text) != ORDERED_DIGITS:
        return None
    number = 0
    for letter in text:
        digit = ALPHABET.find(letter)
        if digit < 0:
            return None
        number = number * 62 + digit
    return number if number < 2**63 else None
