"""What a model says to a question: the message as the student is to say it, and what came with it."""

from __future__ import annotations

from typing import Any

import msgspec


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer that was understood. `message` has a role, text and calls, and nothing else: it may stand in a
    question again."""

    message: dict[str, Any]
    reasoning: str | None = None
    """What led to it."""
    finish_reason: str | None = None
    """Why it ended; `content_filter` when it declines in a field of its own, too."""
    logprobs: str | None = None
    """How likely each of its words was held, packed, for a student that learns from that."""

    @property
    def text(self) -> str:
        content = self.message.get("content")
        return content if isinstance(content, str) else ""
