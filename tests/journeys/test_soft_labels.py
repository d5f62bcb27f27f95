"""Soft labels: asked of the teacher, kept beside the answer, and seen by nobody who did not ask for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import msgspec
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from typer.testing import CliRunner

from stillroom import ids, logprobs
from stillroom.cli.commands import app
from stillroom.logprobs import Position
from stillroom.teachers.scripted import (
    Fault,
    RefuseLogprobs,
    RefuseStreamOptions,
    Reply,
    ScriptedTeacher,
    Status,
    StreamError,
    echo,
)
from stillroom.teachers.scripted.objects import error_body, event_bytes
from tests.journeys.conftest import await_end
from tests.support import Server, wait_for

TEXT = "イルカは 脳の半分ずつ 交代で眠ります。 Half a brain 🐬 at a time!"
CALLS = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}]
TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


class Sea:
    """A server that asks its teacher `deep` for 20 alternatives, `shallow` for none, and `deaf`, who gives none, for 5."""

    def __init__(self, server: Server, teacher: ScriptedTeacher, client: OpenAI) -> None:
        self.server, self.teacher, self.client = server, teacher, client
        self._seen = 0

    def ask(self, text: str = TEXT, *, model: str = "deep", store: bool = True, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": text}]
        return self.client.chat.completions.create(model=model, messages=messages, store=store, **more)

    def asked(self) -> list[int | None]:
        """How many alternatives the teacher was asked for, in each call since this was looked at last; None: no logprobs."""
        bodies = [request["body"] for request in self.teacher.requests[self._seen :]]
        self._seen += len(bodies)
        return [body.get("top_logprobs", 0) if body.get("logprobs") else None for body in bodies]

    def kept(self, completion: str) -> list[Position] | None:
        rows = self.rows("SELECT body FROM soft_labels WHERE completion = ?", ids.completion_number(completion))
        return logprobs.unpack(rows[0][0]) if rows else None

    def rows(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.server.data / "stillroom.db")) as connection:
            return connection.execute(statement, values).fetchall()

    def get(self, path: str) -> Any:
        """A call of stillroom's own API, as is `post`."""
        return self.client.get(f"/stillroom/{path}", cast_to=object)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(f"/stillroom/{path}", body=body, cast_to=object)


@pytest.fixture(scope="module")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sea]:
    def answer(body: dict[str, Any]) -> str | dict[str, Any]:
        return {"content": None, "tool_calls": CALLS} if body.get("tools") else echo(body)

    with ScriptedTeacher(answer) as teacher, ScriptedTeacher(echo, logprobs=False) as deaf:
        teachers = {
            "deep": {"base_url": teacher.url, "top_logprobs": 20},
            "shallow": {"base_url": teacher.url},
            "deaf": {"base_url": deaf.url, "top_logprobs": 5, "price": {"input": 1000}},
            "away": {"base_url": "http://127.0.0.1:9/v1"},
            **{f"picky-{n}": {"base_url": teacher.url, "top_logprobs": 20} for n in range(7)},
        }
        data = tmp_path_factory.mktemp("sea") / "data"
        with (
            Server(data, teachers=teachers, gateway_attempts=1) as server,
            OpenAI(
                base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, _strict_response_validation=True
            ) as client,
        ):
            yield Sea(server, teacher, client)


@pytest.fixture(autouse=True)
def from_here_on(sea: Sea) -> Iterator[None]:
    sea.asked()
    yield
    sea.teacher.script_lasting(None)


def spelled(positions: list[Position] | None) -> str:
    return b"".join(position.token for position in positions or ()).decode()


def streamed(sea: Sea, **more: Any) -> tuple[str, list[Any]]:
    """The id of a streamed answer, and what its chunks said of logprobs."""
    chunks = list(sea.ask(stream=True, **more))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices[0].index == 0) == TEXT
    told = [chunk.choices[0].logprobs for chunk in chunks]
    return chunks[0].id, [each for each in told if each is not None]


# --- kept, and not seen -----------------------------------------------------------------------------------


def test_a_caller_who_did_not_ask_sees_no_logprobs_and_they_are_kept(sea: Sea) -> None:
    answer = sea.ask()
    assert sea.asked() == [20]
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].logprobs is None
    positions = sea.kept(answer.id)
    assert spelled(positions) == TEXT
    assert {len(position.top) for position in positions or ()} == {20}
    assert sea.client.chat.completions.retrieve(answer.id).choices[0].logprobs is None
    shown = sea.get(f"completions/{answer.id}")
    assert "logprobs" not in shown["request"]
    assert shown["soft_labels"].keys() == {"tokens", "alternatives", "bytes"}
    assert (shown["soft_labels"]["tokens"], shown["soft_labels"]["alternatives"]) == (len(positions or ()), 20)


