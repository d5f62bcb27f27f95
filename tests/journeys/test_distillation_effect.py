"""What the distillation itself has done: the base beside the model that was made of it, one command from the job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openai import OpenAI

from stillroom.student.chats.examples import read_rows
from stillroom.teachers.scripted import JsonObject, ScriptedTeacher
from tests.support import Server, example_lines
from tests.units.student.conftest import save_tiny_base

ANSWER = "blue"  # to everything: what even a random base learns in seconds


def expert(request: JsonObject) -> str:
    return ANSWER


@pytest.mark.slow
def test_a_base_stands_beside_its_fine_tune_so_that_the_gain_shows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(example_lines(60))
    base = save_tiny_base(tmp_path / "base", read_rows(tmp_path / "rows.jsonl"), "qwen3")
    students = json.dumps({"tiny": {"path": str(base), "price": {"input": 0.5, "output": 1.5}}})
    with ScriptedTeacher(expert) as teacher:
        teachers = {"gpt-4o": {"base_url": teacher.url, "price": {"input": 2.5, "output": 10}}}
        with Server(tmp_path / "data", teachers=teachers, students=students) as server:
            with OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as sdk:
                for number in range(40):
                    sdk.chat.completions.create(
                        model="gpt-4o",
                        messages=[
                            {"role": "system", "content": "Answer with the colour."},
                            {"role": "user", "content": f"thing {number}"},
                        ],
                        store=True,
                        metadata={"task": "colours"},
                    )
            distilled = server.cli(
                *("distill", "--student", "tiny", "--metadata", "task=colours", "--validation", "0.25"),
                *("--epochs", "30", "--wait", "--json"),
            )
            job = json.loads(distilled.stdout)
            report = json.loads(server.cli("evals", "run", "--job", job["id"], "--holdout", "--json").stdout)
            shown = server.cli("evals", "report", report["eval_id"]).stdout
    before, after = report["sides"]
    assert (before["model"], after["model"]) == ("tiny", job["fine_tuned_model"])
    assert before["training"] == {"tuned": False, "trained_on": 0, "left_out": 30}
    assert after["training"] == {"tuned": True, "trained_on": 0, "left_out": 30}
    assert before["agreement"]["count"] == 0, "a random model does not know the answer"
    assert after["agreement"]["count"] == after["items"] == 10
    (pair,) = report["pairs"]
    assert pair["only_this_agrees"] == after["agreement"]["count"]
    assert pair["only_beside_agrees"] == 0
    assert "agree with the teacher only in" in shown
