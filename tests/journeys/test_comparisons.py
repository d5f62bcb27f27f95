"""Teacher beside student: from a finished job to a page that says how good the student is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from openai import OpenAI

from stillroom.teachers.scripted import JsonObject, ScriptedTeacher
from tests.support import Server, wait_for

COLOURS = ("red", "green", "blue")
HOSTILE = "<script>alert(1)</script>\u202e|"
TEACHER_PRICE = {"input": 2.5, "output": 10.0}
STUDENT_PRICE = {"training": 3.0, "input": 0.5, "output": 1.5}
CHATS = 60


def expert(request: JsonObject) -> str:
    """Knows the colours; as a judge it prefers the teacher's word when the two differ, wherever it stands."""
    asked = request["messages"][-1]["content"]
    if "response_format" not in request:
        return COLOURS[int(re.findall(r"\d+", asked)[-1]) % 3]
    thing = int(re.findall(r"thing (\d+)", asked)[-1])
    first, second = re.findall(r"answer:\n(.*)\nTool calls", asked)
    right = COLOURS[thing % 3]
    schema = request["response_format"]["json_schema"]["schema"]["properties"]["result"]
    if "enum" in schema:
        result: Any = (
            "tie" if first == second else "first" if first == right else "second" if second == right else "tie"
        )
    else:
        result = 1.0 if first == second else 0.0
    return json.dumps({"steps": [], "result": result})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ScriptedTeacher(expert) as teacher, ScriptedTeacher(lambda request: "Well, well.") as mumbler:
        teachers = {"gpt-4o": {"base_url": teacher.url, "price": TEACHER_PRICE}, "mumbler": {"base_url": mumbler.url}}
        data = tmp_path_factory.mktemp("compared") / "data"
        students = json.dumps({"scratch-small": {"price": STUDENT_PRICE}})
        with Server(data, teachers=teachers, students=students) as running:
            yield running


