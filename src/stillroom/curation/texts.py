"""What a row says, as text: its prompt and its answer, what they are known by, and the pieces they are compared by.

Rows come from anywhere: whatever is wrong with one makes it malformed, and raises nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

LEADING_ROLES = ("system", "developer")
PREFERRED = ("preferred_output", "preferred_completion")
DIGEST_BYTES = 16
SHINGLE = 3  # tokens
LETTERS_A_TOKEN = 4
# Thai, Lao, Burmese, Khmer, Chinese and Japanese: no spaces say where a word ends, so each letter counts by itself.
WIDE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
TOKEN = re.compile(rf"[^\W{WIDE}]+|\S")
WIDE_LETTER = re.compile(f"[{WIDE}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A row's texts. The system prompt is apart: thousands of rows have the same, and it tells none of them."""

    system: str
    prompt: str
    """All other messages before the answer."""
    answer: str
    refusal: bool
    """Whether the answer's own `refusal` says so."""
    finish_reason: str | None
    prompt_digest: bytes
    """Of everything before the answer, the system prompt and the tools included."""
    digest: bytes
    """Of the whole row."""


def said(row: Any) -> Said | None:
    """None for what is no chat row that ends with an answer."""
    found = _conversation(row)
    if found is None:
        return None
    before, last = found
    texts = [(str(message.get("role")), text_of(message)) for message in before]
    answer = text_of(last)
    tools = [_json(row[name]) for name in ("tools", "functions") if row.get(name)]
    asked = _digest(b"", *(part for pair in texts for part in pair), *tools)
    reason = row.get("finish_reason")
    return Said(
        system="\n".join(text for role, text in texts if role in LEADING_ROLES),
        prompt="\n".join(text for role, text in texts if role not in LEADING_ROLES),
        answer=answer,
        refusal=bool(last.get("refusal") or row.get("refusal")),
        finish_reason=reason if isinstance(reason, str) else None,
        prompt_digest=asked,
        digest=_digest(asked, answer),
    )


def text_of(message: Mapping[str, Any]) -> str:
    """What a message says: its text, and the calls it makes without their random ids."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    spoken = [part if isinstance(part, str) else _part(part) for part in parts if part is not None]
    return "\n".join([*spoken, *_calls(message)])


def about_tokens(text: str) -> int:
    """How many tokens a text is, more or less, whatever the tokenizer."""
    wide = 0 if text.isascii() else len(WIDE_LETTER.findall(text))
    return wide + -(-(len(text) - wide) // LETTERS_A_TOKEN)


def shingles(text: str) -> frozenset[str]:
    """Each three tokens in a row, whatever their case and width: words, and single letters of scripts without
    spaces and signs. A shorter text is one piece."""
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", _encodable(text)).casefold())
    if len(tokens) < SHINGLE:
        return frozenset([" ".join(tokens)] if tokens else [])
    return frozenset(map(" ".join, zip(tokens, tokens[1:], tokens[2:], strict=False)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of all their pieces that both have. Two texts without any are the same."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if one or other else 1.0


def plain(text: str) -> str:
    """The text by which two are the same: composed letters, and one space for all white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _conversation(row: Any) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]] | None:
    if not isinstance(row, Mapping):
        return None
    asked = row.get("input")
    if isinstance(asked, Mapping):  # a preference pair: the preferred answer is the one to learn
        answers = next((row[name] for name in PREFERRED if name in row), None)
        messages = _joined(asked.get("messages"), answers)
    else:
        messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return None
    if not messages or messages[-1].get("role") != "assistant":
        return None
    return messages[:-1], messages[-1]


def _joined(asked: Any, answers: Any) -> list[Any] | None:
    return [*asked, *answers] if isinstance(asked, list) and isinstance(answers, list) else None


def _part(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    return _json(part)


def _calls(message: Mapping[str, Any]) -> Iterable[str]:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        yield _json(call.get("function") or call.get("custom")) if isinstance(call, Mapping) else _json(call)
    if message.get("function_call"):
        yield _json(message["function_call"])


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value, order="sorted", enc_hook=repr).decode()
    except (TypeError, ValueError, RecursionError):
        return repr(type(value))


def _digest(begin: bytes, *parts: str) -> bytes:
    found = hashlib.blake2b(begin, digest_size=DIGEST_BYTES)
    for part in parts:
        text = plain(part).encode(errors="surrogatepass")
        found.update(len(text).to_bytes(8, "big"))
        found.update(text)
    return found.digest()


def _encodable(text: str) -> str:
    """Halves of surrogate pairs, which JSON may have and UTF-8 has not, become question marks."""
    return text if text.isascii() else text.encode(errors="replace").decode()
