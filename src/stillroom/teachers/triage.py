"""A ticket-triage expert made of rules, and the support tickets it triages.

It stands in for a large model wherever one is needed without keys or network: rules looked up in the
text, not a language model. The rules are written out in `SYSTEM_PROMPT`; `triage` follows them and reads
nothing but the ticket, so it also answers what a person types. `tickets` makes training and held-out
tickets that share every sentence and no deciding combination of sentences (see `DIFFERENCE`).

Owns the prompt, the rules, the sentences and the split. Knows nothing of HTTP, students or scores.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
from enum import IntEnum, StrEnum
from typing import TypeVar

from stillroom.errors import InvalidRequest

SYSTEM_PROMPT = """\
You triage support tickets for a company that sells office software. Read the ticket and answer with one \
JSON object on one line, without spaces or any other text. Its keys, in this order, are category, \
sentiment, priority and team.

category is what the ticket is about: billing, login, security, outage, performance, data, integration or \
question. A ticket about nothing else is a question.

sentiment is angry when the customer insults us, threatens to leave or has lost all patience, annoyed when \
the customer complains about the trouble or about our service, and calm otherwise.

priority is low, normal, high or urgent. Most tickets start at normal; security and outage start at high, \
question starts at low. A deadline of today or tomorrow raises the priority by one step. Work that has \
stopped makes it urgent. A customer who says that there is no hurry lowers it by one step. Security never \
falls below high, and a question never rises above high.

team is payments for billing, identity for login and security, support for question, and platform for \
outage, performance, data and integration. There are two exceptions: an urgent ticket that would go to \
platform goes to incident, and a billing ticket from an angry customer goes to care."""

FIELDS: dict[str, tuple[str, ...]] = {
    "category": (
        "billing",
        "login",
        "security",
        "outage",
        "performance",
        "data",
        "integration",
        "question",
    ),
    "sentiment": ("calm", "annoyed", "angry"),
    "priority": ("low", "normal", "high", "urgent"),
    "team": ("payments", "identity", "support", "platform", "incident", "care"),
}
"""The keys of an answer in their order, and every value each may have."""

DIFFERENCE = (
    "Both sets are made of the same sentences, in combinations that differ: no pair of a problem with an urgency, or of a "
    "problem with a tone, occurs in both, so the rules must be combined anew. Wording that was never seen is not tested."
)

Kind = TypeVar("Kind")
WORD = re.compile(r"\w+")

MOST_TICKETS = 100_000
HELD_OUT_SHARE = 4  # one pair in four is held out


class Split(StrEnum):
    """Which side of the line between learning and examining a ticket lies on."""

    TRAINING = "training"
    HELD_OUT = "held_out"


class Urgency(IntEnum):
    """What the customer says about time, and the steps by which it moves the priority."""

    PATIENT = -1
    USUAL = 0
    DEADLINE = 1
    STOPPED = 3


PROBLEMS: dict[str, tuple[str, ...]] = {
    "security": (
        "Someone signed in to our {product} account from a country where we have nobody.",
        "An unknown administrator has appeared in {product} and we did not create it.",
        "I think that a former employee still reads our files in {product}.",
        "We received a phishing mail that pretends to come from {product}.",
        "An access key for {product} was published by mistake.",
        "In {product} I can see the documents of another company.",
    ),
    "outage": (
        "Since this morning {product} is down for everybody here.",
        "Every page of {product} shows only error 503.",
        "Nobody in our office can reach {product} at all.",
        "The {product} server does not respond to any request.",
        "We see a blank screen in {product} on every computer.",
        "Your status page says that all is well, but {product} is unreachable.",
    ),
    "billing": (
        "We were charged twice for {product} this month.",
        "The invoice for {product} shows the wrong amount.",
        "I am still waiting for the refund for {product}.",
        "Our credit card was declined when we renewed {product}.",
        "The discount for {product} is missing from the bill.",
        "We cancelled the subscription to {product} and it was renewed all the same.",
    ),
    "login": (
        "I cannot sign in to {product} with my usual details.",
        "The password reset mail from {product} never arrives.",
        "My {product} account is locked after too many attempts.",
        "The verification code for {product} is always rejected.",
        "Single sign-on to {product} sends me round in a circle.",
        "A new colleague gets no invitation to {product}.",
    ),
    "performance": (
        "Since the update {product} is very slow.",
        "Searching in {product} takes minutes now.",
        "When I type in {product}, the letters lag behind.",
        "Large documents in {product} time out before they open.",
        "With {product} open, the fan runs and the memory is used up.",
        "Lists in {product} load forever when I scroll.",
    ),
    "data": (
        "Several documents have disappeared from {product}.",
        "The export from {product} contains empty columns.",
        "After the import, half of our records in {product} are duplicated.",
        "The backup of {product} cannot be restored.",
        "My changes in {product} were not saved.",
        "The totals in the {product} report do not add up.",
    ),
    "integration": (
        "The calendar no longer syncs with {product}.",
        "Our webhook gets nothing from {product} any more.",
        "The connector between {product} and our mail program stopped.",
        "The API of {product} rejects our requests with a strange message.",
        "Files from our cloud drive cannot be attached in {product}.",
        "The plugin for {product} does not appear in the browser.",
    ),
    "question": (
        "How do I change the language of {product}?",
        "Where can I find the manual of {product}?",
        "Is it possible to use {product} on a tablet?",
        "Could you explain what the labels in {product} mean?",
        "Does {product} have a dark theme?",
        "I would like to know which plan of {product} suits a school.",
    ),
}

CATEGORY_CUES: dict[str, tuple[str, ...]] = {
    "security": (
        "signed in to our",
        "unknown administrator",
        "former employee",
        "phishing",
        "access key",
        "documents of another company",
        "hacked",
        "security",
    ),
    "outage": (
        "is down",
        "error 503",
        "can reach",
        "does not respond",
        "blank screen",
        "unreachable",
        "outage",
    ),
    "billing": (
        "charged",
        "invoice",
        "refund",
        "credit card",
        "discount",
        "subscription",
        "billing",
        "payment",
    ),
    "login": (
        "cannot sign in",
        "password",
        "account is locked",
        "verification code",
        "single sign-on",
        "invitation",
        "log in",
    ),
    "performance": ("slow", "takes minutes", "lag behind", "time out", "memory", "load forever"),
    "data": ("disappeared", "export", "import", "backup", "not saved", "do not add up"),
    "integration": ("syncs with", "webhook", "connector", "api of", "cloud drive", "plugin", "integration"),
}
"""What gives a category away, in lower case. The first category with a cue in the text is the ticket's."""

