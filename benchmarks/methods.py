"""Held-out agreement of every method of distillation, beside plain imitation and beside TRL's SFTTrainer.

A tiny teacher is trained once, on 2,000 support tickets answered by rules; it is a language model like any other,
with probabilities of its own. Students begin from nothing and get its answers: the same rows, the same number of
optimizer steps, the same batch, whatever the method. Agreement is exact match with the rules on 200 tickets that
neither has seen (see `stillroom.teachers.triage` for what that means), at temperature 0.

    clean        a one-line system prompt; the teacher's likeliest answers
    noisy        the same; the teacher's answers drawn at a temperature at which three in ten are wrong
    long prompt  the rules themselves as the system prompt; the teacher's likeliest answers
    reasoning    only the team is asked for, of rules that think aloud before they name it: kept or left out
    demo         1,000 tickets of the rules with the rules as the system prompt, at "auto": the demo's own task

Preference and on-policy training begin from a student that has imitated half of the rows in half of the steps, and
have the other half for themselves: what they are given in all is what imitation is given. On-policy training by the
teacher needs its tokenizer, so it has an imitation of its own to be compared with.

TRL is asked when it is installed, in an environment of its own (see `train_vs_trl.py`); it trains the same model
from the same random weights with AdamW at the built-in student's learning rate.

Prints a table for each task, with the mean over the seeds, and the difference to imitation with its 95 % interval
(bootstrap over questions, paired by question and seed). `--json FILE` keeps every outcome, and what it holds is not
measured again; `--plot FILE` draws them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stillroom.teachers import triage

TEACHER_ROWS, TEACHER_STEPS = 2000, 1000
ROWS, BATCH, STEPS = 240, 8, 300
HELD_OUT = 200
HELD_OUT_SEED = 1_000_003
TOP = 20
RESAMPLES = 2000
TEACHER = "METHODS_TEACHER"
"""The environment variable that says where the trained teacher lies."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One student."""

    task: str
    method: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Which of the held-out questions it answered right, and what it took."""

    right: list[bool]
    label_errors: float
    """The share of its training answers that are wrong by the rules."""
    prompt_tokens: float
    """A question's, on average, as the student reads it."""
    cpu_seconds: float


