"""Generated token ids -> text that is safe to show while it grows.

Owns two promises of a stream: a character that spans tokens is never split, and no part of a stop string
is ever shown. Knows no models and no requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are no (complete) character."""


class Characters:
    """Token by token, the text that is complete so far."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown_from = self._shown_to = 0
        """The last ids that were shown. They are decoded again with the new ones, because some decoders
        treat the first token of a text apart."""

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._new_text()
        if not text or text.endswith(REPLACEMENT):
            return ""
        return self._show(text)

    def finish(self) -> str:
        """What was held back; an incomplete character comes as U+FFFD."""
        return self._show(self._new_text())

    def _new_text(self) -> str:
        shown = self._decode(self._ids[self._shown_from : self._shown_to])
        return self._decode(self._ids[self._shown_from :])[len(shown) :]

    def _show(self, text: str) -> str:
        self._shown_from, self._shown_to = self._shown_to, len(self._ids)
        return text

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Holdback:
    """Passes text on up to the first of some markers, and never a part of one."""

    def __init__(self, markers: Sequence[str]) -> None:
        self._markers = [marker for marker in markers if marker]
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        if self.found:
            return ""
        text = self._held + text
        at = min((place for marker in self._markers if (place := text.find(marker)) >= 0), default=None)
        if at is not None:
            self.found, self._held = True, ""
            return text[:at]
        cut = len(text) - self._possible_start(text)
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """What looked like the start of a marker and was none."""
        text, self._held = self._held, ""
        return text

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` that begins a marker."""
        longest = max(map(len, self._markers), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(marker.startswith(text[-size:]) for marker in self._markers):
                return size
        return 0
