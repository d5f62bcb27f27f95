"""`stillroom distill run`: Azure's five job files as they are, and the short form on a running server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from stillroom.config import Settings, Student, Teacher, load
from stillroom.distillation import DistillationFailed, InvalidJobFile, Progress, Training, distill
from stillroom.teachers.scripted import ScriptedTeacher, echo, in_form
from tests.support import Server

AZURE_FILES = Path(__file__).with_name("azureml_distillation")
TEACHER = "Meta-Llama-3-1-405B-Instruct-vkn"  # as the files name them
STUDENT = "Meta-Llama-3.1-8B-Instruct"
ROWS = 65
Messages = list[dict[str, str]]


class Enough(Exception):
    """The job exists: what follows is tested once."""


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def messages(task: str, number: int) -> Messages:
    if task == "conversation":
        return [
            said("system", "Chat."),
            said("user", f"hello {number}"),
            said("assistant", "an old answer"),
            said("user", f"and {number}?"),
            said("assistant", "another old answer"),
        ]
    return [said("system", f"Own prompt of {task}."), said("user", f"{task} {number}")]


def expected(task: str, number: int) -> Messages:
    """The student's row: its own prompt, and the teacher's answers, which repeat what the user said."""
    if task == "conversation":
        system, one, _, two, _ = messages(task, number)
        return [system, one, said("assistant", one["content"]), two, said("assistant", two["content"])]
    return [*messages(task, number), said("assistant", f"{task} {number}")]


@pytest.fixture(scope="module")
def azure_teacher() -> Iterator[ScriptedTeacher]:
    """Repeats the last user message, in the form that the prompt asks for."""
    with ScriptedTeacher(in_form(echo), api_key="EXAMPLE_API_KEY") as teacher:
        yield teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, azure_teacher: ScriptedTeacher) -> Path:
    """The five files as Azure has them, the rows they name, and a configuration that maps their two names."""
    root = tmp_path_factory.mktemp("azureml")
    for file in AZURE_FILES.glob("*.yaml"):
        shutil.copy(file, root)
        task = file.stem.removeprefix("distillation_")
        for part, count in (("train", 40 if task == "math" else ROWS), ("validation", 3)):
            rows = [json.dumps({"messages": messages(task, number)}) + "\n" for number in range(count)]
            (root / f"{part}_{task}.jsonl").write_text("".join(rows))
    (root / "stillroom.toml").write_text(
        f"""
