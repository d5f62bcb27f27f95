"""What things cost: prices, usage and budgets, over the API and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI, RateLimitError

from stillroom.teachers.scripted import ScriptedTeacher
from tests.journeys.conftest import deployment_of
from tests.support import Server, example_lines

TEACHERS = {
    "big": {"price": {"input": 2.5, "output": 10, "cached_input": 1.25}},
    "small": {"price": {"input": 0.15, "output": 0.6}},
}
STUDENT_PRICE = {"training": 3, "hosting_hour": 1.7}
ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"

Ask = Callable[..., tuple[int, dict[str, str], Any]]


@pytest.fixture(scope="module")
def shop(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two teachers, a priced student, and a deployment of a teacher."""
    teachers = {name: {"base_url": teacher.url, **more} for name, more in TEACHERS.items()}
    students = json.dumps({"scratch-small": {"price": STUDENT_PRICE}})
    data = tmp_path_factory.mktemp("shop") / "data"
    with Server(data, teachers=teachers, students=students).start() as running:
        send(running, "PUT", f"{ACCOUNT}/kyle?api-version=2025-09-01", deployment_of("small"))
        yield running


@pytest.fixture
def shopper(shop: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{shop.url}/v1", api_key=shop.key) as opened:
        yield opened


def send(server: Server, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, dict[str, str], Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key or server.key}", "content-type": "application/json"}
    try:
        with urlopen(Request(server.url + path, data=data, method=method, headers=headers), timeout=60) as answer:
            return answer.status, dict(answer.headers), json.loads(answer.read() or b"null")
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.loads(error.read())


@pytest.fixture
def ask(shop: Server) -> Ask:
    return lambda method, path, body=None, key="": send(shop, method, f"/v1/stillroom/{path}", body, key)


def say(client: OpenAI, model: str, text: str = "hello there") -> Any:
    """One answer's usage."""
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], store=True)
    return answer.usage


