"""Near-duplicates: sets of shingles, found again by MinHash and LSH (`rensa`), and compared for real.

The index offers candidates and an estimate of how similar they are; only the true share of common
pieces decides. So nothing counts as similar that is not. What the index misses of pairs just at the
threshold is less than one in ten thousand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stillroom.curation.texts import jaccard

PERMUTATIONS = 120
ROWS_OF_A_BAND = (8, 6, 5, 4, 3, 2, 1)
MISSED = 1e-4
SEED = 42
DOUBT = 4.0  # standard deviations of the estimate
KEPT_SETS = 512

Shingles = frozenset[str]


class Similar:
    """Numbered sets, found by what they share with another. `again`: a set by its number, for the
    comparison; it is asked rather than kept, so that memory holds sketches and no texts."""

    def __init__(self, threshold: float, again: Callable[[int], Shingles]) -> None:
        from rensa import RMinHashLSH  # noqa: PLC0415 - the gateway shall not load it

        self._threshold = threshold
        self._plausible = threshold - DOUBT * (threshold * (1 - threshold) / PERMUTATIONS) ** 0.5
        self._index = RMinHashLSH(threshold, PERMUTATIONS, PERMUTATIONS // _rows_of_a_band(threshold))
        self._sketches: dict[int, Any] = {}
        self._again = Recent(again)

    def add(self, number: int, sketch: Any) -> None:
        self._index.insert(number, sketch)
        self._sketches[number] = sketch

    def like(
        self, one: Shingles, sketch: Any, *, unless: Callable[[int], bool] = lambda number: False
    ) -> Iterator[int]:
        """The numbers of sets that are as similar as the threshold asks, in order, each compared when it is
        asked for; those for which `unless` says true are passed over."""
        for number in sorted(self._index.query(sketch)):
            if not unless(number) and self._is_like(one, sketch, number):
                yield number

    def _is_like(self, one: Shingles, sketch: Any, number: int) -> bool:
        if sketch.jaccard(self._sketches[number]) < self._plausible:
            return False
        return jaccard(one, self._again(number)) >= self._threshold


class Recent:
    """A function's last results, by its argument."""

    def __init__(self, function: Callable[[int], Shingles], most: int = KEPT_SETS) -> None:
        self._function = function
        self._most = most
        self._found: OrderedDict[int, Shingles] = OrderedDict()

    def __call__(self, number: int) -> Shingles:
        if number in self._found:
            self._found.move_to_end(number)
            return self._found[number]
        found = self._found[number] = self._function(number)
        if len(self._found) > self._most:
            self._found.popitem(last=False)
        return found


def sketches(sets: Sequence[Shingles]) -> list[Any]:
    """What stands for each set: 480 bytes, however large it is."""
    from rensa import RMinHash  # noqa: PLC0415 - as above

    return list(RMinHash.from_token_sets(sets, PERMUTATIONS, SEED))


def _rows_of_a_band(threshold: float) -> int:
    """As many as leave the index sharp enough: a pair at the threshold shares one of its bands all but surely."""
    for rows in ROWS_OF_A_BAND:
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISSED:
            return rows
    return 1