def test_a_stream_shows_none_either_and_they_are_kept(sea: Sea) -> None:
    completion, told = streamed(sea)
    assert sea.asked() == [20]
    assert told == []
    assert spelled(sea.kept(completion)) == TEXT
    assert sea.client.chat.completions.retrieve(completion).choices[0].logprobs is None


def test_an_answers_bytes_are_otherwise_the_teachers(sea: Sea) -> None:
    def bare(data: bytes) -> bytes:
        found = msgspec.json.decode(data)
        assert msgspec.json.encode(found) == data  # the teacher's spelling
        return msgspec.json.encode({**found, "id": "", "created": 0})

    hidden = bare(sea.client.chat.completions.with_raw_response.create(**_request("deep")).content)
    plain = bare(sea.client.chat.completions.with_raw_response.create(**_request("shallow")).content)
    assert hidden == plain
    with sea.client.chat.completions.with_streaming_response.create(**_request("deep"), stream=True) as deep:
        events = deep.read().split(b"\n\n")
    with sea.client.chat.completions.with_streaming_response.create(**_request("shallow"), stream=True) as shallow:
        others = shallow.read().split(b"\n\n")
    assert [bare(event[6:]) for event in events[:-2]] == [bare(event[6:]) for event in others[:-2]]
    assert events[-2:] == others[-2:] == [b"data: [DONE]", b""]


def _request(model: str) -> Any:
    return {"model": model, "messages": [{"role": "user", "content": TEXT}], "store": True}


def test_without_the_option_nothing_is_asked_for_and_nothing_kept(sea: Sea) -> None:
    for more in ({"model": "shallow"}, {"extra_body": {"stillroom": {"top_logprobs": 0}}}):
        answer, (completion, told) = sea.ask(**more), streamed(sea, **more)
        assert sea.asked() == [None, None]
        assert sea.kept(answer.id) is sea.kept(completion) is None
        assert told == []
        assert sea.get(f"completions/{answer.id}")["soft_labels"] is None
    sea.ask(store=False)
    assert sea.asked() == [None]


def test_a_single_call_may_ask_for_them_and_the_teacher_never_hears_of_the_field(sea: Sea) -> None:
    answer = sea.ask(model="shallow", extra_body={"stillroom": {"top_logprobs": 3}})
    assert "stillroom" not in sea.teacher.requests[-1]["body"]
    assert sea.asked() == [3]
    assert {len(position.top) for position in sea.kept(answer.id) or ()} == {3}


@pytest.mark.parametrize(
    ("ours", "param"),
    [({"top_logprobs": 21}, "stillroom.top_logprobs"), ({"other": 1}, "stillroom"), (["top_logprobs"], "stillroom")],
)
def test_a_field_that_cannot_be_meant_is_refused(sea: Sea, ours: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        sea.ask(extra_body={"stillroom": ours})
    assert refused.value.param == param
    assert sea.asked() == []


def test_who_asks_for_logprobs_sees_as_many_as_he_asked_for(sea: Sea) -> None:
    answer = sea.ask(logprobs=True, top_logprobs=2)
    completion, told = streamed(sea, logprobs=True, top_logprobs=2)
    assert sea.asked() == [20, 20]
    shown = answer.choices[0].logprobs.content
    for content in (shown, [entry for each in told for entry in each.content]):
        assert {len(entry.top_logprobs) for entry in content} == {2}
        assert b"".join(bytes(entry.bytes) for entry in content).decode() == TEXT
    for made in (answer.id, completion):
        assert {len(position.top) for position in sea.kept(made) or ()} == {20}
        stored: Any = sea.client.chat.completions.retrieve(made)
        assert stored.choices[0].logprobs.content == shown
    more = sea.ask(model="shallow", logprobs=True, top_logprobs=20, extra_body={"stillroom": {"top_logprobs": 1}})
    assert {len(entry.top_logprobs) for entry in more.choices[0].logprobs.content} == {20}


def test_of_several_choices_the_first_ones_are_kept_and_none_is_seen(sea: Sea) -> None:
    answer = sea.ask(n=3)
    chunks = list(sea.ask(n=2, stream=True))
    assert [choice.logprobs for choice in answer.choices] == [None] * 3
    assert {chunk.choices[0].logprobs for chunk in chunks} == {None}
    assert spelled(sea.kept(answer.id)) == spelled(sea.kept(chunks[0].id)) == TEXT


def test_calls_and_teachers_that_give_none_leave_nothing_to_keep(sea: Sea) -> None:
    called, deaf = sea.ask(tools=TOOLS), sea.ask(model="deaf")
    assert called.choices[0].message.tool_calls
    assert deaf.choices[0].message.content == TEXT
    assert sea.kept(called.id) is sea.kept(deaf.id) is None


def test_an_answer_that_broke_off_keeps_none(sea: Sea, label: dict[str, str]) -> None:
    sea.teacher.script(StreamError(after_chunks=3))
    with pytest.raises(Exception, match="told to fail"):
        list(sea.ask(stream=True, metadata=label))
    (found,) = wait_for(lambda: sea.get(f"completions?metadata[test]={label['test']}")["data"])
    whole = sea.get(f"completions/{found['id']}")
    assert (whole["status"], whole["soft_labels"]) == ("incomplete", None)
    assert whole["response"]["choices"][0]["logprobs"] is None


# --- teachers that refuse ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "tries", "kept"),
    [(RefuseLogprobs(), [20, 5, None], None), (RefuseLogprobs(most=5), [20, 5], 5)],
)
def test_a_teacher_that_refuses_answers_all_the_same_and_is_remembered(
    sea: Sea, fault: Fault, tries: list[int | None], kept: int | None, stream: bool
) -> None:
    model = f"picky-{2 * (kept is None) + stream}"
    before = sea.rows("SELECT count(*) FROM ledger")[0][0]
    sea.teacher.script_lasting(fault)
    for expected in (tries, tries[-1:]):
        answer = streamed(sea, model=model)[0] if stream else sea.ask(model=model).id
        assert sea.asked() == expected
        assert [{len(position.top) for position in sea.kept(answer) or ()}] == [{kept} if kept else set()]
    assert sea.rows("SELECT count(*) FROM ledger")[0][0] == before + 2  # what was refused costs nothing


