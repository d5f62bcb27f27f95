"""Rows in the shape of the demo's task: a support ticket -> JSON of four closed-set fields. For tests only."""

from __future__ import annotations

import json
import random
from typing import Any

SYSTEM = (
    "You triage support tickets. Answer with JSON: category (billing, login, bug, shipping, feature), "
    "priority (low, normal, high, urgent), team (finance, identity, engineering, logistics, product) "
    "and sentiment (angry, neutral, happy)."
)
TOPICS = {
    "billing": ["I was charged twice", "the invoice shows the wrong amount", "my refund has not arrived"],
    "login": ["I cannot sign in", "the password reset mail never comes", "two-factor codes are refused"],
    "bug": ["the export crashes", "the page stays blank after saving", "search returns nothing"],
    "shipping": ["the parcel is lost", "the courier left it at the wrong door", "tracking has not moved"],
    "feature": ["please add dark mode", "I would like a calendar view", "could you support webhooks"],
}
TEAMS = {
    "billing": "finance",
    "login": "identity",
    "bug": "engineering",
    "shipping": "logistics",
    "feature": "product",
}
URGENCY = {
    "low": ["No hurry at all.", "Whenever you find time.", "This can wait."],
    "normal": ["Please look into it this week.", "Let me know what you need.", "Thanks for checking."],
    "high": ["We need this before tomorrow.", "Several colleagues are blocked.", "It is quite pressing."],
    "urgent": ["Production is down!", "We lose money every minute!", "Fix this immediately!"],
}
MOODS = {
    "angry": ["This is unacceptable.", "I am fed up.", "Worst service ever."],
    "neutral": ["Hello.", "Good morning.", "Hi team."],
    "happy": ["I love your product!", "You have been great so far.", "Thanks for the wonderful support!"],
}
NAMES = ["Aiko", "Ben", "Carla", "Dmitri", "Elif", "Femi", "Grace", "Hiro", "Ines", "Jonas"]
PLACES = [
    "on the web",
    "in the mobile app",
    "since the last update",
    "for order",
    "on my account",
    "at our office",
]


def ticket(rng: random.Random) -> dict[str, Any]:
    """One training row; the same generator makes held-out rows from another seed."""
    category, priority, mood = rng.choice(list(TOPICS)), rng.choice(list(URGENCY)), rng.choice(list(MOODS))
    parts = [rng.choice(MOODS[mood]), f"{rng.choice(TOPICS[category]).capitalize()} {rng.choice(PLACES)}."]
    parts.append(rng.choice(URGENCY[priority]))
    if rng.random() < 0.5:
        rng.shuffle(parts)
    text = " ".join(parts) + f" {rng.choice(NAMES)}, customer {rng.randrange(1000, 9999)}"
    fields = {"category": category, "priority": priority, "team": TEAMS[category], "sentiment": mood}
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": text},
            {"role": "assistant", "content": json.dumps(fields)},
        ]
    }


def tickets(count: int, *, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [ticket(rng) for _ in range(count)]