def rows(ask: Ask, **query: Any) -> list[dict[str, Any]]:
    status, _, body = ask("GET", "usage?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert status == 200, body
    return list(body["data"])


# --- usage --------------------------------------------------------------------------------------------


def test_usage_says_which_name_was_called_which_model_answered_and_with_which_key(
    shop: Server, shopper: OpenAI, ask: Ask
) -> None:
    made = ask("POST", "keys", {"name": "the café's"})[2]
    with OpenAI(base_url=f"{shop.url}/v1", api_key=made["key"]) as other:
        used = [say(other, "kyle", "a " * number) for number in range(1, 4)]
    say(shopper, "small")
    (row,) = [row for row in rows(ask, group_by="key,deployment,model") if row["key_id"] == made["id"]]
    prompt, said = sum(u.prompt_tokens for u in used), sum(u.completion_tokens for u in used)
    pico = prompt * 150_000 + said * 600_000
    assert row == {
        "object": "stillroom.usage",
        "key_id": made["id"],
        "key": "the café's",
        "deployment": "kyle",
        "model": "small",
        "events": 3,
        "prompt_tokens": prompt,
        "cached_tokens": 0,
        "completion_tokens": said,
        "saved_prompt_tokens": 0,
        "trained_tokens": 0,
        "hosted_seconds": 0,
        "cost_microusd": (pico + 500_000) // 1_000_000,
        "cost_usd": pico / 10**12,
    }


def test_every_grouping_adds_up_to_the_same(shopper: OpenAI, ask: Ask) -> None:
    for model in ("big", "small", "kyle"):
        say(shopper, model)
    numbers = ("events", "prompt_tokens", "completion_tokens")
    sums = {
        by: [sum(row[name] for row in rows(ask, group_by=by)) for name in numbers]
        for by in ("day", "deployment", "model", "key", "kind", "day,deployment,key")
    }
    assert len({tuple(each) for each in sums.values()}) == 1
    assert [(row["kind"], row["model"]) for row in rows(ask)] == [("answer", "big"), ("answer", "small")]
    days = {row["day"] for row in rows(ask, group_by="day")}
    assert datetime.now(UTC).date().isoformat() in days


def test_usage_can_be_bounded_in_time(shopper: OpenAI, ask: Ask) -> None:
    say(shopper, "big")
    now = int(datetime.now(UTC).timestamp())
    assert rows(ask, until=now - 3600) == []
    assert rows(ask, since=now + 3600) == []
    assert rows(ask, since=now - 3600, until=now + 3600) == rows(ask)


@pytest.mark.parametrize(
    ("query", "param"),
    [("group_by=colour", "group_by"), ("group_by=", "group_by"), ("since=x", "since"), ("until=-1", "until")],
)
def test_a_wrong_grouping_or_time_is_refused(ask: Ask, query: str, param: str) -> None:
    status, _, body = ask("GET", f"usage?{query}")
    assert (status, body["error"]["param"]) == (400, param)


def test_usage_on_the_command_line(shop: Server, shopper: OpenAI, ask: Ask) -> None:
    say(shopper, "kyle")
    printed = json.loads(shop.cli("usage", "--by", "deployment", "--since", "1h", "--json").stdout)
    assert printed == rows(ask, group_by="deployment")
    drawn = shop.cli("usage", "--by", "day,deployment,key")
    assert all(word in drawn.stdout for word in ("DAY", "DEPLOYMENT", "kyle", "admin"))
    assert "In all: 0.00" in drawn.stderr
    assert "answer" in shop.cli("usage").stdout
    refused = shop.cli("usage", "--by", "colour", check=False)
    assert refused.returncode == 1
    assert "deployment" in refused.stderr


# --- prices -------------------------------------------------------------------------------------------


def test_the_price_book_has_every_name_and_where_its_price_is_set(shop: Server, ask: Ask) -> None:
    book = {(row["kind"], row["name"]): row for row in ask("GET", "prices")[2]["data"]}
    assert list(book) == [
        ("teacher", "big"),
        ("teacher", "small"),
        ("student", "scratch-small"),
        ("deployment", "kyle"),
    ]
    big, kyle, student = book["teacher", "big"], book["deployment", "kyle"], book["student", "scratch-small"]
    assert big["usd_per_million"] == {"input": 2.5, "cached_input": 1.25, "output": 10, "training": 0}
    assert big["microusd_per_million"] == {
        "input": 2_500_000,
        "cached_input": 1_250_000,
        "output": 10_000_000,
        "training": 0,
    }
    assert kyle["of"] == "small"
    assert kyle["usd_per_million"] == book["teacher", "small"]["usd_per_million"]
    assert kyle["usd_per_million"]["cached_input"] == 0.15
    assert kyle["source"] == '[teachers."small"]'
    assert (student["usd_per_million"]["training"], student["microusd_per_hosting_hour"]) == (3, 1_700_000)
    assert json.loads(shop.cli("prices", "--json").stdout) == list(book.values())
    assert '[teachers."small"]' in shop.cli("prices").stdout


def test_what_has_no_price_says_so(server: Server) -> None:
    book = send(server, "GET", "/v1/stillroom/prices")[2]["data"]
    (student,) = [row for row in book if row["name"] == "scratch-small"]
    assert student["source"] == "none is configured; counted at 0"


# --- budgets ------------------------------------------------------------------------------------------


@pytest.fixture
def without_budget(ask: Ask) -> Iterator[None]:
    yield
    ask("DELETE", "budget")


@pytest.mark.usefixtures("without_budget")
def test_a_spent_budget_refuses_new_jobs_and_lets_answers_go_on(shopper: OpenAI, ask: Ask) -> None:
    say(shopper, "big", "word " * 500)
    file = shopper.files.create(file=("a.jsonl", example_lines(10)), purpose="fine-tune").id
    status, _, budget = ask("PUT", "budget", {"usd": 0.0001, "period": "total"})
    assert (status, budget["limit_microusd"], budget["period"], budget["ends_at"]) == (200, 100, "total", None)
    assert budget["spent"]
    with pytest.raises(RateLimitError) as refused:
        shopper.fine_tuning.jobs.create(model="scratch-small", training_file=file)
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "stillroom budget set USD" in refused.value.message
    for stream in (False, True):
        with shopper.chat.completions.with_streaming_response.create(
            model="big", messages=[{"role": "user", "content": "hi"}], stream=stream
        ) as answer:
            assert answer.headers["x-stillroom-warning"].startswith("The budget is spent: ")
            answer.read()
    ask("PUT", "budget", {"usd": 1000})
    assert shopper.fine_tuning.jobs.create(model="scratch-small", training_file=file).id
    answer = shopper.chat.completions.with_raw_response.create(model="big", messages=[{"role": "user", "content": "a"}])
    assert "x-stillroom-warning" not in answer.headers


def test_a_budget_is_shown_set_and_removed_on_the_command_line(shop: Server) -> None:
    nothing = shop.cli("budget", "show", check=False)
    assert nothing.returncode == 1
    assert "stillroom budget set USD" in nothing.stderr
    drawn = shop.cli("budget", "set", "50").stdout
    assert "of 50.000000 USD are spent this month" in drawn
    shown = json.loads(shop.cli("budget", "show", "--json").stdout)
    assert (shown["usd"], shown["period"], shown["spent"]) == (50, "month", False)
    assert "in total" in shop.cli("budget", "set", "12.5", "--period", "total").stdout
    for amount in ("-5", "nan", "1e12"):
        refused = shop.cli("budget", "set", amount, check=False)
        assert refused.returncode == 2
        assert f"{float(amount):g} is no amount of USD from 0 to 1,000,000,000" in refused.stderr
    refused = shop.cli("budget", "set", "5", "--period", "week", check=False)
    assert refused.returncode == 2
    assert "'week' is not one of 'month', 'total'" in refused.stderr
    assert "in total" in shop.cli("budget", "show").stdout  # nothing was changed
    assert shop.cli("budget", "remove").stdout == "The budget is removed.\n"
    assert shop.cli("budget", "remove", check=False).returncode == 1


@pytest.mark.parametrize(
    "wrong", [{"usd": -1}, {"usd": "much"}, {}, {"usd": 1, "period": "week"}, {"usd": 1, "per": 2}]
)
def test_a_wrong_budget_is_refused(ask: Ask, wrong: dict[str, Any]) -> None:
    assert ask("PUT", "budget", wrong)[0] == 400
    assert ask("GET", "budget")[0] == 404
