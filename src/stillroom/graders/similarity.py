"""How alike two texts are, from 0 to 1, by the metrics of `text_similarity`.

Everything runs offline. The libraries are imported when a metric first needs them: nltk takes half a
second, and most processes grade nothing. Each metric's library, function and tokenisation are told
in docs/graders.md, because a score means nothing without them.

Two kinds of tokens: `words` (lower case, no punctuation) as ROUGE counts them, and `tokens` (as
written, each punctuation mark on its own) for the metrics that come from translation. In scripts
that put no spaces between words, each character is one.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from stillroom.graders.order import Metric

MOST_LETTERS = 100_000
BLEU_EPSILON = 0.1
SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"


# Two threads that first import one of the libraries at the same moment can each find it half there. What is
# compared holds the interpreter anyway, so that nothing is lost by waiting.
_one_at_a_time = threading.Lock()


class TooLong(Exception):
    """A text is longer than the metric compares in bounded time."""


def score(metric: Metric, given: str, reference: str) -> float:
    """From 0 (nothing in common) to 1. Two texts without any word are alike if they are equal.
    Raises TooLong."""
    for what, text in (("input", given), ("reference", reference)):
        if len(text) > MOST_LETTERS:
            raise TooLong(f"The {what} has {len(text):,} characters; {metric.value} compares at most {MOST_LETTERS:,}.")
    if not words(given) or not words(reference):
        return float(given == reference)
    with _one_at_a_time:
        return min(1.0, max(0.0, METRICS[metric](given, reference)))


def words(text: str) -> list[str]:
    """Runs of letters, digits and their marks, in lower case."""
    return list(_pattern(punctuation=False).findall(text.lower()))


def tokens(text: str) -> list[str]:
    """The words as they are written, and each other mark that is no space."""
    return list(_pattern(punctuation=True).findall(text))


def _fuzzy_match(given: str, reference: str) -> float:
    from rapidfuzz import fuzz

    # Not WRatio, which gives 0.86 to unrelated texts that share one word and differ in length.
    return fuzz.ratio(given, reference) / 100


def _bleu(given: str, reference: str) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction(epsilon=BLEU_EPSILON).method1
    return float(sentence_bleu([tokens(reference)], tokens(given), smoothing_function=smoothing, auto_reweigh=True))


def _gleu(given: str, reference: str) -> float:
    from nltk.translate.gleu_score import sentence_gleu

    return float(sentence_gleu([tokens(reference)], tokens(given)))


def _meteor(given: str, reference: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(tokens(reference), tokens(given), wordnet=_NoSynonyms()))


class _NoSynonyms:
    """In WordNet's place: its data would have to be downloaded."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _rouge_n(n: int, given: str, reference: str) -> float:
    ours, theirs = _ngrams(words(given), n), _ngrams(words(reference), n)
    return _f_measure((ours & theirs).total(), ours.total(), theirs.total())


def _rouge_l(given: str, reference: str) -> float:
    from rapidfuzz.distance import LCSseq

    ours, theirs = words(given), words(reference)
    return _f_measure(LCSseq.similarity(ours, theirs), len(ours), len(theirs))


def _cosine(given: str, reference: str) -> float:
    ours, theirs = Counter(words(given)), Counter(words(reference))
    product = sum(count * theirs[word] for word, count in ours.items())
    return product / math.sqrt(sum(n * n for n in ours.values()) * sum(n * n for n in theirs.values()))


METRICS: dict[Metric, Callable[[str, str], float]] = {
    Metric.COSINE: _cosine,
    Metric.FUZZY_MATCH: _fuzzy_match,
    Metric.BLEU: _bleu,
    Metric.GLEU: _gleu,
    Metric.METEOR: _meteor,
    Metric.ROUGE_1: partial(_rouge_n, 1),
    Metric.ROUGE_2: partial(_rouge_n, 2),
    Metric.ROUGE_3: partial(_rouge_n, 3),
    Metric.ROUGE_4: partial(_rouge_n, 4),
    Metric.ROUGE_5: partial(_rouge_n, 5),
    Metric.ROUGE_L: _rouge_l,
}


def _ngrams(sequence: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(sequence[start:] for start in range(n)), strict=False))


def _f_measure(shared: int, given: int, reference: int) -> float:
    """The harmonic mean of precision and recall; 0 when either text is too short for one n-gram."""
    return 2 * shared / (given + reference) if shared else 0.0


@cache
def _pattern(*, punctuation: bool) -> Any:
    import regex

    one, many = rf"[{SPACELESS}]\p{{M}}*", rf"[\p{{L}}\p{{N}}--[{SPACELESS}]][\p{{L}}\p{{M}}\p{{N}}--[{SPACELESS}]]*"
    mark = r"[^\s\p{L}\p{N}]"
    return regex.compile(f"{one}|{many}|{mark}" if punctuation else f"{one}|{many}", regex.VERSION1)