URGENCIES: dict[Urgency, tuple[str, ...]] = {
    Urgency.PATIENT: (
        "There is no hurry.",
        "Take your time with this.",
        "It can wait until next month.",
        "Whenever you have a quiet moment is fine.",
        "This is not important to us right now.",
    ),
    Urgency.USUAL: (
        "We use it with a team of twelve people.",
        "I work mostly from home.",
        "We have been customers for three years.",
        "It is the same in every browser.",
        "My colleague sees the same thing.",
    ),
    Urgency.DEADLINE: (
        "We need this by tomorrow.",
        "It has to be settled before the end of the day.",
        "Our audit begins tomorrow morning.",
        "I have a presentation this afternoon.",
        "The deadline is tonight.",
    ),
    Urgency.STOPPED: (
        "The whole company has stopped working.",
        "None of us can do any work.",
        "Our shop is closed until this is solved.",
        "We are losing money every minute.",
        "Production stands still.",
    ),
}

URGENCY_CUES: dict[Urgency, tuple[str, ...]] = {
    Urgency.STOPPED: (
        "has stopped working",
        "can do any work",
        "is closed until",
        "losing money",
        "stands still",
    ),
    Urgency.DEADLINE: (
        "by tomorrow",
        "end of the day",
        "tomorrow morning",
        "this afternoon",
        "deadline",
        "tonight",
    ),
    Urgency.PATIENT: ("no hurry", "take your time", "can wait", "whenever you", "not important"),
}

TONES: dict[str, tuple[str, ...]] = {
    "calm": (
        "Apart from that we are happy with it.",
        "Your last answer helped me a lot.",
        "I am sure that there is a simple reason.",
        "I can send you more details.",
        "It is a pleasure to work with it otherwise.",
    ),
    "annoyed": (
        "This is rather annoying.",
        "I am disappointed by your service.",
        "It is the third time that I write about this.",
        "That is frustrating.",
        "I expected better from you.",
    ),
    "angry": (
        "This is completely unacceptable!",
        "I am furious!",
        "You people are useless!",
        "We will move to your competitor if this goes on!",
        "I have lost all patience with you!",
    ),
}

TONE_CUES: dict[str, tuple[str, ...]] = {
    "angry": ("unacceptable", "furious", "useless", "competitor", "lost all patience"),
    "annoyed": ("annoying", "disappointed", "the third time", "frustrating", "expected better"),
}