HALF, LIKE_TEACHER = "imitation, half of it", "imitation, teacher's tokens"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be learned, and from whom."""

    prompt: str
    methods: tuple[str, ...]
    temperature: float | None = 0.0
    """At which the trained teacher answers; None: the rules answer, for sure."""
    rows: int = ROWS
    steps: int | None = STEPS
    """None: as many as "auto" takes."""


LABELS = (
    "imitation",
    HALF,
    "soft labels",
    "preference",
    "on-policy, itself",
    "TRL",
    LIKE_TEACHER,
    "on-policy, teacher",
)
TASKS = {
    "clean": Task(prompt="Triage the ticket.", methods=LABELS),
    "noisy": Task(prompt="Triage the ticket.", methods=LABELS, temperature=1.55),
    "long prompt": Task(prompt=triage.SYSTEM_PROMPT, methods=("imitation", "prompt dropped", "soft labels", "TRL")),
    "reasoning": Task(prompt="Name the team.", methods=("imitation", "reasoning kept", "TRL"), temperature=None),
    "demo": Task(
        prompt=triage.SYSTEM_PROMPT, methods=("imitation", "prompt dropped"), temperature=None, rows=1000, steps=None
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--folder", type=Path, help="where the teacher is kept (default: made anew)")
    parser.add_argument("--json", type=Path, help="keep outcomes here; what it holds is not measured again")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _child(asked.child[0], Path(asked.child[1]), Path(asked.child[2]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        found: dict[tuple[str, str], list[Outcome]] = {}
        for trial in _trials(asked.tasks, asked.methods, asked.seeds):
            found.setdefault((trial.task, trial.method), []).append(_outcome(trial, folder, asked.json))
    _print(found)
    if asked.plot:
        _draw(found, asked.plot)


def _trials(tasks: Sequence[str], methods: Sequence[str] | None, seeds: Sequence[int]) -> Iterator[Trial]:
    for task in tasks:
        for method in TASKS[task].methods:
            if methods and method not in methods:
                continue
            if method == "TRL" and find_spec("trl") is None:
                print("TRL is not installed here; its column is left out.", file=sys.stderr)
                continue
            yield from (Trial(task=task, method=method, seed=seed) for seed in seeds)


def _outcome(trial: Trial, folder: Path, log: Path | None) -> Outcome:
    for line in log.read_text().splitlines() if log and log.exists() else []:
        entry = json.loads(line)
        if entry["trial"] == asdict(trial):
            return Outcome(**entry["outcome"])
    teacher = folder / "teacher"
    if not teacher.exists():
        _say("training the teacher")
        _run("teacher", teacher, folder / "teacher.json")
    with tempfile.TemporaryDirectory() as scratch:
        _run(json.dumps(asdict(trial)), teacher, Path(scratch) / "outcome.json")
        outcome = Outcome(**json.loads((Path(scratch) / "outcome.json").read_text()))
    _say(f"{trial.task}, {trial.method}, seed {trial.seed}: {statistics.mean(outcome.right):.1%}")
    if log:
        with log.open("a") as file:
            file.write(json.dumps({"trial": asdict(trial), "outcome": asdict(outcome)}) + "\n")
    return outcome


def _run(what: str, teacher: Path, told: Path) -> None:
    """In a process of its own, on one thread."""
    command = [sys.executable, __file__, "--child", what, str(teacher), str(told)]
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- in the process of its own: what is learned, and by which method ------------------------------------------


def _child(what: str, teacher: Path, told: Path) -> None:
    import torch

    torch.set_num_threads(1)
    if what == "teacher":
        prompts = (TASKS["clean"].prompt, TASKS["long prompt"].prompt)
        rows = [
            _row(each, ticket, triage.triage(ticket)) for each in prompts for ticket in _tickets(TEACHER_ROWS, seed=0)
        ]
        _train(rows, teacher.with_suffix(".run"), seed=0, steps=TEACHER_STEPS).rename(teacher)
        return
    told.write_text(json.dumps(asdict(_tried(Trial(**json.loads(what)), teacher, told.parent))))


def _tried(trial: Trial, teacher: Path, folder: Path) -> Outcome:
    from stillroom.student.script import open_student

    os.environ[TEACHER] = str(teacher)
    rows = _lesson(trial, teacher)
    began = time.process_time()
    train = TRAINERS[trial.method]
    student = open_student(train(rows, folder, trial.seed, TASKS[trial.task].steps))
    seconds = time.process_time() - began
    questions = _questions(trial.task)
    prompts = [_asked(row, dropped=trial.method == "prompt dropped") for row in questions]
    answers = [student.answer(messages, max_tokens=120) for messages in prompts]
    return Outcome(
        right=[_final(said) == _final(_answer_of(row)) for said, row in zip(answers, questions, strict=True)],
        label_errors=statistics.mean(_answer_of(row) != row["truth"] for row in rows),
        prompt_tokens=statistics.mean(len(student.student.template.encode_prompt(each)) for each in prompts),
        cpu_seconds=seconds,
    )


def _tickets(count: int, *, seed: int, split: triage.Split = triage.Split.TRAINING) -> list[str]:
    return triage.tickets(count, seed, split)


def _row(prompt: str, question: str, answer: str, **of_answer: Any) -> Row:
    said = {"role": "assistant", "content": answer, **of_answer}
    return {"messages": [{"role": "system", "content": prompt}, {"role": "user", "content": question}, said]}


def _questions(name: str) -> list[Row]:
    """The held-out ones, with the right answers."""
    tickets = _tickets(HELD_OUT, seed=HELD_OUT_SEED, split=triage.Split.HELD_OUT)
    if name == "reasoning":
        return [_team_row(each, reasoning=False) for each in tickets]
    return [_row(TASKS[name].prompt, each, triage.triage(each)) for each in tickets]


def _lesson(trial: Trial, teacher: Path) -> list[Row]:
    """The rows that a student of this seed is given; each knows the truth besides what the teacher said."""
    task = TASKS[trial.task]
    tickets = _tickets(task.rows, seed=trial.seed)
    if trial.task == "reasoning":
        rows = [_team_row(each, reasoning=trial.method == "reasoning kept") for each in tickets]
        return [{**row, "truth": _answer_of(row)} for row in rows]
    if task.temperature is None:
        return [{**_row(task.prompt, each, triage.triage(each)), "truth": triage.triage(each)} for each in tickets]
    says = _Teacher(teacher, temperature=task.temperature, seed=trial.seed)
    rows = []
    for ticket in tickets:
        answer, logprobs = says.answer(_row(task.prompt, ticket, "")["messages"][:2])
        rows.append({**_row(task.prompt, ticket, answer, logprobs=logprobs), "truth": triage.triage(ticket)})
    return rows


def _team_row(ticket: str, *, reasoning: bool) -> Row:
    """Which team gets the ticket; what decides it is thought aloud, or not said."""
    found = json.loads(triage.triage(ticket))
    thought = "<think>\nIt is about {category}, {priority}, and the customer is {sentiment}.\n</think>\n\n"
    return _row(TASKS["reasoning"].prompt, ticket, (thought.format(**found) if reasoning else "") + found["team"])


def _answer_of(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def _final(answer: str) -> str:
    """Without the reasoning before it."""
    return answer.rpartition("</think>")[2].strip()


def _asked(row: Row, *, dropped: bool) -> list[dict[str, Any]]:
    return list(row["messages"][1:2] if dropped else row["messages"][:2])


class _Teacher:
    """A trained model, asked for an answer and for what it weighed at each token, as an API would tell it."""

    def __init__(self, folder: Path, *, temperature: float, seed: int) -> None:
        import torch

        from stillroom.student.script import open_student

        self._student = open_student(folder).student
        self._temperature = temperature
        self._dice = torch.Generator().manual_seed(seed)

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
        import torch

        template, model = self._student.template, self._student.model.eval()
        ids, said, content = list(template.encode_prompt(messages)), [], []
        with torch.inference_mode():
            cache = None
            fresh = ids
            while len(said) < 120:
                out = model(input_ids=torch.tensor([fresh]), past_key_values=cache, use_cache=True)
                cache, logprobs_V = out.past_key_values, torch.log_softmax(out.logits[0, -1].double(), -1)
                token = self._drawn(logprobs_V)
                if token in template.end_ids:
                    break
                said.append(token)
                content.append(self._told(token, logprobs_V))
                fresh = [token]
        return template.decode(said), {"content": content}

    def _drawn(self, logprobs_V: Any) -> int:
        import torch

        if self._temperature == 0:
            return int(logprobs_V.argmax())
        shares = torch.softmax(logprobs_V / self._temperature, -1)
        return int(torch.multinomial(shares, 1, generator=self._dice))

    def _told(self, token: int, logprobs_V: Any) -> dict[str, Any]:
        top = logprobs_V.topk(TOP)
        return {
            **self._one(token, float(logprobs_V[token])),
            "top_logprobs": [
                self._one(int(each), float(logprob)) for each, logprob in zip(top.indices, top.values, strict=True)
            ],
        }

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        from stillroom.student.serving.engine import describe_token

        return {**describe_token(self._student, token), "logprob": logprob}


# --- the methods -----------------------------------------------------------------------------------------------


def _train(rows: Sequence[Row], folder: Path, *, seed: int, steps: int | None, **options: Any) -> Path:
    """The model folder of a student of about so many steps; None: as many as "auto" takes."""
    from stillroom.student.script import fine_tune

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(_plain(row, **options)) + "\n" for row in rows))
    numbers = {} if steps is None else {"batch_size": BATCH, "n_epochs": max(1, round(steps * BATCH / len(rows)))}
    return fine_tune(folder / "run", training_file=file, seed=seed, threads=1, **numbers | options)


def _plain(row: Row, **options: Any) -> Row:
    """As a training file has it: what a method does not read is left out."""
    row = {name: value for name, value in row.items() if name != "truth"}
    if "messages" in row and not options.get("soft_label_weight"):
        row["messages"] = [{k: v for k, v in message.items() if k != "logprobs"} for message in row["messages"]]
    return row


def _imitation(rows: Sequence[Row], folder: Path, seed: int, steps: int | None) -> Path:
    return _train(rows, folder, seed=seed, steps=steps)


def _half(rows: Sequence[Row], folder: Path, seed: int, steps: int) -> Path:
    """What preference and on-policy training begin with."""
    return _train(rows[: len(rows) // 2], folder, seed=seed, steps=steps // 2)


def _soft_labels(rows: Sequence[Row], folder: Path, seed: int, steps: int | None) -> Path:
    return _train(rows, folder, seed=seed, steps=steps, soft_label_weight=0.5)


def _prompt_dropped(rows: Sequence[Row], folder: Path, seed: int, steps: int | None) -> Path:
    return _train(rows, folder, seed=seed, steps=steps, system_prompt="drop")


def _preference(rows: Sequence[Row], folder: Path, seed: int, steps: int) -> Path:
    """Where the half-taught student says something else than the teacher, the teacher's answer is preferred."""
    from stillroom.student.script import open_student

    half = len(rows) // 2
    begun = _half(rows, folder / "begun", seed, steps)
    student = open_student(begun)
    said = [student.answer(row["messages"][:2], max_tokens=120) for row in rows[half:]]
    pairs = [_pair(row, other) for row, other in zip(rows[half:], said, strict=True) if other != _answer_of(row)]
    return _train(pairs, folder / "preferring", seed=seed, steps=steps // 2, base=str(begun), method="dpo")


def _pair(row: Row, other: str) -> Row:
    return {
        "input": {"messages": row["messages"][:2]},
        "preferred_output": [{"role": "assistant", "content": _answer_of(row)}],
        "non_preferred_output": [{"role": "assistant", "content": other}],
    }


def _on_policy(rows: Sequence[Row], folder: Path, seed: int, steps: int) -> Path:
    """The half-taught student is its own teacher."""
    begun = _half(rows, folder / "begun", seed, steps)
    return _train(
        rows[len(rows) // 2 :], folder / "own", seed=seed, steps=steps // 2, base=str(begun), method="on_policy"
    )


def _like_teacher(rows: Sequence[Row], folder: Path, seed: int, steps: int) -> Path:
    return _train(rows, folder, seed=seed, steps=steps, base=str(_untaught(folder / "untaught", seed)))


def _on_policy_of_teacher(rows: Sequence[Row], folder: Path, seed: int, steps: int) -> Path:
    """The teacher's own weights say what it holds likely at the half-taught student's words."""
    half = len(rows) // 2
    untaught = _untaught(folder / "untaught", seed)
    begun = _train(rows[:half], folder / "begun", seed=seed, steps=steps // 2, base=str(untaught))
    further = {"base": str(begun), "method": "on_policy", "teacher": os.environ[TEACHER]}
    return _train(rows[half:], folder / "own", seed=seed, steps=steps // 2, **further)


def _untaught(folder: Path, seed: int) -> Path:
    """Random weights behind the teacher's tokenizer, which on-policy distillation from another model needs."""
    import torch
    from transformers import AutoModelForCausalLM

    from stillroom.student.script import open_student

    teacher = Path(os.environ[TEACHER])
    torch.manual_seed(seed)
    fresh = AutoModelForCausalLM.from_config(open_student(teacher).student.model.config)
    return _with_weights(teacher, fresh.eval(), folder)


def _by_trl(rows: Sequence[Row], folder: Path, seed: int, steps: int) -> Path:
    """The same random weights and tokenizer, the same rows and steps, by TRL's SFTTrainer; then as a folder of ours."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    # One step at a rate of next to nothing leaves the built-in student's first weights in a folder that TRL can open.
    untaught = _train(
        rows, folder / "untaught", seed=seed, steps=1, batch_size=len(rows), learning_rate_multiplier=1e-9
    )
    model = AutoModelForCausalLM.from_pretrained(untaught, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(untaught)
    examples = [{"prompt": row["messages"][:2], "completion": row["messages"][2:]} for row in map(_plain, rows)]
    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=3e-3,
        lr_scheduler_type="linear",
        warmup_steps=round(0.05 * steps),
        weight_decay=0.1,
        adam_beta1=0.9,
        adam_beta2=0.95,
        max_length=4096,
        seed=seed,
        use_cpu=True,
        gradient_checkpointing=False,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(model, settings, train_dataset=Dataset.from_list(examples), processing_class=tokenizer)
    trainer.train()
    return _with_weights(untaught, trainer.model.eval(), folder / "taught")


def _with_weights(like: Path, model: Any, folder: Path) -> Path:
    """A model folder like another, with these weights."""
    from stillroom.student.bases.base_models import open_artefact
    from stillroom.student.bases.checkpoint import read_artefact, write_artefact
    from stillroom.student.bases.identity import identity_of

    student = open_artefact(like)
    student.model.load_state_dict(model.state_dict())
    identity = identity_of(student.model, student.template, context_tokens=student.context_tokens)
    write_artefact(folder, student.model, student.template, read_artefact(like), identity)
    return folder


TRAINERS: Mapping[str, Callable[[Sequence[Row], Path, int, Any], Path]] = {
    "imitation": _imitation,
    HALF: _half,
    "reasoning kept": _imitation,
    "soft labels": _soft_labels,
    "prompt dropped": _prompt_dropped,
    "preference": _preference,
    "on-policy, itself": _on_policy,
    LIKE_TEACHER: _like_teacher,
    "on-policy, teacher": _on_policy_of_teacher,
    "TRL": _by_trl,
}


# --- table and plot ----------------------------------------------------------------------------------------------


def _print(found: Mapping[tuple[str, str], Sequence[Outcome]]) -> None:
    for task in dict.fromkeys(task for task, _ in found):
        errors = statistics.mean(
            each.label_errors for (name, _), all_of in found.items() if name == task for each in all_of
        )
        print(f"\n{task} ({errors:.0%} of the rows have a wrong answer)\n")
        print(
            "| method | held-out agreement, mean (by seed) | difference to imitation | prompt tokens a call | CPU s |"
        )
        print("|---|---|---|---|---|")
        for (name, method), outcomes in found.items():
            if name == task:
                plain = LIKE_TEACHER if method == "on-policy, teacher" else "imitation"
                print(f"| {' | '.join(_cells(method, outcomes, found.get((task, plain))))} |")


def _cells(method: str, outcomes: Sequence[Outcome], imitation: Sequence[Outcome] | None) -> list[str]:
    shares = [statistics.mean(each.right) for each in outcomes]
    return [
        method,
        f"**{statistics.mean(shares):.1%}** ({', '.join(f'{share:.1%}' for share in shares)})",
        _difference(outcomes, imitation) if imitation and not method.startswith("imitation") else "",
        f"{statistics.mean(each.prompt_tokens for each in outcomes):.0f}",
        f"{statistics.median(each.cpu_seconds for each in outcomes):.0f}",
    ]


def _difference(outcomes: Sequence[Outcome], imitation: Sequence[Outcome]) -> str:
    """In points, with the interval that 95 of 100 resampled sets of questions lie in."""
    # For each question how much more often, over the seeds, this method was right.
    gains = [
        statistics.mean(ours - theirs for ours, theirs in zip(*both, strict=True))
        for both in zip(
            zip(*(each.right for each in outcomes), strict=True),
            zip(*(each.right for each in imitation), strict=True),
            strict=True,
        )
    ]
    dice = random.Random(0)
    means = sorted(statistics.fmean(dice.choices(gains, k=len(gains))) for _ in range(RESAMPLES))
    low, high = means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1]
    return f"{100 * statistics.mean(gains):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _draw(found: Mapping[tuple[str, str], Sequence[Outcome]], path: Path) -> None:
    """A panel a task, a row a method: every seed a dot, their mean a bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import PercentFormatter

    tasks = list(dict.fromkeys(task for task, _ in found))
    counts = [sum(name == task for name, _ in found) for task in tasks]
    figure, panels = pyplot.subplots(
        len(tasks), sharex=True, figsize=(7, 1 + 0.36 * sum(counts) + 0.35 * len(tasks)),
        height_ratios=counts, layout="constrained", squeeze=False,
    )  # fmt: skip
    for task, axes in zip(tasks, panels.flat, strict=True):
        methods = [method for name, method in found if name == task]
        for at, method in enumerate(methods):
            shares = [statistics.mean(each.right) for each in found[task, method]]
            axes.barh(at, statistics.mean(shares), height=0.62, color="#c9d8ea" if method != "TRL" else "#e3e3e3")
            axes.plot(shares, [at] * len(shares), "o", color="#1f5fa8", markersize=4, clip_on=False)
        axes.set(yticks=range(len(methods)), yticklabels=methods, xlim=(0, 1))
        axes.set_title(task, loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels.flat[-1].set_xlabel(f"right answers to {HELD_OUT} unseen questions")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
