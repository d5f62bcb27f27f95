"""Which rows are near-duplicates of an earlier one, and which prompts belong together.

Two rows are near-duplicates when their prompts (without the form that many share), their answers
and their system prompts are each as similar as the threshold asks. The first row stays, and whatever
is similar to a row that stays is left out; so every row that is left out is truly similar to one that is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stillroom.curation.form import Form, sampled
from stillroom.curation.similar import Recent, Shingles, Similar, sketches
from stillroom.curation.texts import Said, jaccard, shingles

LONGEST = 200_000
"""Letters; a row with a longer text is compared for exact duplicates only."""
BATCH = 256  # rows that are read before their sketches are made
FEW_ANSWERS = 32  # to one prompt, which are compared one by one
MOST_NEIGHBOURS = 200
"""A prompt that is similar to so many others has a form that was not recognised: no more of them are looked at."""

Texts = Callable[[int], Said]


@dataclass(frozen=True, kw_only=True)
class Found:
    """`of`: by the number of each near-duplicate, the row that it is one of. `crowded`: rows with so many
    similar prompts that not all were compared."""

    of: dict[int, int]
    too_long: int
    crowded: int


def near_duplicates(texts: Texts, numbers: Sequence[int], prompts: Sequence[bytes], threshold: float) -> Found:
    """Among the rows of these numbers, in order. `prompts`: the digest of each row's prompt, by its number."""
    search = _Search(texts, prompts, threshold, form_of(texts, numbers, prompts))
    too_long = 0
    for batch in _batches(numbers):
        read = {number: texts(number) for number in batch}
        short = [number for number in batch if _is_short(read[number])]
        too_long += len(batch) - len(short)
        pieces = [search.prompt(read[number]) for number in short]
        for number, prompt, sketch in zip(short, pieces, sketches(pieces), strict=True):
            search.look(number, read[number], prompt, sketch)
    return Found(of=search.found, too_long=too_long, crowded=search.crowded)


def together(
    texts: Texts, numbers: Sequence[int], prompts: Sequence[bytes], threshold: float | None
) -> list[list[int]]:
    """The rows in groups: those of the same prompt, and with a threshold those of similar prompts, however
    long the chain from one to the other."""
    by_prompt: dict[bytes, list[int]] = defaultdict(list)
    for number in numbers:
        by_prompt[prompts[number]].append(number)
    firsts = [rows[0] for rows in by_prompt.values()]
    if threshold is None:
        return list(by_prompt.values())
    joined = _joined(texts, firsts, threshold, form_of(texts, numbers, prompts))
    groups: dict[int, list[int]] = defaultdict(list)
    for first in firsts:
        groups[joined.root(first)] += by_prompt[prompts[first]]
    return [sorted(group) for group in groups.values()]


def form_of(texts: Texts, numbers: Sequence[int], prompts: Sequence[bytes]) -> Form:
    """What the prompts of the rows have in common; a prompt that occurs often counts once."""
    different = list({prompts[number]: number for number in reversed(numbers)}.values())
    read = (texts(number) for number in sampled(sorted(different)))
    return Form([shingles(said.prompt) for said in read if _is_short(said)])


class _Search:
    """The rows that stay, by their prompts: those whose prompts are like a new row's are asked for their answers."""

    def __init__(self, texts: Texts, prompts: Sequence[bytes], threshold: float, form: Form) -> None:
        self.found: dict[int, int] = {}
        self.crowded = 0
        self._threshold = threshold
        self._prompts = prompts
        self._form = form
        self._read = texts
        self._similar = Similar(threshold, lambda number: self.prompt(texts(number)))
        self._answer = Recent(lambda number: shingles(texts(number).answer))
        self._first: dict[bytes, int] = {}
        self._answers: dict[bytes, _Answers] = {}

    def prompt(self, said: Said) -> Shingles:
        return self._form.without(shingles(said.prompt))

    def look(self, number: int, said: Said, prompt: Shingles, sketch: Any) -> None:
        """Finds the row that this one is a near-duplicate of, or keeps it for those that follow."""
        answer = shingles(said.answer)
        earlier = self._earlier(number, said, prompt, sketch, answer)
        if earlier is not None:
            self.found[number] = earlier
            return
        digest = self._prompts[number]
        if digest not in self._answers:
            self._answers[digest] = _Answers(self._threshold, self._answer)
            self._similar.add(number, sketch)
        self._answers[digest].add(number, answer)

    def _earlier(self, number: int, said: Said, prompt: Shingles, sketch: Any, answer: Shingles) -> int | None:
        digest, looked = self._prompts[number], 0
        if digest in self._answers and (same := self._answers[digest].like(answer)) is not None:
            return same
        neighbours = self._similar.like(prompt, sketch, unless=lambda other: self._prompts[other] == digest)
        for other in islice(neighbours, MOST_NEIGHBOURS):
            looked += 1
            like = self._answers[self._prompts[other]].like(answer)
            if like is not None and self._alike(said.system, self._read(other).system):
                return like
        self.crowded += looked == MOST_NEIGHBOURS
        return None

    def _alike(self, one: str, other: str) -> bool:
        return one == other or jaccard(shingles(one), shingles(other)) >= self._threshold


class _Answers:
    """The answers to one prompt that stay. Many of them get an index of their own."""

    __slots__ = ("_answer", "_numbers", "_similar", "_threshold")

    def __init__(self, threshold: float, answer: Callable[[int], Shingles]) -> None:
        self._threshold = threshold
        self._answer = answer
        self._numbers: list[int] = []
        self._similar: Similar | None = None

    def add(self, number: int, answer: Shingles) -> None:
        self._numbers.append(number)
        if self._similar is not None:
            self._similar.add(number, sketches([answer])[0])
        elif len(self._numbers) > FEW_ANSWERS:
            self._similar = Similar(self._threshold, self._answer)
            made = sketches([self._answer(each) for each in self._numbers])
            for each, sketch in zip(self._numbers, made, strict=True):
                self._similar.add(each, sketch)

    def like(self, answer: Shingles) -> int | None:
        """The first that is similar."""
        if self._similar is not None:
            return next(self._similar.like(answer, sketches([answer])[0]), None)
        each = self._numbers
        return next((number for number in each if jaccard(answer, self._answer(number)) >= self._threshold), None)


class _Joined:
    """Numbers that were found to belong together (union-find). Of a group the first number stands for all."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def root(self, number: int) -> int:
        path = []
        while (above := self._above.get(number, number)) != number:
            path.append(number)
            number = above
        for passed in path:
            self._above[passed] = number
        return number

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self._above[second] = first


def _joined(texts: Texts, firsts: Sequence[int], threshold: float, form: Form) -> _Joined:
    joined = _Joined()

    def pieces_of(number: int) -> Shingles:
        return form.without(shingles(texts(number).prompt))

    similar = Similar(threshold, pieces_of)
    for batch in _batches(firsts):
        short = [number for number in batch if _is_short(texts(number))]
        pieces = [pieces_of(number) for number in short]
        for number, prompt, sketch in zip(short, pieces, sketches(pieces), strict=True):
            for other in similar.like(prompt, sketch, unless=_is_with(joined, number)):
                joined.join(number, other)
            similar.add(number, sketch)
    return joined


def _is_with(joined: _Joined, number: int) -> Callable[[int], bool]:
    return lambda other: joined.root(other) == joined.root(number)


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[begin : begin + BATCH] for begin in range(0, len(numbers), BATCH))


def _is_short(said: Said) -> bool:
    return len(said.prompt) + len(said.answer) <= LONGEST