OPENINGS = (
    "Hello,",
    "Good morning,",
    "Dear support team,",
    "Hi there,",
    "To whom it may concern,",
    "Hello again,",
    "Good afternoon,",
    "Dear all,",
)
CLOSINGS = (
    "Kind regards, Ada",
    "Best wishes, Tomás",
    "Many thanks, Mei",
    "Yours sincerely, Olu",
    "Regards, Jonas",
    "Thanks, Priya",
    "Greetings from Lyon, Claire",
    "Sent from my phone",
)
PRODUCTS = ("Quillpad", "Tidebook", "Fernmail", "Larkdesk", "Mossboard", "Pebblecast")
ORDERS = (
    "{opening} {problem} {urgency} {tone} {closing}",
    "{opening} {problem} {tone} {urgency} {closing}",
    "{opening} {tone} {problem} {urgency} {closing}",
    "{opening} {urgency} {problem} {tone} {closing}",
    "{opening} {urgency} {tone} {problem} {closing}",
)

PRIORITIES = FIELDS["priority"]
FIRST_PRIORITY = {"security": "high", "outage": "high", "question": "low"}  # the others start at normal
LEAST_PRIORITY = {"security": "high"}
MOST_PRIORITY = {"question": "high"}
TEAMS = {"billing": "payments", "login": "identity", "security": "identity", "question": "support"}


def triage(ticket_text: str) -> str:
    """The rules' answer to a ticket: compact JSON with the keys of `FIELDS` in their order."""
    words = _words(ticket_text)
    category = _first_with_cue(words, CATEGORY_CUES, otherwise="question")
    urgency = _first_with_cue(words, URGENCY_CUES, otherwise=Urgency.USUAL)
    sentiment = _first_with_cue(words, TONE_CUES, otherwise="calm")
    priority = _priority(category, urgency)
    team = _team(category, priority, sentiment)
    answer = {"category": category, "sentiment": sentiment, "priority": priority, "team": team}
    return json.dumps(answer, separators=(",", ":"))


def messages(ticket: str) -> list[dict[str, str]]:
    """The chat that asks for a ticket's triage."""
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": ticket}]


def tickets(n: int, seed: int, split: Split | str) -> list[str]:
    """`n` different tickets of one side; the same arguments always give the same tickets.

    Another seed may repeat some of them, but never brings one across to the other side.
    """
    side = Split(split)
    if not 0 <= n <= MOST_TICKETS:
        raise InvalidRequest(f"{n} tickets cannot be made; ask for 0 to {MOST_TICKETS:,}.", param="n")
    dice = random.Random(f"{side.value} {seed}")
    found: dict[str, None] = {}  # a set that keeps its order
    while len(found) < n:
        ticket = _ticket(dice, side)
        if ticket is not None:
            found[ticket] = None
    return list(found)


def side_of(problem: str, sentence: str) -> Split:
    """The side to which the pair of a problem with an urgency or tone sentence belongs, always the same."""
    digest = hashlib.blake2b(f"{problem}|{sentence}".encode(), digest_size=4).digest()
    held_out = int.from_bytes(digest, "big") % HELD_OUT_SHARE == 0
    return Split.HELD_OUT if held_out else Split.TRAINING


def _first_with_cue(words: str, cues: dict[Kind, tuple[str, ...]], *, otherwise: Kind) -> Kind:
    found = (kind for kind, phrases in cues.items() if any(_cue(cue) in words for cue in phrases))
    return next(found, otherwise)


@functools.cache
def _cue(phrase: str) -> str:
    return _words(phrase)


def _words(text: str) -> str:
    """Lower-case words between single spaces, also at both ends, so that "import" is not in "important"."""
    return f" {' '.join(WORD.findall(text.lower()))} "


def _priority(category: str, urgency: Urgency) -> str:
    step = PRIORITIES.index(FIRST_PRIORITY.get(category, "normal")) + urgency
    least = PRIORITIES.index(LEAST_PRIORITY.get(category, "low"))
    most = PRIORITIES.index(MOST_PRIORITY.get(category, "urgent"))
    return PRIORITIES[min(max(step, least), most)]


def _team(category: str, priority: str, sentiment: str) -> str:
    if category == "billing" and sentiment == "angry":
        return "care"
    team = TEAMS.get(category, "platform")
    return "incident" if team == "platform" and priority == "urgent" else team


def _ticket(dice: random.Random, side: Split) -> str | None:
    """One ticket, or None when the drawn sentences do not all belong to this side."""
    problem = _drawn(dice, PROBLEMS)
    urgency = _drawn(dice, URGENCIES)
    tone = _drawn(dice, TONES)
    if {side_of(problem, urgency), side_of(problem, tone)} != {side}:
        return None
    return dice.choice(ORDERS).format(
        opening=dice.choice(OPENINGS),
        problem=problem.format(product=dice.choice(PRODUCTS)),
        urgency=urgency,
        tone=tone,
        closing=dice.choice(CLOSINGS),
    )


def _drawn(dice: random.Random, sentences: dict[Kind, tuple[str, ...]]) -> str:
    """A sentence; its kind is drawn first, so that every kind is equally frequent."""
    return dice.choice(sentences[dice.choice(list(sentences))])