data = "{root}/data"
[training]
threads = 1
[students."{STUDENT}"]
path = "scratch-small"
price = {{ training = 1.0 }}
[teachers."{TEACHER}"]
base_url = "{azure_teacher.url}/chat/completions"
api_key = "EXAMPLE_API_KEY"
price = {{ input = 5.0, output = 15.0 }}
"""
    )
    return root


def settings_of(folder: Path) -> Settings:
    return load(str(folder / "stillroom.toml"))


def until_the_job(file: Path | dict[str, Any], settings: Settings, **more: Any) -> list[Progress]:
    """Runs it until there is a job; gives how the labels went."""
    seen: list[Progress] = []

    def watch(event: object) -> None:
        if isinstance(event, Progress):
            seen.append(event)
        elif not isinstance(event, str):
            raise Enough

    with pytest.raises(Enough):
        distill(file, settings=settings, watch=watch, **more)
    return seen


def rows_of(path: Path) -> list[Messages]:
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("task", ["nli", "nlu_qa", "conversation", "summarization"])
def test_azures_file_runs_as_it_is_and_the_student_gets_the_answers_alone(
    task: str, folder: Path, azure_teacher: ScriptedTeacher
) -> None:
    before = azure_teacher.calls
    progress = until_the_job(folder / f"distillation_{task}.yaml", settings_of(folder))
    turns = 2 if task == "conversation" else 1
    assert azure_teacher.calls - before == turns * (ROWS + 3)
    assert (progress[-1].done, progress[-1].failed, progress[-1].total) == (ROWS + 3, 0, ROWS + 3)
    (journal,) = (folder / "data" / "distillations").glob(f"Distillation-{task.replace('_', '-')}-llama")
    assert rows_of(journal / "training.jsonl") == [expected(task, number) for number in range(ROWS)]
    assert rows_of(journal / "validation.jsonl") == [expected(task, number) for number in range(3)]
    asked = azure_teacher.requests[-1]["body"]
    own_prompt = messages(task, 0)[0]["content"]
    assert (asked["messages"][0]["content"] == own_prompt) == (task == "conversation")
    assert asked["max_tokens"] == (100 if task == "conversation" else 1024)


def test_a_teacher_that_is_not_configured_is_asked_where_the_file_says_with_the_files_key(
    folder: Path, azure_teacher: ScriptedTeacher, tmp_path: Path
) -> None:
    for file in folder.glob("*_nli.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "distillation_nli.yaml"
    there = f"https://{TEACHER}.westus3.models.ai.azure.com/chat/completions"
    path.write_text(path.read_text().replace(there, f"{azure_teacher.url}/chat/completions"))
    before = azure_teacher.calls
    until_the_job(path, Settings(data=str(tmp_path / "data"), students={STUDENT: Student(path="")}))
    assert azure_teacher.calls - before == ROWS + 3
    assert azure_teacher.requests[-1]["headers"]["authorization"] == "Bearer EXAMPLE_API_KEY"


def test_the_command_makes_a_model_and_says_so_and_does_nothing_when_it_is_repeated(
    folder: Path, azure_teacher: ScriptedTeacher
) -> None:
    run = command(folder, "distillation_math.yaml", "--json")
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["model"].startswith(f"ft:{STUDENT}:stillroom:llama-math-distilled:")
    assert (Path(outcome["model_folder"]) / "stillroom.json").is_file()
    assert outcome["training"] == {"rows": 40, "failed": 0, "success_ratio": 1.0, "used": 40}
    tokens = (outcome["prompt_tokens"], outcome["completion_tokens"])
    assert outcome["cost_usd"] == pytest.approx((5 * tokens[0] + 15 * tokens[1]) / 1e6)
    assert outcome["training_cost_usd"] == pytest.approx(outcome["trained_tokens"] / 1e6)
    assert outcome["report"]["kept"] == 40
    assert "`resources.instance_type` has no effect" in run.stderr
    # A row that failed, and is asked again, is trained on too, even if that is interrupted before the job.
    labels = folder / "data" / "distillations" / "Distillation-math-llama" / "labels.jsonl"
    with labels.open("a") as file:
        file.write(json.dumps({"row": "training-1", "failed": "status 500"}) + "\n")
    for _ in range(2):
        until_the_job(folder / "distillation_math.yaml", settings_of(folder), retry_failed=True)
    assert distill(folder / "distillation_math.yaml", settings=settings_of(folder)).model == outcome["model"]
    calls = azure_teacher.calls
    again = command(folder, "distillation_math.yaml")
    assert "nothing left to do" in again.stderr
    assert f"model: {outcome['model']}" in again.stdout
    assert "stillroom serve --data" in again.stdout
    assert azure_teacher.calls == calls
    # What only the training is asked for does not cost a label.
    changed = (folder / "distillation_math.yaml").read_text().replace('n_epochs: "5"', 'n_epochs: "1"')
    (folder / "distillation_math.yaml").write_text(changed)
    assert until_the_job(folder / "distillation_math.yaml", settings_of(folder)) == []
    assert azure_teacher.calls == calls


def test_stored_completions_are_labelled_anew_and_the_server_on_the_data_folder_trains(
    server: Server, client: OpenAI, teacher: ScriptedTeacher, label: dict[str, str]
) -> None:
    for number in range(12):
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": f"thing {number}"}], store=True, metadata=label
        )
    name = f"stored-{label['test'][:8]}"
    spec = {
        "name": name,
        "teacher": "gpt-4o",
        "student": "scratch-small",
        "source": {"stored_completions": {"metadata": label}, "system": "Repeat."},
        "validation_fraction": 0.1,
    }
    found: list[FineTuningJob] = []

    def watch(event: object) -> None:
        # What a job comes to is tested elsewhere: this one is stopped once the server has it.
        if isinstance(event, Training) and event.status == "running" and not found:
            jobs = client.fine_tuning.jobs.list(metadata={"distillation": name})
            found.append(client.fine_tuning.jobs.cancel(jobs.data[0].id))

    settings = Settings(data=str(server.data), teachers={"gpt-4o": Teacher(base_url=teacher.url)})
    with pytest.raises(DistillationFailed, match="did not succeed: it was cancelled"):
        distill(spec, settings=settings, watch=watch)
    rows = [json.loads(line) for line in client.files.content(found[0].training_file).text.splitlines()]
    assert len(rows) == 11
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert rows[0]["messages"][1]["content"] == rows[0]["messages"][2]["content"]
    journal = json.loads((server.data / "distillations" / name / "run.json").read_text())
    assert journal["worker"] is None, "it was not trained in this process"


def test_rows_that_cannot_be_asked_are_told_with_their_lines_before_anything_is_paid(
    folder: Path, azure_teacher: ScriptedTeacher, tmp_path: Path
) -> None:
    for file in folder.glob("*nli*"):
        shutil.copy(file, tmp_path)
    rows = [{"messages": messages("nli", number)} for number in range(64)]
    rows[3] = {"messages": rows[3]["messages"][1:]}
    rows[5] = {"messages": [said("system", "s"), said("robot", "u")]}
    lines = [json.dumps(row) for row in rows]
    lines[7] = "{"
    (tmp_path / "train_nli.jsonl").write_text("\n".join(lines))
    calls = azure_teacher.calls
    with pytest.raises(InvalidJobFile) as caught:
        distill(tmp_path / "distillation_nli.yaml", settings=settings_of(folder), data=None)
    for words in (
        "line 4, that cannot be asked: its first message is from the user",
        "line 6, that cannot be asked: messages[1] is from 'robot'",
        "line 8, that cannot be asked: it is not valid JSON",
        "has 64 rows; at least 65 are needed",
    ):
        assert words in caught.value.message
    assert azure_teacher.calls == calls


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stillroom", "distill", "run", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
