"""The form of prompts: what many of them say in the same words, such as a template around each ticket.

It is passed over when prompts are compared. Otherwise a long template around short texts would make
near-duplicates of all of them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from stillroom.curation.similar import Shingles

SAMPLE = 1000
"""So many different prompts tell the form of all."""
SHARE = 0.1
FEW = 20
HALF = 0.5


class Form:
    """Pieces that more than a tenth of all different prompts have; of few prompts, more than 20 or half of them."""

    def __init__(self, sample: Sequence[Shingles]) -> None:
        count = len(sample)
        most = max(SHARE * count, min(FEW, HALF * count))
        seen = Counter(piece for pieces in sample for piece in pieces)
        self.pieces: Shingles = frozenset(piece for piece, times in seen.items() if times > most and count > 2)

    def without(self, pieces: Shingles) -> Shingles:
        """What is left of a prompt's pieces; all, when nothing would be left."""
        return (pieces - self.pieces) or pieces


def sampled(numbers: Sequence[int]) -> list[int]:
    """The same for the same numbers, whoever asks."""
    return sorted(random.Random(0).sample(numbers, SAMPLE)) if len(numbers) > SAMPLE else list(numbers)