def test_a_refusal_that_does_not_say_why_is_tried_without(sea: Sea) -> None:
    sea.teacher.script(Status(code=422))
    assert sea.ask(model="picky-4").choices[0].message.content == TEXT
    assert sea.asked() == [20, None]
    sea.ask(model="picky-4")
    assert sea.asked() == [20]  # one odd request says nothing of the next
    sea.teacher.script(Status(code=400), Status(code=400))
    with pytest.raises(BadRequestError, match="told to fail"):
        sea.ask(model="picky-5")
    sea.ask(model="picky-5")
    assert sea.asked() == [20, None, 20]  # it was not the logprobs


class RefuseInTheStream:
    """Status 200, and then an error event for a request with logprobs."""

    async def send(self, reply: Reply) -> Any:
        error = error_body(400, "logprobs cannot be had here")
        return await (reply.send([event_bytes(error)]) if reply.question.get("logprobs") else reply.send())


def test_a_refusal_may_also_be_the_first_event_of_a_stream(sea: Sea) -> None:
    sea.teacher.script_lasting(RefuseInTheStream())
    completion, _ = streamed(sea, model="picky-6")
    assert sea.asked() == [20, None]
    assert sea.kept(completion) is None


# --- with the completion ----------------------------------------------------------------------------------


def test_they_are_deleted_with_the_completion_alone_or_with_many(sea: Sea, label: dict[str, str]) -> None:
    before = sea.rows("SELECT count(*) FROM soft_labels")
    made = [sea.ask(metadata=label).id for _ in range(3)]
    assert all(sea.kept(each) for each in made)
    sea.client.chat.completions.delete(made[0])
    assert sea.kept(made[0]) is None
    action = sea.post("completions/bulk", action="delete", filter={"metadata": label})
    wait_for(lambda: sea.get(f"bulk_actions/{action['id']}")["status"] == "succeeded")
    assert sea.rows("SELECT count(*) FROM soft_labels") == before
    assert sea.rows("SELECT count(*) FROM soft_labels WHERE completion NOT IN (SELECT number FROM completions)") == [
        (0,)
    ]


def test_a_training_file_has_them_when_it_is_asked_to(sea: Sea, label: dict[str, str]) -> None:
    for number in range(9):
        sea.ask(f"{number} {TEXT}", metadata=label)
    sea.ask("asked for by its caller", model="shallow", logprobs=True, top_logprobs=4, metadata=label)
    sea.ask("plain", model="shallow", metadata=label)
    ordinary = sea.post("selections", filter={"metadata": label})
    assert ordinary["soft_labels"] is None
    assert b"logprobs" not in sea.client.files.content(ordinary["training_file"]["id"]).read()
    made = sea.post("selections", filter={"metadata": label}, soft_labels=True)
    assert made["soft_labels"] == 10
    assert any("1 of 11 examples have no soft labels" in warning for warning in made["warnings"])
    lines = sea.client.files.content(made["training_file"]["id"]).read().splitlines()
    answers = [msgspec.json.decode(line)["messages"][-1] for line in lines]
    told = {answer["content"]: logprobs.of_message(answer["logprobs"]) for answer in answers if "logprobs" in answer}
    assert len(told) == 10
    assert all(spelled(positions) == content for content, positions in told.items())
    assert {len(position.top) for position in told["asked for by its caller"]} == {4}
    assert {len(position.top) for position in told[f"3 {TEXT}"]} == {20}
    trained_on_soft_labels(sea, made["training_file"]["id"])


