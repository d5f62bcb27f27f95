"""How well the built-in student triages tickets it has not seen, by how many it was trained on.

For each number of rows a job's own training run (`stillroom.student.training.run`, hyperparameters "auto") in a
process of its own, on the tickets and answers of the demo's scripted teacher; then its last checkpoint is
served by the engine and asked about 200 held-out tickets, at temperature 0. An answer counts when it is the
teacher's, character for character. Seconds are those of the whole training process, its start and its
tokenizer included; without the 200 questions.

Prints the table, and with `--plot FILE` draws it (matplotlib). `--batch` and `--epochs` try other
hyperparameters than "auto".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillroom.teachers import triage

ROWS = (40, 80, 160, 320, 640, 1000, 2000)
FAST_ROWS = (40, 160, 640)
HELD_OUT = 200
HELD_OUT_SEED = 1_000_003
MOST_ANSWER_TOKENS = 100
GOAL = 0.95


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training run."""

    rows: int
    threads: int
    seed: int
    hyperparameters: Mapping[str, int | str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What it took and reached."""

    agreement: float
    seconds: float
    cpu_seconds: float
    steps: int
    last_loss: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int)
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--batch", default="auto")
    parser.add_argument("--epochs", default="auto")
    parser.add_argument("--fast", action="store_true", help="three numbers of rows, one thread")
    parser.add_argument("--plot", type=Path)
    parser.add_argument(
        "--json", type=Path, help="append every figure to this file; what it holds is not measured again"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _child(Task(**json.loads(asked.child[0])), Path(asked.child[1]))
        return
    wanted = {"batch_size": _number(asked.batch), "n_epochs": _number(asked.epochs)}
    found: dict[tuple[int, int], list[Outcome]] = {}
    for rows in asked.rows or (FAST_ROWS if asked.fast else ROWS):
        for threads in [1] if asked.fast else asked.threads:
            for seed in asked.seeds:
                task = Task(rows=rows, threads=threads, seed=seed, hyperparameters=wanted)
                found.setdefault((rows, threads), []).append(_run(task, asked.json))
    _print(found)
    if asked.plot:
        _draw(found, asked.plot)


def _number(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _run(task: Task, log: Path | None) -> Outcome:
    for line in log.read_text().splitlines() if log and log.exists() else []:
        entry = json.loads(line)
        if entry["task"] == asdict(task):
            return Outcome(**entry["outcome"])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", json.dumps(asdict(task)), folder]
        environment = os.environ | {"OMP_NUM_THREADS": str(task.threads), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        outcome = Outcome(**json.loads((Path(folder) / "outcome.json").read_text()))
    print(f"{asdict(task)}: {asdict(outcome)}", file=sys.stderr, flush=True)
    if log:
        with log.open("a") as file:
            file.write(json.dumps({"task": asdict(task), "outcome": asdict(outcome)}) + "\n")
    return outcome


# --- in the process of its own -----------------------------------------------------------------------------


def _child(task: Task, folder: Path) -> None:
    from stillroom.student.training import run

    _lay_out(task, folder)
    events: list[Mapping[str, Any]] = []
    run.run(folder, events.append, threading.Event())
    # From the start of the process, as who waits for the job does.
    seconds, cpu_seconds = time.time() - _began(), time.process_time()
    steps = [event for event in events if event["type"] == "step"]
    done = next(event for event in events if event["type"] == "done")
    outcome = Outcome(
        agreement=asyncio.run(_agreement(Path(done["path"]))),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        steps=len(steps),
        last_loss=statistics.mean(event["train_loss"] for event in steps[-20:]),
    )
    (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))


def _lay_out(task: Task, folder: Path) -> None:
    """The folder that a worker makes for a job."""
    rows = folder / "training.jsonl"
    with rows.open("w") as file:
        for ticket in triage.tickets(task.rows, task.seed, triage.Split.TRAINING):
            answer = {"role": "assistant", "content": triage.triage(ticket)}
            file.write(json.dumps({"messages": [*triage.messages(ticket), answer]}) + "\n")
    spec = {
        "base": {"name": "scratch-small", "path": None, "revision": None},
        "training_file": str(rows),
        "validation_file": None,
        "hyperparameters": task.hyperparameters,
        "seed": task.seed,
        "threads": task.threads,
        "checkpoint_seconds": 60,
        "model_name": "triage",
    }
    (folder / "spec.json").write_text(json.dumps(spec))


def _began() -> float:
    """When this process was started, in seconds since 1970."""
    since_boot = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - float(Path("/proc/uptime").read_text().split()[0]) + since_boot


async def _agreement(checkpoint: Path) -> float:
    from stillroom.student.serving.engine import Engine

    engine = Engine()
    await engine.attach("triage", checkpoint)
    tickets = triage.tickets(HELD_OUT, HELD_OUT_SEED, triage.Split.HELD_OUT)
    answers = await asyncio.gather(*(_answer(engine, ticket) for ticket in tickets))
    engine.close()
    return sum(answer == triage.triage(ticket) for ticket, answer in zip(tickets, answers, strict=True)) / HELD_OUT


async def _answer(engine: Any, ticket: str) -> str:
    from stillroom.student.serving.engine import GenerateRequest
    from stillroom.student.serving.sampling import Sampling

    prompt_ids = engine.student("triage").template.encode_prompt(triage.messages(ticket))
    request = GenerateRequest(
        model="triage", prompt_ids=prompt_ids, max_tokens=MOST_ANSWER_TOKENS, sampling=Sampling(temperature=0.0)
    )
    return "".join([event.text async for event in engine.generate(request)])


# --- table and plot ----------------------------------------------------------------------------------------


def _print(found: Mapping[tuple[int, int], Sequence[Outcome]]) -> None:
    print(
        f"\n| rows | threads | agreement on {HELD_OUT} held-out tickets | steps | seconds | CPU seconds | last loss |"
    )
    print("|---|---|---|---|---|---|---|")
    for (rows, threads), outcomes in found.items():
        cells = [
            f"{rows:,}",
            str(threads),
            " / ".join(f"{each.agreement:.1%}" for each in outcomes),
            f"{outcomes[0].steps:,}",
            f"{statistics.median(each.seconds for each in outcomes):.1f}",
            f"{statistics.median(each.cpu_seconds for each in outcomes):.1f}",
            f"{statistics.median(each.last_loss for each in outcomes):.4f}",
        ]
        print(f"| {' | '.join(cells)} |")


def _draw(found: Mapping[tuple[int, int], Sequence[Outcome]], path: Path) -> None:
    """Agreement by rows, and below it what the training took."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

    figure, (upper, lower) = pyplot.subplots(
        2, sharex=True, figsize=(7, 5.6), height_ratios=(3, 2), layout="constrained"
    )
    rows = sorted({rows for rows, _ in found})
    best = [
        statistics.median(each.agreement for (n, _), all_of in found.items() if n == r for each in all_of) for r in rows
    ]
    upper.plot(rows, best, "o-", color="#1f5fa8", clip_on=False, zorder=3)
    for at, value in zip(rows, best, strict=True):
        upper.annotate(f"{value:.1%}", (at, value), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    upper.axhline(GOAL, color="#999999", linestyle=":", linewidth=1)
    upper.set(xscale="log", ylim=(0, 1.09), ylabel=f"exact answers to {HELD_OUT} unseen tickets")
    upper.yaxis.set_major_formatter(PercentFormatter(1.0))
    for threads, colour in zip(sorted({threads for _, threads in found}), ("#1f5fa8", "#c46a1b"), strict=False):
        seconds = [
            statistics.median(each.cpu_seconds for each in found[r, threads]) for r in rows if (r, threads) in found
        ]
        named = f"{threads} {'thread' if threads == 1 else 'threads'}"
        lower.plot([r for r in rows if (r, threads) in found], seconds, "o-", color=colour, label=named)
    lower.set(xlabel="tickets trained on", ylabel="CPU seconds of training", ylim=(0, None))
    lower.legend(frameon=False)
    lower.xaxis.set_major_locator(FixedLocator(rows))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for axes in (upper, lower):
        axes.grid(axis="y", color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
