"""The triage rules, and the line between training and held-out tickets."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from itertools import chain

import pytest

from stillroom.errors import InvalidRequest
from stillroom.teachers.triage import (
    CLOSINGS,
    FIELDS,
    OPENINGS,
    ORDERS,
    PROBLEMS,
    PRODUCTS,
    SYSTEM_PROMPT,
    TONES,
    URGENCIES,
    Split,
    messages,
    side_of,
    tickets,
    triage,
)

Parts = tuple[str, str, str, str, str, str]
TRAINING = tickets(5_000, 0, "training")
HELD_OUT = tickets(2_000, 0, "held_out")


PROBLEM_SENTENCES = [
    (pattern.format(product=product), pattern, product)
    for pattern in chain.from_iterable(PROBLEMS.values())
    for product in PRODUCTS
]


@functools.cache
def parts(ticket: str) -> Parts:
    """Opening, problem pattern, product, urgency, tone, closing: found in the text, not told by the generator."""

    def the(sentences: Iterable[str]) -> str:
        return max((s for s in sentences if s in ticket), key=len)

    _, pattern, product = next(p for p in PROBLEM_SENTENCES if p[0] in ticket)
    return (
        the(OPENINGS),
        pattern,
        product,
        the(chain.from_iterable(URGENCIES.values())),
        the(chain.from_iterable(TONES.values())),
        the(CLOSINGS),
    )


@pytest.fixture(scope="module")
def training_parts() -> list[Parts]:
    return [parts(ticket) for ticket in TRAINING]


@pytest.fixture(scope="module")
def held_out_parts() -> list[Parts]:
    return [parts(ticket) for ticket in HELD_OUT]


# The rules.


@pytest.mark.parametrize(
    ("ticket", "answer"),
    [
        ("I was charged twice. I am furious!", ("billing", "angry", "normal", "care")),
        ("I was charged twice. That is frustrating.", ("billing", "annoyed", "normal", "payments")),
        ("I forgot my password, take your time.", ("login", "calm", "low", "identity")),
        ("It is very slow.", ("performance", "calm", "normal", "platform")),
        ("It is very slow. We are losing money!", ("performance", "calm", "urgent", "incident")),
        ("It is down. No hurry.", ("outage", "calm", "normal", "platform")),
        ("It is down and the deadline is near.", ("outage", "calm", "urgent", "incident")),
        ("We got a phishing mail. No hurry.", ("security", "calm", "high", "identity")),
        ("A phishing mail! I need help by tomorrow.", ("security", "calm", "urgent", "identity")),
        ("Where is the manual? Production stands still.", ("question", "calm", "high", "support")),
        ("Where is the manual? No hurry.", ("question", "calm", "low", "support")),
        ("", ("question", "calm", "low", "support")),
    ],
)
def test_the_rules_of_the_prompt_decide(ticket: str, answer: tuple[str, str, str, str]) -> None:
    assert json.loads(triage(ticket)) == dict(zip(FIELDS, answer, strict=True))


def test_an_answer_is_one_line_of_compact_json_in_a_fixed_order() -> None:
    assert triage("THE INVOICE\n is wrong") == (
        '{"category":"billing","sentiment":"calm","priority":"normal","team":"payments"}'
    )


def test_cues_are_whole_words() -> None:
    assert json.loads(triage("This is important."))["category"] == "question"
    assert json.loads(triage("The import failed."))["category"] == "data"


def test_every_ticket_is_judged_by_its_sentences_and_by_nothing_between_them() -> None:
    categories = {pattern: category for category, patterns in PROBLEMS.items() for pattern in patterns}
    tones = {tone: sentiment for sentiment, sentences in TONES.items() for tone in sentences}
    for ticket in HELD_OUT:
        _, pattern, product, urgency, tone, _ = parts(ticket)
        answer = json.loads(triage(ticket))
        assert answer["category"] == categories[pattern], ticket
        assert answer["sentiment"] == tones[tone], ticket
        assert answer == json.loads(triage(f"{tone} {urgency} {pattern.format(product=product)}")), ticket


def test_the_prompt_names_every_field_and_value() -> None:
    for field, values in FIELDS.items():
        assert field in SYSTEM_PROMPT
        assert all(value in SYSTEM_PROMPT for value in values)
    assert 150 <= len(SYSTEM_PROMPT.split()) <= 250
    assert messages("Hi.") == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "Hi."},
    ]


# The tickets.


def test_the_same_arguments_give_the_same_tickets_and_others_give_others() -> None:
    assert tickets(50, 7, "training") == tickets(50, 7, Split.TRAINING) == tickets(60, 7, "training")[:50]
    assert tickets(50, 7, "training") != tickets(50, 8, "training")


def test_this_ticket_has_always_been_the_first() -> None:
    assert tickets(1, 0, "held_out") == [
        "Dear all, The Mossboard server does not respond to any request. I expected better from you. We need this by tomorrow. Thanks, Priya"
    ]


def test_tickets_are_distinct_and_no_held_out_ticket_is_a_training_ticket() -> None:
    assert len(set(TRAINING)) == 5_000
    assert len(set(HELD_OUT)) == 2_000
    assert not set(TRAINING) & set(HELD_OUT)
    assert not set(tickets(2_000, 1, "training")) & set(HELD_OUT)


def test_no_deciding_pair_of_a_held_out_ticket_occurs_in_training(
    training_parts: list[Parts], held_out_parts: list[Parts]
) -> None:
    for second in (3, 4):  # urgency, tone
        seen = {(p[1], p[second]) for p in training_parts}
        asked = {(p[1], p[second]) for p in held_out_parts}
        assert seen
        assert asked
        assert not seen & asked


def test_the_sides_hold_whatever_the_seed_because_every_pair_has_one() -> None:
    for pattern in chain.from_iterable(PROBLEMS.values()):
        for sentences in (URGENCIES.values(), TONES.values()):
            sides = [side_of(pattern, sentence) for sentence in chain.from_iterable(sentences)]
            assert sides.count(Split.TRAINING) > len(sides) / 3


@pytest.mark.parametrize("n", [1_000, 5_000])
def test_every_sentence_of_the_held_out_tickets_occurs_in_training(n: int, held_out_parts: list[Parts]) -> None:
    learnt = [set(column) for column in zip(*map(parts, TRAINING[:n]), strict=True)]
    examined = [set(column) for column in zip(*held_out_parts, strict=True)]
    assert all(asked <= known for asked, known in zip(examined, learnt, strict=True))


def test_every_order_of_sentences_occurs_on_both_sides() -> None:
    for side in (TRAINING[:1_000], HELD_OUT[:1_000]):
        orders = set()
        for ticket in side:
            _, pattern, product, urgency, tone, _ = parts(ticket)
            places = {"problem": pattern.format(product=product), "urgency": urgency, "tone": tone}
            orders.add(tuple(sorted(places, key=lambda name: ticket.index(places[name]))))
        assert len(orders) == len(ORDERS)


@pytest.mark.parametrize("side", [TRAINING[:1_000], HELD_OUT[:200]])
def test_every_value_of_every_field_occurs(side: list[str]) -> None:
    answers = [json.loads(triage(ticket)) for ticket in side]
    for field, values in FIELDS.items():
        assert {answer[field] for answer in answers} == set(values)


def test_more_tickets_than_can_be_made_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="ask for 0 to 100,000"):
        tickets(100_001, 0, "training")
