"""Splits rows into those to train on and those to validate with, groups undivided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from stillroom.curation.duplicates import together
from stillroom.curation.texts import Said, said
from stillroom.errors import InvalidRequest


def split(
    rows: Sequence[Any], fraction: float, seed: int, *, similarity: float | None = None
) -> tuple[list[int], list[int]]:
    """The numbers of the rows to train on and of those to validate with. Rows with the same prompt stay together,
    and with `similarity` those whose prompts are at least so similar. Malformed rows are trained on, or rather
    refused where training begins."""
    prompts = [texts.prompt_digest if (texts := said(row)) else b"" for row in rows]
    usable = [number for number, prompt in enumerate(prompts) if prompt]

    def read(number: int) -> Said:
        texts = said(rows[number])
        assert texts is not None
        return texts

    held_out = set(held_out_of(together(read, usable, prompts, similarity), fraction, seed))
    return [number for number in range(len(rows)) if number not in held_out], sorted(held_out)


def held_out_of(groups: Sequence[Sequence[int]], fraction: float, seed: int) -> list[int]:
    """Whole groups, chosen by the seed, with `fraction` of all rows; fewer, when what is missing would take a
    group apart. Raises InvalidRequest for a fraction that is none."""
    if not 0 <= fraction < 1:
        raise InvalidRequest(
            f"`validation_fraction` is {fraction}; it must be at least 0 and below 1.", param="validation_fraction"
        )
    wanted = round(sum(map(len, groups)) * fraction)
    chosen = random.Random(seed)
    # Without larger groups, the first sample is all there is to choose: then the order of draws changes nothing.
    order = chosen.sample(range(len(groups)), min(wanted, len(groups)))
    drawn = set(order)
    others = [place for place in range(len(groups)) if place not in drawn]
    chosen.shuffle(others)
    found: list[int] = []
    for place in (*order, *others):
        if len(found) + len(groups[place]) <= wanted:
            found += groups[place]
    return found
