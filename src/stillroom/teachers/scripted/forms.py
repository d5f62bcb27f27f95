"""Answers in the JSON that a prompt asks for: with the reasoning beside the answer, or as ever denser summaries.

What the form is, is read from the system prompt's own words, as a language model would.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from stillroom.teachers.scripted.objects import JsonObject, text_of

DENSER = "Denser_Summary"
CHOSEN = ("answer_choice", "answer")
SUMMARIES = 4
REASON = "It follows from the question, by the rules of this script."


def in_form(answer: Callable[[JsonObject], str]) -> Callable[[JsonObject], str]:
    """The same answers; where the system prompt asks for one of the forms, in it."""

    def formed(body: JsonObject) -> str:
        prompt = "\n".join(text_of(m.get("content")) for m in body["messages"] if m.get("role") == "system")
        said = answer(body)
        if DENSER in prompt:
            return _summaries(said)
        key = next((name for name in CHOSEN if f'"{name}"' in prompt), None)
        return said if key is None else msgspec.json.encode({"reason": REASON, key: said}).decode()

    return formed


def _summaries(said: str) -> str:
    """The last is what was to be said; those before it lack more and more of its end."""
    words = said.split()
    texts = [" ".join(words[: max(1, len(words) * part // SUMMARIES)]) for part in range(1, SUMMARIES)]
    rows = [{"Missing_Entities": "", DENSER: text} for text in (*texts, said)]
    return msgspec.json.encode(rows).decode()
