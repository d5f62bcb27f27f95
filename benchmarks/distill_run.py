"""What labelling takes, and that its sums are exact: many short rows, some of which go wrong.

    python benchmarks/distill_run.py            # 10,000 rows, 5 % of them faulty
    python benchmarks/distill_run.py --rows 1000

One row in twenty goes wrong: refused for good, answered in a form that was not asked for, or failing at first. The
teacher is scripted, in this process, and answers at once; what is measured is the way there and back, the metering
and the journal. Rows, success ratio and cost are compared with what follows from the rows alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

from stillroom.config import DistillationSettings, Price, Settings, Teacher
from stillroom.distillation import Progress, distill
from stillroom.teachers.scripted import Reply, ScriptedTeacher, Status, count_tokens, echo, in_form

PRICE = Price(input=2.0, output=8.0)
EVERY = 60  # of so many rows, one is refused, one is not understood, and one fails at first
REFUSED, NOT_UNDERSTOOD, AT_FIRST = 3, 23, 43


class Labelled(Exception):
    """The job is made: what training takes is measured elsewhere."""


class Faults:
    """By the row's number."""

    def __init__(self) -> None:
        self.seen: Counter[int] = Counter()

    async def send(self, reply: Reply) -> web.StreamResponse:
        number = number_of(reply.question)
        self.seen[number] += 1
        if number % EVERY == REFUSED:
            return await Status(code=400).send(reply)
        if number % EVERY == AT_FIRST and self.seen[number] == 1:
            return await Status(code=500).send(reply)
        return await reply.send()


def main() -> None:
    parser = argparse.ArgumentParser(description="What labelling takes")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ScriptedTeacher(answer, record=False) as teacher:
        faults = Faults()
        teacher.script_lasting(faults)
        wall, cpu = time.monotonic(), cpu_seconds()
        last, training = labelled(Path(folder), teacher, asked.rows, asked.at_once)
        wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
    failed = sum(number % EVERY in (REFUSED, NOT_UNDERSTOOD) for number in range(asked.rows))
    refused = sum(number % EVERY == REFUSED for number in range(asked.rows))
    at_first = sum(number % EVERY == AT_FIRST for number in range(asked.rows))
    expect("rows", last.done, asked.rows)
    expect("failed rows", last.failed, failed)
    expect("rows to train on", training, asked.rows - failed)
    expect("questions", sum(faults.seen.values()), asked.rows + at_first)
    expect("cost, pico-USD", last.cost_picousd, expected_cost(asked.rows))
    print(f"success ratio {1 - failed / asked.rows:.4f}, {asked.rows - refused:,} answers paid, each once")
    print(
        f"{wall:.1f} s, {asked.rows / wall:,.0f} rows/s; {1000 * cpu / asked.rows:.2f} CPU ms a row, the teacher's included"
    )


def labelled(folder: Path, teacher: ScriptedTeacher, rows: int, at_once: int) -> tuple[Progress, int]:
    """Labels so many rows; gives the last progress, and how many rows there are to train on."""
    lines = (json.dumps({"messages": messages(number)}) + "\n" for number in range(rows))
    (folder / "rows.jsonl").write_text("".join(lines))
    spec = {
        "name": "benchmark",
        "teacher": "t",
        "student": "scratch-small",
        "source": str(folder / "rows.jsonl"),
        "prompt_settings": {"enable_chain_of_thought": True},
        "teacher_model_settings": {"endpoint_request_settings": {"request_batch_size": at_once}},
    }
    settings = Settings(
        data=str(folder / "data"),
        teachers={"t": Teacher(base_url=teacher.url, price=PRICE)},
        distillation=DistillationSettings(retry_seconds=0.05),
    )
    seen: list[Progress] = []

    def watch(event: object) -> None:
        if isinstance(event, Progress):
            seen[:] = [event]
        elif not isinstance(event, str):
            raise Labelled

    try:
        distill(spec, settings=settings, watch=watch)
    except Labelled:
        pass
    return seen[-1], (folder / "data/distillations/benchmark/training.jsonl").read_bytes().count(b"\n")


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Repeat."}, {"role": "user", "content": f"row {number}"}]


def answer(body: dict[str, Any]) -> str:
    return "no JSON" if number_of(body) % EVERY == NOT_UNDERSTOOD else in_form(echo)(body)


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"].split()[-1])


def expected_cost(rows: int) -> int:
    """From the prompts and replies themselves: every row but the refused is answered, and paid, once."""
    from stillroom.distillation.prompts import questions
    from stillroom.distillation.rows import Row
    from stillroom.distillation.spec import Prompting, Thinking

    prompting = Prompting(
        task=None, thinking=Thinking.CHAIN_OF_THOUGHT, summary_words=80, system_prompt=None, sees_own_answers=True
    )
    cost = 0
    for number in range(rows):
        if number % EVERY == REFUSED:
            continue
        (asked,) = questions(Row(name=f"training-{number + 1}", messages=messages(number)), prompting)
        prompt = sum(count_tokens(message["content"]) for message in asked)
        reply = count_tokens(answer({"messages": list(asked)}))
        cost += prompt * 2_000_000 + reply * 8_000_000
    return cost


def expect(what: str, found: int, right: int) -> None:
    if found != right:
        raise SystemExit(f"{what}: {found:,}, but {right:,} are right")
    print(f"{what}: {found:,}, as it must be")


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
