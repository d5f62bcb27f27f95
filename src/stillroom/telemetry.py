"""Logging: one line an event on standard error, with nothing in it that could be a key."""

from __future__ import annotations

import logging
import re

KEY_SHAPES = re.compile(r"(sk-[A-Za-z0-9_-]{6})[A-Za-z0-9_-]+|(?i:(bearer|api-key:)) +[A-Za-z0-9._~+/=-]+")


class Redacted(logging.Formatter):
    """Formats a record and blots out whatever looks like an API key, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        # A line break inside a value must not look like a second event.
        head, *rest = KEY_SHAPES.sub(lambda found: (found[1] or found[2]) + "***", text).split("\n")
        return "\n    ".join([head, *rest])


def start_logging(level: str) -> None:
    """Sends every logger's records of at least `level` to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacted("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
