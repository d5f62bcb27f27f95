"""The ways of labelling beside plain answers, and the kinds of sources, each by the student's rows that come of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from stillroom import logprobs
from stillroom.assembly import open_platform
from stillroom.completions import soft_labels
from stillroom.config import Settings, Student, Teacher
from stillroom.distillation import DistillationFailed, InvalidJobFile, distill, tables
from stillroom.student.hyperparameters import FROM_NOTHING
from stillroom.teachers.scripted import Answer, JsonObject, RefuseLogprobs, ScriptedTeacher, echo
from tests.journeys.test_distill_run import until_the_job
from tests.units.test_export import store

QUESTIONS = [f"question {number}" for number in range(12)]
Runner = Callable[..., list[dict[str, Any]]]


def thinking(body: JsonObject) -> JsonObject:
    """Answers with its thoughts apart; asked for a summary, with a shorter one."""
    if body["messages"][0]["content"].startswith("The user gives a question, the reasoning"):
        return {"content": "In short."}
    return {"content": f"answer to {echo(body)}", "reasoning_content": "A long chain."}


def judging(body: JsonObject) -> str:
    """Likes an answer the better the higher the number at its end."""
    return json.dumps({"steps": [], "result": int(echo(body).split("-")[-1])})


@pytest.fixture
def teachers() -> Iterator[dict[str, ScriptedTeacher]]:
    tries: dict[str, int] = {}

    def varying(body: JsonObject) -> str:
        question = echo(body)
        tries[question] = tries.get(question, 0) + 1
        return f"{question} try-{[3, 7, 5][tries[question] % 3]}"

    def rambling(body: JsonObject) -> str:
        return "short" if varying(body).endswith("7") else "long " * 50

    answers: dict[str, Answer] = {
        "rambling": rambling,
        "lengths": lambda body: json.dumps({"steps": [], "result": 9 if "long" in echo(body) else 5}),
        "brevity": lambda body: json.dumps({"steps": [], "result": 5 if "long" in echo(body) else 9}),
        "thinker": thinking,
        "varied": varying,
        "judge": judging,
        "plain": echo,
        "taught": lambda body: "no idea",
    }
    opened = {name: ScriptedTeacher(answer) for name, answer in answers.items()}
    for teacher in opened.values():
        teacher.start()
    yield opened
    for teacher in opened.values():
        teacher.close()


@pytest.fixture
def labelled(tmp_path: Path, teachers: dict[str, ScriptedTeacher]) -> Runner:
    """Runs a spec up to its job, and gives the rows of its training file."""
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps({"q": text}) + "\n" for text in QUESTIONS))
    settings = Settings(
        data=str(tmp_path / "data"),
        teachers={name: Teacher(base_url=teacher.url) for name, teacher in teachers.items()},
        students={"pupil": Student(path=""), "taught": Student(path=str(tmp_path / "weights"))},
    )

    def run(**spec: Any) -> list[dict[str, Any]]:
        source = {"jsonl": str(tmp_path / "questions.jsonl"), "columns": {"user": "q"}}
        until_the_job({"name": "run", "teacher": "plain", "student": "pupil", "source": source, **spec}, settings)
        lines = (tmp_path / "data" / "distillations" / "run" / "training.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    return run


def answers(rows: list[dict[str, Any]]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


@pytest.mark.parametrize(
    ("reasoning", "before"),
    [
        ("strip", ""),
        ("keep", "<think>\nA long chain.\n</think>\n\n"),
        ("summarise", "<think>\nIn short.\n</think>\n\n"),
    ],
)
def test_reasoning_becomes_what_was_asked_for(reasoning: str, before: str, labelled: Runner) -> None:
    rows = labelled(teacher="thinker", reasoning=reasoning)
    assert answers(rows) == [f"{before}answer to {text}" for text in QUESTIONS]


def test_of_several_answers_the_one_that_the_judge_likes_best_is_kept(
    labelled: Runner, teachers: dict[str, ScriptedTeacher]
) -> None:
    rows = labelled(teacher="varied", curation={"best_of_n": {"n": 3, "judge": "judge"}})
    assert answers(rows) == [f"{text} try-7" for text in QUESTIONS]
    assert teachers["varied"].calls == teachers["judge"].calls == 3 * len(QUESTIONS)


def test_soft_labels_are_asked_for_and_stand_in_the_rows(labelled: Runner) -> None:
    for row in labelled(hyperparameters={"soft_label_weight": 0.5}):
        answer = row["messages"][-1]
        spelled = b"".join(position.token for position in logprobs.of_message(answer["logprobs"]))
        assert spelled.decode() == answer["content"]


def test_a_teacher_that_tells_fewer_alternatives_is_asked_for_those(
    labelled: Runner, teachers: dict[str, ScriptedTeacher]
) -> None:
    teachers["plain"].script_lasting(RefuseLogprobs(most=5))
    for row in labelled(hyperparameters={"soft_label_weight": 0.5}):
        assert {len(position.top) for position in logprobs.of_message(row["messages"][-1]["logprobs"])} == {5}
    teachers["plain"].script_lasting(RefuseLogprobs())
    calls = teachers["plain"].calls
    with pytest.raises(DistillationFailed, match=r"refuses to tell `logprobs`"):
        labelled(name="without", hyperparameters={"soft_label_weight": 0.5})
    assert teachers["plain"].calls - calls <= 3 * 10, "what was under way; no row is asked for after it is known"


def test_the_teacher_of_a_conversation_sees_its_words_and_no_soft_labels(
    labelled: Runner, tmp_path: Path, teachers: dict[str, ScriptedTeacher]
) -> None:
    old = {"role": "assistant", "content": "old", "weight": 0}
    turns = [[{"role": "user", "content": f"{text} {turn}"} for turn in (1, 2)] for text in QUESTIONS]
    (tmp_path / "turns.jsonl").write_text(
        "".join(json.dumps({"messages": [one, old, two, old]}) + "\n" for one, two in turns)
    )
    source = str(tmp_path / "turns.jsonl")
    for row in labelled(task="conversation", source=source, hyperparameters={"soft_label_weight": 0.5}):
        assert all(message["logprobs"] for message in row["messages"] if message["role"] == "assistant")
    labelled(name="last", source=source)
    messages = [message for request in teachers["plain"].requests for message in request["body"]["messages"]]
    assert {name for message in messages for name in message} == {"role", "content"}


@pytest.mark.parametrize(("likes_long", "left"), [(False, 12), (True, 0)])
def test_only_the_answer_that_was_chosen_counts_as_cut_off(
    likes_long: bool, left: int, labelled: Runner, teachers: dict[str, ScriptedTeacher]
) -> None:
    limit = {"inference_parameters": {"max_tokens": 10}}
    curation = {"truncated": True, "best_of_n": {"n": 2, "judge": "lengths" if likes_long else "brevity"}}
    spec = {"teacher": "rambling", "teacher_model_settings": limit, "curation": curation}
    if left:
        assert answers(labelled(**spec)) == ["short"] * left
    else:
        with pytest.raises(DistillationFailed, match="12 truncated"):
            labelled(**spec)


def test_a_preference_pair_is_the_teachers_answer_over_the_students(labelled: Runner) -> None:
    first = labelled(method="dpo", student="taught")[0]
    assert first["input"]["messages"] == [{"role": "user", "content": "question 0"}]
    assert first["preferred_output"] == [{"role": "assistant", "content": "question 0"}]
    assert first["non_preferred_output"] == [{"role": "assistant", "content": "no idea"}]


def test_curation_leaves_out_what_it_is_asked_to(labelled: Runner, tmp_path: Path) -> None:
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps({"q": text}) + "\n" for text in QUESTIONS * 2))
    source = {"jsonl": str(tmp_path / "twice.jsonl"), "columns": {"user": "q"}}
    assert len(labelled(source=source)) == 24
    assert len(labelled(source=source, curation={"exact_duplicates": True})) == 12
    report = json.loads((tmp_path / "data" / "distillations" / "run" / "report.json").read_bytes())
    assert [(each["reason"], each["count"]) for each in report["left_out"]] == [("exact_duplicate", 12)]
    with pytest.raises(
        InvalidJobFile, match=r"`curation.exact_duplicate` is no key .* Did you mean `exact_duplicates`"
    ):
        labelled(source=source, curation={"exact_duplicate": True})


def test_rows_that_bring_their_answers_need_no_teacher(
    labelled: Runner, tmp_path: Path, teachers: dict[str, ScriptedTeacher]
) -> None:
    rows = [{"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": "a"}]} for t in QUESTIONS]
    (tmp_path / "answered.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert labelled(teacher=None, source=str(tmp_path / "answered.jsonl")) == rows
    assert teachers["plain"].calls == 0


def test_stored_answers_bring_their_soft_labels_along_when_the_student_learns_from_them(
    labelled: Runner, tmp_path: Path
) -> None:
    with closing(open_platform(Settings(data=str(tmp_path / "data")))) as platform:
        position = {"token": "yes", "logprob": -0.1, "top_logprobs": [{"token": "yes", "logprob": -0.1}]}
        packed = soft_labels.pack([json.dumps({"content": [position]}).encode()])
        assert packed is not None
        for number in [store(platform, text) for text in QUESTIONS]:
            platform.writer.write(lambda connection, number=number: soft_labels.add(connection, number, packed))  # type: ignore[misc]
    stored: dict[str, Any] = {"stored_completions": {}}
    assert not any("logprobs" in row["messages"][-1] for row in labelled(teacher=None, source=stored))
    for row in labelled(teacher=None, source=stored, hyperparameters={"soft_label_weight": 0.5}):
        assert [each.token for each in logprobs.of_message(row["messages"][-1]["logprobs"])] == [b"yes"]


def test_tables_are_read_as_they_lie_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"ask": QUESTIONS, "more": list(range(12))})
    snapshot = tmp_path / "snapshot" / "data"
    snapshot.mkdir(parents=True)
    pq.write_table(table.slice(0, 11), snapshot / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(11), snapshot / "validation-00000-of-00001.parquet")
    saved = tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    (saved.parent / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (saved / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    with pa.ipc.new_stream(saved / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)

    def read(source: str, *arguments: str) -> list[str]:
        assert tables.main([str(tmp_path / source), str(tmp_path / "rows"), *arguments]) == 0
        return [json.loads(line)["ask"] for line in (tmp_path / "rows").read_bytes().splitlines()]

    assert read("snapshot") == QUESTIONS[:11]
    assert read("snapshot", "--validation") == QUESTIONS[11:]
    assert read("saved", "--limit", "5") == QUESTIONS[:5]
    assert tables.main([str(tmp_path / "snapshot"), str(tmp_path / "rows"), "--split", "test"]) == tables.REFUSED
    assert "There is no split 'test'; there are: train, validation." in capsys.readouterr().err


def test_a_data_set_names_no_files_outside_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "../secret.jsonl"}]}')
    assert tables.main([str(tmp_path / "saved"), str(tmp_path / "rows")]) == tables.REFUSED
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": [".."]}')
    assert tables.main([str(tmp_path / "saved"), str(tmp_path / "rows")]) == tables.REFUSED
    assert capsys.readouterr().err.count("which is elsewhere") == 2


def test_a_tables_columns_become_messages(labelled: Runner, tmp_path: Path) -> None:
    pq.write_table(pa.table({"ask": QUESTIONS}), tmp_path / "one.parquet")
    (tmp_path / "more.jsonl").write_text('{"q": "more"}\n')
    rows = labelled(
        validation_source={"jsonl": str(tmp_path / "more.jsonl"), "columns": {"user": "q"}},
        source={"parquet": str(tmp_path / "one.parquet"), "columns": {"user": "ask"}, "system": "Be brief."},
    )
    assert answers(rows) == QUESTIONS
    assert rows[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    report = (tmp_path / "data" / "distillations" / "run" / "report.md").read_text()
    assert "12 to train on, 1 to validate with" in report
    with pytest.raises(InvalidJobFile, match=r"line 1, .* it has no 'question'; there are q"):
        labelled(source={"jsonl": str(tmp_path / "questions.jsonl"), "columns": {"user": "question"}})


def test_rows_of_which_nothing_can_be_asked_are_told_by_what_is_wrong(labelled: Runner, tmp_path: Path) -> None:
    empty = {"messages": [{"role": "user", "content": ""}]}
    blank = [{"messages": [{"role": "user", "content": said}]} for said in (" \n", [], [{"type": "text", "text": " "}])]
    rows = [empty, *blank, {"messages": []}, {"messages": [{"role": "user"}]}]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidJobFile) as caught:
        labelled(source=str(tmp_path / "odd.jsonl"), validation_source={"stored_completions": {"model": "nobody"}})
    for words in (
        "has 4 rows, line 1, line 2, line 3, ..., that cannot be asked: it asks nothing: its last message is empty.",
        "line 5, that cannot be asked: its `messages` are []; expected a list",
        "line 6, that cannot be asked: messages[0] has no `content`.",
        "has 0 rows; at least 1 are needed. The filter is: model 'nobody'.",
    ):
        assert words in caught.value.message
    assert not (tmp_path / "data" / "distillations" / "run").exists()


def test_a_conversation_in_which_the_user_says_nothing_is_not_asked(labelled: Runner, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": " "}, {"role": "assistant", "content": "yes?"}]
    (tmp_path / "odd.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(InvalidJobFile, match="line 1, that cannot be asked: a message of the user is empty"):
        labelled(source=str(tmp_path / "odd.jsonl"), task="conversation")


def test_azures_learning_rate_becomes_a_multiplier_of_the_students_own(labelled: Runner, tmp_path: Path) -> None:
    labelled(hyperparameters={"learning_rate": "6e-4", "num_train_epochs": "2"})
    with closing(sqlite3.connect(tmp_path / "data" / "stillroom.db")) as database:
        ((asked,),) = database.execute("SELECT hyperparameters FROM fine_tuning_jobs")
    assert json.loads(asked)["learning_rate_multiplier"] == pytest.approx(6e-4 / FROM_NOTHING.learning_rate)
    assert json.loads(asked)["n_epochs"] == 2


def test_it_runs_where_a_loop_is_running_as_in_a_notebook(labelled: Runner) -> None:
    async def cell() -> list[dict[str, Any]]:
        return labelled()

    assert answers(asyncio.run(cell())) == QUESTIONS


def test_a_teacher_that_nobody_knows_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"q": text}) + "\n" for text in QUESTIONS))
    source = {"jsonl": str(tmp_path / "rows.jsonl"), "columns": {"user": "q"}}
    spec = {"teacher": "nobody", "student": "scratch-small", "source": source}
    with pytest.raises(InvalidJobFile, match=r"`teacher` is .nobody., .* does not exist .* under \[teachers\]"):
        distill(spec, data=tmp_path / "data")
