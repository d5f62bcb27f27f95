"""The few figures that reports need: shares with their uncertainty, and percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054  # two-sided 95 % of a normal distribution


@dataclass(frozen=True, kw_only=True)
class Share:
    """`count` of `total`, and the 95 % interval of the true share: Wilson's, which holds for few items and
    for shares near 0 and 1 (E. B. Wilson 1927, JASA 22). Shares are from 0 to 1."""

    count: int
    total: int
    share: float
    low: float
    high: float


def share(count: int, total: int) -> Share | None:
    """None when there is nothing to take a share of."""
    if total == 0:
        return None
    observed, z2 = count / total, Z_95**2
    scale = 1 + z2 / total
    middle = (observed + z2 / (2 * total)) / scale
    margin = Z_95 / scale * math.sqrt(observed * (1 - observed) / total + z2 / (4 * total**2))
    # At the ends the bound is the end itself, but for rounding.
    low = 0.0 if count == 0 else max(0.0, middle - margin)
    high = 1.0 if count == total else min(1.0, middle + margin)
    return Share(count=count, total=total, share=observed, low=low, high=high)


def percentile(ordered: Sequence[int], percent: float) -> int | None:
    """The smallest value that at least so many per cent of the ordered values do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def sign_test(better: int, worse: int) -> float | None:
    """How likely so uneven a split is when neither is better: McNemar's exact test, two-sided. None when
    there is no difference at all."""
    differing = better + worse
    if differing == 0:
        return None
    # By logarithms: the whole numbers would have thousands of digits.
    ways = math.lgamma(differing + 1) - differing * math.log(2)
    terms = (ways - math.lgamma(k + 1) - math.lgamma(differing - k + 1) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * math.fsum(map(math.exp, terms)))
