"""Tokens of answers: as a completion reports them, and summed by model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Usage = dict[str, dict[str, int]]


def tokens(completion: Mapping[str, Any]) -> dict[str, int]:
    """The tokens a completion reports; 0 for what is no number."""
    usage = completion.get("usage")
    prompt, answer = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens") if isinstance(usage, dict) else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "cached_tokens": cached,
    }


def add_usage(total: Usage, more: Mapping[str, Mapping[str, int]]) -> None:
    """Adds tokens by model."""
    for model, used in more.items():
        known = total.setdefault(model, dict.fromkeys(used, 0))
        for name, value in used.items():
            known[name] += value


def _count(told: Any, name: str) -> int:
    value = told.get(name) if isinstance(told, dict) else None
    return value if isinstance(value, int) and value > 0 else 0
