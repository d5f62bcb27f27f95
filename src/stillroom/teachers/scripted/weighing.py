"""What the scripted teacher weighed at each token: as a language model would tell it, but from a hash.

The same text always gives the same numbers. A letter of four bytes is two tokens, neither of which is text,
as byte-level tokenizers make them; so whoever reads `bytes` is right and whoever joins `token` is not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

MOST_ALTERNATIVES = 20
WORDS = (
    *("billing", "login", "security", "outage", "performance", "data", "integration", "question"),
    *("calm", "annoyed", "angry", "low", "normal", "high", "urgent", "payments", "identity", "support"),
    *(" the", " a", " is", " not", " and", ",", ".", " to", "は", "の", "を", "です", "ます", "了", "\n", '"'),
)
HALF_LETTERS = 4  # bytes of a letter that no tokenizer of this size has whole


def weighed(parts: list[str], alternatives: int) -> list[dict[str, Any]]:
    """OpenAI's `logprobs.content` for a text in parts, with so many `top_logprobs` at each token."""
    return [_weighed(token, place, alternatives) for place, token in enumerate(_tokens(parts))]


def _tokens(parts: list[str]) -> Iterator[bytes]:
    for part in parts:
        if part.isascii():
            yield part.encode()
            continue
        for letter in part:
            spelled = letter.encode(errors="replace")
            yield from (spelled[:2], spelled[2:]) if len(spelled) == HALF_LETTERS else (spelled,)


def _weighed(token: bytes, place: int, alternatives: int) -> dict[str, Any]:
    digest = hashlib.blake2b(token + place.to_bytes(4, "little"), digest_size=32).digest()
    others = [word.encode() for word in WORDS if word.encode() != token]
    start = digest[0] % len(others)
    chosen = 0.5 + digest[1] / 256 * 0.49
    share = 0.3 + digest[2] / 256 * 0.5  # of what is left, each takes this much
    rest = [(1 - chosen) * share * (1 - share) ** rank for rank in range(MOST_ALTERNATIVES - 1)]
    names = [token, *(others[(start + rank) % len(others)] for rank in range(len(rest)))]
    ranked = sorted(zip([chosen, *rest], names, strict=True), reverse=True)
    return {**_entry(token, chosen), "top_logprobs": [_entry(name, share) for share, name in ranked[:alternatives]]}


def _entry(token: bytes, probability: float) -> dict[str, Any]:
    try:
        text = token.decode()
    except UnicodeDecodeError:  # as OpenAI shows half a letter
        text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
    return {"token": text, "logprob": math.log(probability), "bytes": list(token)}
