"""The portal's texts, so that a test finds a control by what a reader of its language sees."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

TEXTS = Path(__file__).parents[2] / "portal" / "src" / "i18n"


class Words:
    """The texts of one language: `words("jobs.deploy")`, with fields filled in. A `count` chooses the number."""

    def __init__(self, language: str) -> None:
        self._language = language

    def __call__(self, key: str, **fields: object) -> str:
        text = self._text(key, fields.get("count"))
        for field, value in fields.items():
            text = text.replace("{" + field + "}", str(value))
        return text

    def beginning(self, key: str) -> str:
        """A text up to its first field."""
        return self._text(key, None).split("{")[0].strip()

    def _text(self, key: str, count: object) -> str:
        part, name = key.split(".")
        texts = _part(self._language, part)
        if count is not None and f"{name}_other" in texts:
            name = f"{name}_one" if count == 1 and self._language == "en" else f"{name}_other"
        return texts[name]


@cache
def _part(language: str, part: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads((TEXTS / language / f"{part}.json").read_text(encoding="utf-8"))
    return texts