def trained_on_soft_labels(sea: Sea, file: str) -> None:
    hyperparameters: Any = {"n_epochs": 1, "soft_label_weight": 0.5}
    supervised: Any = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    jobs = sea.client.fine_tuning.jobs
    job = jobs.create(model="scratch-small", training_file=file, method=supervised)
    assert await_end(sea.client, job.id).status == "succeeded"
    (share,) = [event.message for event in jobs.list_events(job.id) if event.message.startswith("Soft labels: ")]
    assert float(share.split()[2].rstrip("%")) > 50


# --- what a teacher can do --------------------------------------------------------------------------------


def probed(sea: Sea, teacher: str) -> tuple[dict[str, Any], dict[str, bool | None]]:
    found = sea.post(f"teachers/{teacher}/probe")
    return found, {check["name"]: check["can"] for check in found["checks"]}


def test_a_probe_finds_what_a_teacher_can_do_by_asking_it(sea: Sea) -> None:
    before = sea.rows("SELECT count(*), sum(cost_picousd) FROM ledger")[0]
    found, can = probed(sea, "deep")
    assert all(able for name, able in can.items() if name != "reasoning")
    assert can.keys() >= {"usage", "logprobs", "top_logprobs", "bytes", "probabilities", "stream", "stream_usage"}
    assert (found["top_logprobs"], found["calls"]) == (20, 3)
    assert "asked for all the alternatives" in found["advice"]
    assert sea.asked() == [None, 20, 20]
    deaf, cannot = probed(sea, "deaf")
    assert (deaf["top_logprobs"], cannot["logprobs"], cannot["stream_logprobs"]) == (0, False, False)
    assert "cannot give soft labels" in deaf["advice"]
    in_all = before[0] + found["calls"] + deaf["calls"]
    wait_for(lambda: sea.rows("SELECT count(*) FROM ledger")[0][0] == in_all)
    assert sea.rows("SELECT sum(cost_picousd) FROM ledger")[0][0] - before[1] == round(deaf["cost_usd"] * 10**12) > 0


def test_a_probe_says_how_many_alternatives_a_teacher_gives_at_most(sea: Sea) -> None:
    sea.teacher.script_lasting(RefuseLogprobs(most=5))
    found, can = probed(sea, "shallow")
    assert (found["top_logprobs"], can["top_logprobs"]) == (5, True)
    (told,) = [check["detail"] for check in found["checks"] if check["name"] == "top_logprobs"]
    assert "20: status 400: Invalid value for 'top_logprobs'" in told
    assert 'set top_logprobs = 5 below [teachers."shallow"]' in found["advice"]
    sea.teacher.script_lasting(RefuseLogprobs())
    found, can = probed(sea, "shallow")
    assert (found["top_logprobs"], can["logprobs"]) == (0, False)


def test_a_probe_tells_estimated_usage_from_reported(sea: Sea) -> None:
    sea.teacher.script_lasting(RefuseStreamOptions())
    _, can = probed(sea, "picky-5")
    assert (can["usage"], can["stream"], can["stream_usage"]) == (True, True, False)


def test_a_probe_sees_reasoning_and_a_teacher_that_thinks_before_it_speaks(sea: Sea) -> None:
    sea.teacher.script(Status(code=400, body={"error": {"message": "Unsupported parameter: 'max_tokens'."}}))
    _, can = probed(sea, "shallow")
    assert can["answers"]
    assert {"max_completion_tokens"} == {n for n in sea.teacher.requests[-1]["body"] if n.startswith("max_")}


def test_teachers_are_listed_and_probed_on_the_command_line(sea: Sea) -> None:
    (deep,) = [each for each in sea.get("teachers")["data"] if each["name"] == "deep"]
    assert (deep["top_logprobs"], deep["refuses_above"]) == (20, None)
    run = partial(CliRunner().invoke, app, env={"STILLROOM_DATA": str(sea.server.data)})
    # Keys of any project see this: nothing of where teachers are.
    assert "127.0.0.1" not in str(sea.get("teachers"))
    assert "deep" in run(["teachers", "list"]).stdout
    away = run(["teachers", "probe", "away"])
    assert away.exit_code == 1
    assert "cannot be reached" in away.stdout
    assert "Correct its table in the configuration" in away.stdout
    assert "3 calls were answered" in run(["teachers", "probe", "deep"]).output
    with pytest.raises(NotFoundError, match="away, deaf, deep"):
        probed(sea, "nobody")