@pytest.fixture(scope="module")
def sdk(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def job(server: Server, sdk: OpenAI) -> str:
    """A student of most of what was stored; some was held out, and the hostile one is among the rest."""
    for i in range(CHATS):
        sdk.chat.completions.create(
            model="gpt-4o",
            messages=[
                {"role": "system", "content": "Answer with the colour."},
                {"role": "user", "content": f"{HOSTILE if i == 7 else ''}thing {i}"},
            ],
            store=True,
            metadata={"task": "colours", "shelf": "top" if i % 2 else HOSTILE, "box": str(i)},
        )
    distilled = server.cli(
        *("distill", "--student", "scratch-small", "--metadata", "task=colours", "--validation", "0.4"),
        *("--epochs", "3", "--wait", "--json"),
    )
    return str(json.loads(distilled.stdout)["id"])


@pytest.fixture(scope="module")
def compared(server: Server, job: str) -> dict[str, Any]:
    """The report that one command gives."""
    run = server.cli("evals", "run", "--job", job, "--holdout", "--judge", "gpt-4o", "--json")
    assert "starts from random weights" in run.stderr
    return dict(json.loads(run.stdout))


def test_a_report_asks_only_what_was_held_out_from_training(compared: dict[str, Any], sdk: OpenAI, job: str) -> None:
    (side,) = compared["sides"]
    training = sdk.files.content(sdk.fine_tuning.jobs.retrieve(job).training_file).text.splitlines()
    assert side["training"] == {"tuned": True, "trained_on": 0, "left_out": len(training)}
    assert side["items"] == CHATS - len(training)
    (note,) = compared["notes"]
    assert "judges answers beside its own" in note


def test_agreement_is_what_asking_the_student_oneself_gives(compared: dict[str, Any], sdk: OpenAI, job: str) -> None:
    trained = sdk.files.content(sdk.fine_tuning.jobs.retrieve(job).training_file).text
    (side,) = compared["sides"]
    agreeing = asked = 0
    for kept in sdk.chat.completions.list(limit=100):
        if kept.choices[0].message.content not in COLOURS:
            continue
        sent = [
            {"role": message.role, "content": message.content}
            for message in sdk.chat.completions.messages.list(kept.id).data
        ]
        if json.dumps(sent[-1]["content"], ensure_ascii=False) in trained:
            continue
        said = sdk.chat.completions.create(model=side["model"], messages=sent, temperature=0, seed=42)  # type: ignore[arg-type]
        agreeing += said.choices[0].message.content == kept.choices[0].message.content
        asked += 1
    assert (side["agreement"]["count"], side["agreement"]["total"]) == (agreeing, asked)
    same_text = next(one for one in side["criteria"] if one["name"] == "Same text")
    assert same_text["passed"]["count"] == agreeing


def test_the_judge_sees_each_pair_twice_and_its_verdicts_add_up(compared: dict[str, Any]) -> None:
    (side,) = compared["sides"]
    judged, disagreeing = side["judged"], side["agreement"]["total"] - side["agreement"]["count"]
    assert judged["wins"] == 0
    assert judged["losses"] == disagreeing
    assert judged["ties"] == side["agreement"]["count"]


def test_prices_are_the_configured_ones_times_the_tokens(compared: dict[str, Any]) -> None:
    for side, price in ((compared["teacher"], TEACHER_PRICE), (compared["sides"][0], STUDENT_PRICE)):
        spent = side["expense"]
        by_hand = spent["prompt_tokens"] * price["input"] + spent["completion_tokens"] * price["output"]
        assert spent["microusd_per_1000_calls"] == pytest.approx(by_hand * 1000, abs=1)
        assert spent["prompt_tokens"] > 0


def test_slices_are_the_metadata_values_that_many_items_share(compared: dict[str, Any]) -> None:
    (side,) = compared["sides"]
    assert {(one["key"], one["value"]) for one in side["slices"]} == {("shelf", "top"), ("shelf", HOSTILE)}
    assert sum(one["agreement"]["total"] for one in side["slices"]) == side["agreement"]["total"]
    assert sum(one["agreement"]["count"] for one in side["slices"]) == side["agreement"]["count"]


def test_the_worst_disagreements_stand_side_by_side_worst_first(compared: dict[str, Any]) -> None:
    (side,) = compared["sides"]
    worst = side["worst"]
    assert len(worst) == min(12, side["agreement"]["total"] - side["agreement"]["count"])
    assert [one["score"] for one in worst] == sorted(one["score"] for one in worst)
    for one in worst:
        assert one["teacher"] == COLOURS[int(re.findall(r"\d+", one["prompt"])[-1]) % 3] != one["student"]


def test_a_model_asked_about_its_own_training_data_is_shown_in_red(server: Server, sdk: OpenAI, job: str) -> None:
    run = server.cli("evals", "run", "--job", job, "--no-base")
    assert "was trained on" in run.stderr
    eval_id = sdk.evals.list(order="desc").data[0].id
    page = server.data.parent / "seen.html"
    server.cli("evals", "report", eval_id, "--output", str(page))
    assert re.search(r'class="note red"[^>]*>[^<]*was trained on 36 of the 60 items', page.read_text())


class _Page(HTMLParser):
    """The tags of a page and the addresses that it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [str(value) for name, value in attributes if name in ("src", "href", "srcset", "data")]


def test_the_page_stands_alone_and_shows_what_people_wrote_as_text(
    server: Server, sdk: OpenAI, compared: dict[str, Any]
) -> None:
    written = server.data.parent / "report.html"
    server.cli("evals", "report", compared["eval_id"], "--output", str(written))
    text = written.read_text()
    page = _Page()
    page.feed(text)
    assert page.fetched == []
    assert "script" not in page.tags
    assert "url(" not in text and "@import" not in text
    assert "&lt;script&gt;" in text


def test_the_same_report_comes_as_markdown_and_as_json(server: Server, compared: dict[str, Any]) -> None:
    folder = server.data.parent
    for name in ("report.md", "report.json"):
        server.cli("evals", "report", compared["eval_id"], "--output", str(folder / name))
    again = json.loads((folder / "report.json").read_text())
    assert {**again, "created_at": 0} == {**compared, "created_at": 0}
    markdown = (folder / "report.md").read_text()
    share = compared["sides"][0]["agreement"]["share"]
    assert f"{share * 100:.1f} %" in markdown
    assert "<script>" not in re.sub(r"^    .*$", "", markdown, flags=re.MULTILINE)


def test_the_summary_on_the_terminal_begins_with_the_sentence_that_matters(
    server: Server, compared: dict[str, Any]
) -> None:
    shown = server.cli("evals", "report", compared["eval_id"]).stdout
    side = compared["sides"][0]
    assert shown.startswith(f"{side['name']} gives the teacher's answer to {side['agreement']['share'] * 100:.1f} %")
    assert "held-out completions" in shown.splitlines()[0]


def test_two_students_are_compared_on_the_items_that_both_answered(
    server: Server, sdk: OpenAI, compared: dict[str, Any], job: str
) -> None:
    student = compared["sides"][0]["model"]
    run = server.cli("evals", "run", "--job", job, "--holdout", "--model", "gpt-4o", "--json")
    made = json.loads(run.stdout)
    assert [side["model"] for side in made["sides"]] == [student, "gpt-4o"]
    (pair,) = made["pairs"]
    teacher_side = made["sides"][1]
    assert teacher_side["agreement"]["share"] == 1.0
    assert pair["only_this_agrees"] == teacher_side["agreement"]["count"] - made["sides"][0]["agreement"]["count"]
    assert pair["only_beside_agrees"] == 0


def test_a_comparison_that_cannot_be_made_says_what_is_missing_and_leaves_no_eval(
    server: Server, sdk: OpenAI, job: str
) -> None:
    before = len(list(sdk.evals.list()))
    refused = server.cli("evals", "run", "--job", job, "--model", "nobody", check=False)
    assert refused.returncode == 1
    assert "`nobody` does not exist" in refused.stderr
    refused = server.cli("evals", "run", check=False)
    assert "--job" in refused.stderr
    refused = server.cli("evals", "run", "--model", "gpt-4o", "--metadata", "task=none", check=False)
    assert "No stored completion matches" in refused.stderr
    assert len(list(sdk.evals.list())) == before


def test_when_everything_was_trained_on_the_run_says_how_to_hold_some_out(
    server: Server, sdk: OpenAI, job: str
) -> None:
    box = json.loads(sdk.files.content(sdk.fine_tuning.jobs.retrieve(job).training_file).text.splitlines()[0])
    number = re.findall(r"\d+", box["messages"][1]["content"])[-1]
    refused = server.cli("evals", "run", "--job", job, "--holdout", "--metadata", f"box={number}", check=False)
    assert refused.returncode == 1
    assert "All 1 stored completions that match were trained on" in refused.stderr
    assert "--validation" in refused.stderr


def test_lineage_outlives_the_training_file(server: Server, sdk: OpenAI, job: str) -> None:
    sdk.files.delete(sdk.fine_tuning.jobs.retrieve(job).training_file)
    run = json.loads(server.cli("evals", "run", "--job", job, "--holdout", "--json", "--limit", "5").stdout)
    (side,) = run["sides"]
    assert side["items"] == 5
    assert side["training"]["trained_on"] == 0
    assert wait_for(lambda: not list((server.data / "runs").glob("evalrun_*")))


def test_the_report_says_when_the_training_is_earned_at_the_traffic_seen(
    server: Server, sdk: OpenAI, compared: dict[str, Any], job: str
) -> None:
    """By hand: what the teacher answered costs, less the same tokens at the student's price."""
    earning = compared["sides"][0]["earning"]
    trained = sdk.fine_tuning.jobs.retrieve(job).trained_tokens
    assert trained is not None
    assert earning["training_microusd"] == round(trained * STUDENT_PRICE["training"])
    teacher = compared["teacher"]["expense"]  # of the held-out ones; all calls are alike but for a number's digits
    saved = CHATS * sum(
        teacher[f"{kind}_tokens"] * (TEACHER_PRICE[way] - STUDENT_PRICE[way])
        for kind, way in (("prompt", "input"), ("completion", "output"))
    )
    saved_a_day = earning["teacher_microusd_per_day"] - earning["student_microusd_per_day"]
    assert saved_a_day == pytest.approx(saved, rel=0.2)
    assert earning["days"] == pytest.approx(earning["training_microusd"] / saved_a_day, rel=0.01)


def test_what_runs_ask_is_metered_as_evaluation_and_is_nobodys_traffic(
    server: Server, compared: dict[str, Any]
) -> None:
    usage = json.loads(server.cli("usage", "--json").stdout)
    events = {(row["kind"], row["model"]): row["events"] for row in usage}
    assert events["answer", "gpt-4o"] == CHATS
    differing = compared["sides"][0]["agreement"]["total"] - compared["sides"][0]["agreement"]["count"]
    assert events["evaluation", "gpt-4o"] >= 3 * differing > 0  # three judgements a pair that differs
    assert events["evaluation", compared["sides"][0]["model"]] >= compared["sides"][0]["items"]


def test_a_judge_that_says_nothing_of_use_is_named_with_what_it_said(server: Server, job: str) -> None:
    made = json.loads(server.cli("evals", "run", "--job", job, "--holdout", "--judge", "mumbler", "--json").stdout)
    (side,) = made["sides"]
    assert made["judges"] == ["mumbler"]
    differing = side["agreement"]["total"] - side["agreement"]["count"]
    meaning = next(one for one in side["criteria"] if one["name"].startswith("Same meaning"))
    assert (meaning["errored"], side["unanswered"]) == (differing, 0)
    (note,) = made["notes"]
    assert f"could not grade {differing} of {side['items']} items" in note
    assert "Well, well." in note


def test_evals_are_listed_shown_cancelled_and_deleted_from_the_command_line(
    server: Server, sdk: OpenAI, compared: dict[str, Any]
) -> None:
    eval_id = compared["eval_id"]
    assert eval_id in server.cli("evals", "list").stdout
    shown = server.cli("evals", "show", eval_id).stdout
    assert "criterion: Same text (string_check)" in shown
    assert f"of {compared['sides'][0]['items']}" in shown
    assert "No run" in server.cli("evals", "cancel", eval_id).stderr
    made = sdk.evals.create(
        data_source_config={"type": "custom", "item_schema": {"type": "object"}},
        testing_criteria=[
            {"type": "python", "name": "slow", "source": "import time\ndef grade(sample, item):\n    time.sleep(60)\n"}
        ],
    )
    run = sdk.evals.runs.create(
        made.id,
        data_source={"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {}, "sample": {}}]}},
    )
    assert f"{run.id} is cancelled." in server.cli("evals", "cancel", made.id).stdout
    assert sdk.evals.runs.retrieve(run.id, eval_id=made.id).status == "canceled"
    server.cli("evals", "delete", made.id)
    assert made.id not in server.cli("evals", "list", "--json").stdout


@pytest.mark.slow
def test_two_students_of_two_jobs_are_asked_only_what_neither_was_trained_on(
    server: Server, sdk: OpenAI, job: str
) -> None:
    distilled = server.cli(
        *("distill", "--student", "scratch-small", "--metadata", "task=colours", "--validation", "0.4", "--seed", "5"),
        *("--epochs", "2", "--suffix", "second", "--since", "2000-01-01", "--wait", "--json"),
    )
    other = str(json.loads(distilled.stdout)["id"])
    trained: set[str] = set()
    for one in (job, other):
        file = sdk.fine_tuning.jobs.retrieve(one).training_file
        kept = server.data / "blobs" / "files" / file
        if kept.exists():
            trained |= {json.loads(line)["messages"][1]["content"] for line in kept.read_text().splitlines()}
    made = json.loads(
        server.cli("evals", "run", "--job", job, "--job", other, "--holdout", "--no-base", "--json").stdout
    )
    first, second = made["sides"]
    assert (first["training"]["trained_on"], second["training"]["trained_on"]) == (0, 0)
    assert first["items"] == second["items"] == CHATS - first["training"]["left_out"]
    assert first["training"]["left_out"] == second["training"]["left_out"] >= len(trained)
    assert second["name"].startswith("second:")
    (pair,) = made["pairs"]
    assert pair["items"] == first["items"]
    assert pair["only_this_agrees"] - pair["only_beside_agrees"] == (
        second["agreement"]["count"] - first["agreement"]["count"]
    )
