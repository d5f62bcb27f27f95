"""What curation is asked to leave out. Nothing is left out that was not asked for, but for rows nobody could learn from."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from stillroom.errors import InvalidRequest

LIKELY = 0.8
"""How similar near-duplicates are, where nobody says otherwise."""
LEAST_SIMILAR = 0.5

Count = Annotated[int, msgspec.Meta(ge=0)]


class Reason(enum.StrEnum):
    """Why a row is left out. A row for which several hold is counted under the first of them."""

    MALFORMED = "malformed"
    """It is no chat row that ends with an answer. Always left out."""
    EMPTY = "empty"
    """Its answer says nothing. Always left out."""
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LANGUAGE = "language"
    EXACT_DUPLICATE = "exact_duplicate"
    NOT_BEST = "not_best"
    """Another answer to the same prompt has a better score."""
    NEAR_DUPLICATE = "near_duplicate"


class Curation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows are left out. `true` switches a check on; everything is off at first."""

    exact_duplicates: bool = False
    """Rows that say the same as an earlier one, spacing and line ends aside."""
    near_duplicates: float | bool = False
    """Rows whose prompt and answer both share at least this much of their wording (0.5 to 1) with an
    earlier row's. true: 0.8."""
    refusals: bool = False
    """Answers in which the model declines: by their `refusal`, by finish_reason content_filter, by how they begin."""
    refusal_phrases: list[str] | None = None
    """How refusals begin, instead of the phrases that are built in."""
    truncated: bool = False
    """Answers that were cut off (finish_reason length)."""
    min_prompt_characters: Count | None = None
    max_prompt_characters: Count | None = None
    min_answer_characters: Count | None = None
    max_answer_characters: Count | None = None
    min_prompt_tokens: Count | None = None
    """Tokens are estimated: four letters, or one of a script without spaces, are about one."""
    max_prompt_tokens: Count | None = None
    min_answer_tokens: Count | None = None
    max_answer_tokens: Count | None = None
    languages: list[str] | None = None
    """Only rows in these languages (ISO 639-1 codes), and those whose language cannot be told."""
    split_similarity: float | None = None
    """Rows whose prompts share at least this much (0.5 to 1) are never separated by the split. By default as
    `near_duplicates`; when that is off, only rows with the same prompt are held together."""

    @property
    def threshold(self) -> float | None:
        """Of near-duplicates; None when they stay."""
        if self.near_duplicates is False:
            return None
        return LIKELY if self.near_duplicates is True else float(self.near_duplicates)

    @property
    def held_together(self) -> float | None:
        """How similar prompts must be for the split to hold their rows together; None: only equal ones."""
        return self.threshold if self.split_similarity is None else self.split_similarity

    @property
    def asked(self) -> frozenset[Reason]:
        """The checks that leave rows out, those that are always made included."""
        by_choice = {
            Reason.REFUSAL: self.refusals,
            Reason.TRUNCATED: self.truncated,
            # A copy is as similar as can be.
            Reason.EXACT_DUPLICATE: self.exact_duplicates or self.threshold is not None,
            Reason.NEAR_DUPLICATE: self.threshold is not None,
        }
        return frozenset(reason for reason in Reason if by_choice.get(reason, True))

    def check(self) -> None:
        """Raises InvalidRequest naming a value that cannot be used and what to give instead."""
        for name, value in (("near_duplicates", self.threshold), ("split_similarity", self.split_similarity)):
            if value is not None and not LEAST_SIMILAR <= value <= 1:
                raise _wrong(
                    name,
                    f"is {value:g}; give a number from {LEAST_SIMILAR:g} to 1. 0.8 is usual; below {LEAST_SIMILAR:g} "
                    "texts differ in more than they share.",
                )
        for part in ("prompt", "answer"):
            for unit in ("characters", "tokens"):
                self._check_range(f"{part}_{unit}")
        if self.languages is not None and not self.languages:
            raise _wrong("languages", 'is empty, so no row could stay; name at least one, such as "en".')
        if self.refusal_phrases is not None and not all(phrase.strip() for phrase in self.refusal_phrases):
            raise _wrong("refusal_phrases", "has an empty phrase, with which every answer begins; leave it away.")

    def _check_range(self, what: str) -> None:
        least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
        if least is not None and most is not None and least > most:
            raise _wrong(f"min_{what}", f"is {least} and max_{what} is {most}, so no row could stay.")


def _wrong(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"'curation.{name}' {what}", param=f"curation.{name}")
