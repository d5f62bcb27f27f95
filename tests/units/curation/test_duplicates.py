"""Duplicates, best answers and splits, against brute force over every pair."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.curation import Curation, choose, curate, split
from stillroom.curation.form import Form
from stillroom.curation.splitting import held_out_of
from stillroom.curation.texts import jaccard, said, shingles
from stillroom.errors import InvalidRequest

WORDS = [
    "the",
    "parcel",
    "is",
    "late",
    "and",
    "nobody",
    "answers",
    "when",
    "I",
    "call",
    "your",
    "office",
    "about",
    "it",
    "please",
    "send",
    "help",
    "now",
    "thank",
    "you",
]
KANA = list("荷物が届きません電話しても誰も出ないので早く対応してくださいお願いします")


def row(question: str, answer: str, *before: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = [*before, {"role": "user", "content": question}]
    return {"messages": [*asked, {"role": "assistant", "content": answer}], **more}


def left_out(rows: Sequence[Any], **order: Any) -> dict[int, str]:
    return curate(rows, Curation(**order)).reasons


def varied(chosen: random.Random, alphabet: list[str], glue: str) -> str:
    """One of a few texts, with a few of its parts changed: some pairs are near-duplicates, some nearly are."""
    base = random.Random(chosen.randrange(6))
    text = base.choices(alphabet, k=base.randint(8, 90))
    for _ in range(chosen.choice((0, 0, 1, 1, 2, 3, 6))):
        text[chosen.randrange(len(text))] = chosen.choice(alphabet)
    return glue.join(text)


def pieces_of(rows: Sequence[Any], form: Form) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Of each row what is compared: its prompt's pieces without the form, and its answer's."""
    texts = [texts for each in rows if (texts := said(each)) is not None]
    return [(form.without(shingles(each.prompt)), shingles(each.answer)) for each in texts]


def form_of(rows: Sequence[Any]) -> Form:
    different = {texts.prompt_digest: texts for each in rows if (texts := said(each)) is not None}
    return Form([shingles(texts.prompt) for texts in different.values()])


@settings(max_examples=12, deadline=None, derandomize=True)  # an index may miss one pair in ten thousand
@given(seed=st.integers(0, 10**9), threshold=st.sampled_from((0.5, 0.7, 0.8, 0.9, 1.0)), japanese=st.booleans())
def test_near_duplicates_are_those_that_brute_force_finds(seed: int, threshold: float, japanese: bool) -> None:
    chosen = random.Random(seed)
    alphabet, glue = (KANA, "") if japanese else (WORDS, " ")
    rows = [row(varied(chosen, alphabet, glue), varied(chosen, alphabet, glue)) for _ in range(40)]
    copies = left_out(rows, exact_duplicates=True)
    different = [rows[number] for number in range(len(rows)) if number not in copies]
    pieces, kept = pieces_of(different, form_of(different)), list[int]()
    for number, (prompt, answer) in enumerate(pieces):
        if not any(
            jaccard(prompt, pieces[earlier][0]) >= threshold and jaccard(answer, pieces[earlier][1]) >= threshold
            for earlier in kept
        ):
            kept.append(number)
    assert [*range(len(different))] == sorted({*kept, *left_out(different, near_duplicates=threshold)})
    assert left_out(different, near_duplicates=threshold).keys().isdisjoint(kept)
    # With its copies, the same rows stay.
    stays = curate(rows, Curation(near_duplicates=threshold)).training
    assert [rows[number] for number in stays] == [different[number] for number in kept]


@settings(max_examples=20, deadline=None, derandomize=True)  # an index may miss one pair in ten thousand
@given(seed=st.integers(0, 10**9), threshold=st.sampled_from((None, 0.5, 0.8)), fraction=st.sampled_from((0.1, 0.5)))
def test_a_split_never_separates_what_brute_force_joins(seed: int, threshold: float | None, fraction: float) -> None:
    chosen = random.Random(seed)
    rows = [row(varied(chosen, WORDS, " "), str(chosen.random())) for _ in range(60)]
    training, validation = split(rows, fraction, seed, similarity=threshold)
    assert sorted([*training, *validation]) == list(range(60))
    assert len(validation) <= 60 * fraction
    prompts = [texts.prompt_digest for each in rows if (texts := said(each)) is not None]
    pieces = pieces_of(rows, form_of(rows))
    for one in training:
        for other in validation:
            assert prompts[one] != prompts[other]
            assert threshold is None or jaccard(pieces[one][0], pieces[other][0]) < threshold


