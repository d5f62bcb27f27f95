"""What an eval run costs: CPU per item and peak memory, of the server and the run's own process.

First a run that only grades: string_check over answers that the items bring along. Then one whose
items are answered by a scripted teacher. CPU is user + system time of the server and all its
descendants from /proc, what ended ones used included; memory is their resident set, looked at every
20 ms, above the idle server's and above a run's of one item. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.faults.test_bad_input import upload
from tests.faults.wire import children, resident_bytes, send
from tests.support import Server

TICK = os.sysconf("SC_CLK_TCK")
RUNNER = b"stillroom.evals.running.run"
MEGABYTE = 1024 * 1024
TEACHER = """
import sys
from stillroom.teachers.scripted import ScriptedTeacher, echo
with ScriptedTeacher(echo, record=False) as teacher:
    print(teacher.url, flush=True)
    sys.stdin.read()
"""
SAME = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.right }}",
    "operation": "eq",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run. Memory in bytes: the most that server and run's process held at any one time."""

    seconds: float
    cpu_seconds: float
    server_bytes: int
    child_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graded", type=int, default=10_000, help="items that bring their answers along")
    parser.add_argument("--sampled", type=int, default=1_000, help="items that the teacher answers")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    command = [sys.executable, "-c", TEACHER]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as teacher,
    ):
        assert teacher.stdout is not None
        teachers = {"gpt-4o": {"base_url": teacher.stdout.readline().strip()}}
        with Server(Path(folder) / "data", teachers=teachers).start() as server:
            _measure(server, asked)
        teacher.kill()


def _measure(server: Server, asked: argparse.Namespace) -> None:
    eval_id = _eval(server)
    _run(server, eval_id, 1, sampled=True)  # what is imported and opened once
    time.sleep(1.0)
    idle = resident_bytes(server.pid)
    one = _run(server, eval_id, 1, sampled=False)
    print(f"idle server {idle / MEGABYTE:.0f} MB; a run of one item takes {one.cpu_seconds:.2f} CPU seconds")
    for sampled, count in ((False, asked.graded), (True, asked.sampled)):
        for _ in range(asked.rounds):
            cost = _run(server, eval_id, count, sampled=sampled)
            more = cost.cpu_seconds - one.cpu_seconds
            print(
                f"{count} items {'sampled' if sampled else 'graded'}: {count / cost.cpu_seconds:.0f} items/s/core, "
                f"{1000 * more / count:.2f} ms CPU per item beyond the start, {cost.seconds:.1f} s; "
                f"server +{(cost.server_bytes - idle) / MEGABYTE:.0f} MB over idle, "
                f"run's process {cost.child_bytes / MEGABYTE:.0f} MB "
                f"(+{(cost.child_bytes - one.child_bytes) / MEGABYTE:.0f} MB over one item's)"
            )


def _eval(server: Server) -> str:
    config = {"type": "custom", "item_schema": {"type": "object", "required": ["right"]}}
    made = send(server, "POST", "/v1/evals", {"data_source_config": config, "testing_criteria": [SAME]})
    assert made.status == 201, made.body
    return str(made.json["id"])


def _run(server: Server, eval_id: str, count: int, *, sampled: bool) -> Cost:
    text = "some words of an answer " * 20
    row: dict[str, Any] = {"item": {"question": text, "right": text}}
    if not sampled:
        row["sample"] = {"output_text": text}
    file = upload(server, (json.dumps(row).encode() + b"\n") * count, purpose="evals").json["id"]
    source: dict[str, Any] = {"type": "jsonl", "source": {"type": "file_id", "id": file}}
    if sampled:
        messages = {"type": "template", "template": [{"role": "user", "content": "{{ item.question }}"}]}
        source |= {"type": "completions", "model": "gpt-4o", "input_messages": messages}
    before, began = _cpu_seconds(server.pid), time.monotonic()
    made = send(server, "POST", f"/v1/evals/{eval_id}/runs", {"data_source": source})
    assert made.status == 201, made.body
    path = f"/v1/evals/{eval_id}/runs/{made.json['id']}"
    most: Counter[str] = Counter()
    looked = began
    while True:
        _look(server, most)
        if time.monotonic() - looked > 0.25:
            looked = time.monotonic()
            now = send(server, "GET", path).json
            if now["status"] not in ("queued", "in_progress"):
                break
        time.sleep(0.02)
    seconds = time.monotonic() - began
    assert now["result_counts"] == {"total": count, "passed": count, "failed": 0, "errored": 0}, now
    while children(server.pid):
        time.sleep(0.02)
    cpu = _cpu_seconds(server.pid) - before
    return Cost(seconds=seconds, cpu_seconds=cpu, server_bytes=most["server"], child_bytes=most["child"])


def _look(server: Server, most: Counter[str]) -> None:
    most["server"] = max(most["server"], resident_bytes(server.pid))
    for pid in children(server.pid):
        try:
            if RUNNER in Path(f"/proc/{pid}/cmdline").read_bytes():  # before that it is a copy of the server
                most["child"] = max(most["child"], resident_bytes(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue


def _cpu_seconds(pid: int) -> float:
    """User + system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


if __name__ == "__main__":
    main()