@given(
    sizes=st.lists(st.integers(1, 9), max_size=30),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**31),
    many=st.integers(0, 40),
)
def test_a_split_holds_out_whole_groups_and_just_as_many_rows_as_asked_where_single_rows_allow(
    sizes: list[int], fraction: float, seed: int, many: int
) -> None:
    groups = [[place * 100 + each for each in range(size)] for place, size in enumerate([*sizes, *[1] * many])]
    total = sum(map(len, groups))
    held_out = held_out_of(groups, fraction, seed)
    assert held_out == held_out_of(groups, fraction, seed)
    assert all(set(group) <= set(held_out) or set(group).isdisjoint(held_out) for group in groups)
    wanted = round(total * fraction)
    assert len(held_out) <= wanted
    if not sizes:
        # As it was before groups were held together: the same seed holds the same rows out.
        assert sorted(held_out) == sorted(random.Random(seed).sample([group[0] for group in groups], wanted))
    if wanted <= many:
        assert len(held_out) == wanted


def test_a_fraction_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="below 1"):
        split([row("a", "b")], 1.0, 0)


def test_exact_duplicates_are_the_same_but_for_white_space_and_spelling_of_accents_and_the_first_stays() -> None:
    system = {"role": "system", "content": "be kind"}
    rows = [
        row("Où est-il ?", "Ici."),
        row("Ou\u0300  est-il\r\n?", " Ici.\n"),
        row("Où est-il ?", "ici."),  # another case is another answer
        row("Où est-il ?", "Ici.", system),  # and another system prompt another row
        row("Où est-il ?", "Ici.", {**system, "role": "user"}),
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Où est-il ?"}]},
                {"role": "assistant", "content": "Ici."},
            ]
        },
    ]
    assert left_out(rows, exact_duplicates=True) == {1: "exact_duplicate", 5: "exact_duplicate"}
    assert left_out(rows) == {}


def test_calls_count_as_said_and_their_random_ids_do_not() -> None:
    def call(identity: str, city: str) -> dict[str, Any]:
        function = {"name": "weather", "arguments": f'{{"city": "{city}"}}'}
        made = {"id": identity, "type": "function", "function": function}
        return {
            "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [made]}]
        }

    assert left_out([call("a", "Kobe"), call("b", "Kobe"), call("a", "Nara")], exact_duplicates=True) == {
        1: "exact_duplicate"
    }


TEMPLATE = (
    "You will be given a ticket that a customer has written to our support team. Read it with care, think about what "
    "the customer wants most of all, and answer with exactly one of these labels and nothing else: refund, shipping, "
    "account, invoice. If more than one would fit, take the one that has to be done first. The ticket is: {}"
)


def test_short_tickets_in_a_long_template_are_no_near_duplicates_of_each_other() -> None:
    tickets = [" ".join(random.Random(number).choices(WORDS, k=9)) for number in range(100)]
    rows = [row(TEMPLATE.format(ticket), "refund") for ticket in tickets]
    assert (
        jaccard(*(shingles(each["messages"][0]["content"]) for each in rows[:2])) > 0.75
    )  # as they stand, they are alike
    assert left_out(rows, near_duplicates=0.6) == {}
    again = row(TEMPLATE.format(tickets[7] + "!"), "refund")
    assert left_out([*rows, again], near_duplicates=0.6) == {100: "near_duplicate"}


def test_another_answer_or_another_system_prompt_makes_another_row() -> None:
    question = " ".join(WORDS)
    french, german = ({"role": "system", "content": f"Translate into {name}."} for name in ("French", "German"))
    rows = [
        row(question, "one two three"),
        row(question + "!", "four five six"),
        row(question, "one two three", french),
        row(question + "?", "one two three", german),
    ]
    assert left_out(rows, near_duplicates=0.8) == {}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from((0.0, 0.5, 1.0))), max_size=20))
def test_of_the_answers_to_a_prompt_the_first_of_the_best_stays(answers: list[tuple[str, float | None]]) -> None:
    rows = [row(prompt, str(number)) for number, (prompt, _) in enumerate(answers)]
    scores = [score for _, score in answers]
    by_prompt = defaultdict(list)
    for number, (prompt, score) in enumerate(answers):
        by_prompt[prompt].append((-1.0 if score is None else score, -number))
    best = sorted(-max(each)[1] for each in by_prompt.values())
    assert choose(rows, scores) == best
    assert curate(rows, Curation(), scores=scores).training == best
