"""`stillroom demo`: the whole loop on this machine, told step by step, without network or key.

It starts a real server on its own data folder and the shipped scripted teacher, and is then an
ordinary client of them, through the official `openai` package: everything it does, a script can do.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stillroom import config
from stillroom.errors import ConfigurationError, MissingExtra, TrainingFailed
from stillroom.teachers import triage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CHATS, HELD_OUT = 1000, 200
FAST_CHATS, FAST_HELD_OUT, FAST_EPOCHS = 100, 20, 8
AT_ONCE = 8  # chats under way at the same time
SCRIPTED = "ticket-expert"
DEPLOYMENT = "ticket-student"
SHOWN = 4  # held-out tickets printed side by side
START_SECONDS = 60.0
LOOK_SECONDS = 0.25
LETTERS = 110

# What the figures are priced at. The scripted teacher is free and the student runs on this machine,
# so both are stated assumptions: a hosted frontier model's list price, and a small model's.
TEACHER_PRICE = {"input": 2.50, "output": 10.00}
STUDENT_PRICE = {"input": 0.05, "output": 0.20, "training": 0.30}

ACCOUNT = "subscriptions/local/resourceGroups/local/providers/Microsoft.CognitiveServices/accounts/local"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What was asked for on the command line."""

    data: str
    port: int
    fast: bool
    exit: bool
    json: bool
    teacher: str | None
    student: str
    config: str | None


def run(asked: Demo) -> None:
    """Runs the demo. Raises TrainingFailed when the job does not succeed."""
    if find_spec("openai") is None:
        raise MissingExtra("`stillroom demo` needs `pip install 'stillroom[students,demo]'`.")
    console = Console(stderr=asked.json, highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was started is ended too
    with ExitStack() as stack:
        teacher = asked.teacher or SCRIPTED
        teachers = {} if asked.teacher else {SCRIPTED: _scripted(stack.enter_context(_scripted_teacher()))}
        url, key, server = stack.enter_context(_server(asked, teachers))
        figures = asyncio.run(_loop(asked, console, teacher, url, key))
        _closing_words(console, asked, url, key)
        if asked.json:
            sys.stdout.write(json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
            sys.stdout.flush()
        if not asked.exit:
            _wait(server)


# --- what runs beside it ------------------------------------------------------------------------------


@contextmanager
def _scripted_teacher() -> Iterator[str]:
    """The ticket expert behind a real HTTP server, in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "stillroom.teachers.scripted", "--port", "0", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def _server(asked: Demo, teachers: dict[str, Any]) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """`stillroom serve` on the demo's data folder; gives its URL, a key, and the process."""
    folder = Path(asked.data).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "stillroom", "serve", "--data", str(folder), "--port", str(asked.port)]
    if asked.config:
        command += ["--config", asked.config]
    environment = dict(os.environ)
    if teachers:
        environment["STILLROOM_TEACHERS"] = json.dumps(teachers)
        environment["STILLROOM_STUDENTS"] = json.dumps({config.SCRATCH: {"price": STUDENT_PRICE}})
    with (folder / "server.log").open("ab") as log:
        # What it announces on standard output has the key in it, which belongs in no log.
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        url = _await_server(folder, process)
        yield url, (folder / "admin-key").read_text().strip(), process
    finally:
        process.terminate()
        process.wait()


def _await_server(folder: Path, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + START_SECONDS
    file = folder / "server.json"
    while time.monotonic() < until and process.poll() is None:
        known = json.loads(file.read_text()) if file.exists() else {}
        if known.get("pid") == process.pid:  # and not another server's that runs on this folder
            return str(known["url"])
        time.sleep(0.05)
    last = (folder / "server.log").read_text().strip().splitlines()[-1:]
    raise ConfigurationError(f"The server did not start. {' '.join(last).removeprefix('Error: ')}")


def _scripted(url: str) -> dict[str, Any]:
    return {"base_url": url, "price": TEACHER_PRICE}


def _wait(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait()
    except KeyboardInterrupt:
        pass


# --- the loop -----------------------------------------------------------------------------------------


async def _loop(asked: Demo, console: Console, teacher: str, url: str, key: str) -> dict[str, Any]:
    from openai import AsyncOpenAI  # noqa: PLC0415 - an extra that only the demo needs

    began = time.monotonic()
    run_name = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
    training = triage.tickets(FAST_CHATS if asked.fast else CHATS, seed=1, split=triage.Split.TRAINING)
    held_out = triage.tickets(FAST_HELD_OUT if asked.fast else HELD_OUT, seed=2, split=triage.Split.HELD_OUT)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key, timeout=120) as client:
        console.print(f"[bold]1. Capture[/bold]  {len(training)} tickets are triaged by the teacher, with store=True.")
        if asked.teacher is None:
            console.print("   The teacher is scripted: a set of rules behind a real HTTP server, no language model.")
        metadata = {"app": "ticket-triage", "run": run_name}
        await _capture(client, console, teacher, training, {**metadata, "split": "training"})

        console.print(f"[bold]2. Select[/bold]   by metadata: app=ticket-triage, run={run_name}, split=training")
        selection = await _select(client, {**metadata, "split": "training"})
        console.print(f"   {selection['training_examples']} chats are now {selection['training_file']['filename']}.")

        console.print(f"[bold]3. Train[/bold]    {asked.student}, on this machine.")
        epochs: int | Literal["auto"] = FAST_EPOCHS if asked.fast else "auto"
        model, losses = await _train(client, console, asked.student, selection["training_file"]["id"], epochs)
        console.print(f"   The loss fell: {_curve(losses)}")

        console.print(f"[bold]4. Deploy[/bold]   {model} as [bold]{DEPLOYMENT}[/bold]")
        await _deploy(client, url, model)

        console.print(f"[bold]5. Compare[/bold]  on {len(held_out)} tickets that nobody has trained on.")
        console.print(f"   {triage.DIFFERENCE}", style="dim")
        held = {**metadata, "split": "held-out"}
        await _capture(client, console, teacher, held_out, held)
        eval_id = await _compare(client, console, held)
        report = await client.get(f"/stillroom/evals/{eval_id}/report", cast_to=dict[str, Any])
        answers = [
            item async for item in client.evals.runs.output_items.list(report["sides"][0]["run_id"], eval_id=eval_id)
        ]
        page = Path(asked.data).expanduser().resolve() / "report.html"
        page.write_text(await _page(client, eval_id))
    figures = _figures(report, losses, time.monotonic() - began)
    _show(console, answers, figures)
    console.print(f"   Slices, intervals and every disagreement: {page}", markup=False)
    return figures


async def _capture(
    client: AsyncOpenAI, console: Console, teacher: str, tickets: list[str], metadata: dict[str, str]
) -> None:
    async def chat(ticket: str) -> None:
        await client.chat.completions.create(
            model=teacher,
            messages=triage.messages(ticket),  # type: ignore[arg-type]
            temperature=0,
            store=True,
            metadata=metadata,
        )

    await _each(console, "chats stored", tickets, chat)


async def _select(client: AsyncOpenAI, metadata: dict[str, str]) -> dict[str, Any]:
    body = {"filter": {"metadata": metadata}, "filename": "ticket-triage"}
    return dict(await client.post("/stillroom/selections", body=body, cast_to=dict[str, Any]))


async def _train(
    client: AsyncOpenAI, console: Console, student: str, file_id: str, epochs: int | Literal["auto"]
) -> tuple[str, list[float]]:
    job = await client.fine_tuning.jobs.create(
        model=student,
        training_file=file_id,
        suffix="triage",
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": epochs}}},
    )
    losses: dict[int, float] = {}
    said = 0  # tenths of the way that were told where no bar can be drawn
    columns = (TextColumn("   {task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]}"), console=console) as progress:
        bar = progress.add_task("starting", total=None, loss="-")
        while True:
            job = await client.fine_tuning.jobs.retrieve(job.id)
            step, total = await _read_losses(client, job.id, losses)
            loss = f"{losses[step]:.4f}" if step else "-"
            progress.update(bar, completed=step, total=total, description=job.status, loss=loss)
            if not console.is_terminal and total and step * 10 // total > said:
                said = step * 10 // total
                console.print(f"   step {step}/{total}: loss {loss}")
            if job.status in ("succeeded", "failed", "cancelled"):
                break
            await asyncio.sleep(LOOK_SECONDS)
    if job.status != "succeeded" or not job.fine_tuned_model:
        reason = job.error.message if job.error else job.status
        raise TrainingFailed(f"The fine-tuning job did not succeed: {reason}")
    return job.fine_tuned_model, [losses[step] for step in sorted(losses)]


async def _read_losses(client: AsyncOpenAI, job_id: str, losses: dict[int, float]) -> tuple[int, int | None]:
    """Adds the steps not seen yet to `losses`; gives the last step and how many there will be."""
    total: int | None = None
    async for event in client.fine_tuning.jobs.list_events(job_id, limit=100):
        if event.type != "metrics":
            continue
        data: Any = event.data
        total = total or data["total_steps"]
        if data["step"] in losses:
            break
        losses[data["step"]] = data["train_loss"]
    return max(losses, default=0), total


async def _deploy(client: AsyncOpenAI, url: str, model: str) -> None:
    address = f"{url}/{ACCOUNT}/deployments/{DEPLOYMENT}?api-version=2025-09-01"
    body = {"sku": {"name": "Standard", "capacity": 1}, "properties": {"model": {"format": "OpenAI", "name": model}}}
    made = await client.put(address, body=body, cast_to=dict[str, Any])
    while made["properties"]["provisioningState"] == "Creating":
        await asyncio.sleep(LOOK_SECONDS)
        made = await client.get(address, cast_to=dict[str, Any])
    if made["properties"]["provisioningState"] != "Succeeded":
        raise TrainingFailed(f"The deployment failed: {made['properties']['provisioningError']['message']}")


async def _compare(client: AsyncOpenAI, console: Console, held_out: dict[str, str]) -> str:
    """Puts the student to what the teacher was asked; gives the eval."""
    body = {"models": [DEPLOYMENT], "filter": {"metadata": held_out}}
    made = await client.post("/stillroom/comparisons", body=body, cast_to=dict[str, Any])
    columns = (TextColumn("   {task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(DEPLOYMENT, total=None)
        while True:
            run = await client.evals.runs.retrieve(made["runs"][0], eval_id=made["eval_id"])
            counts = run.result_counts
            done = counts.passed + counts.failed + counts.errored
            progress.update(bar, completed=done, total=counts.total or None)
            if run.status == "completed":
                return str(made["eval_id"])
            if run.status == "failed":
                raise TrainingFailed(f"The comparison failed: {run.error.message}")
            await asyncio.sleep(LOOK_SECONDS)


async def _page(client: AsyncOpenAI, eval_id: str) -> str:
    path = f"/stillroom/evals/{eval_id}/report"
    return str(await client.get(path, cast_to=str, options={"params": {"format": "html"}}))


async def _each(console: Console, what: str, tickets: list[str], work: Any) -> None:
    """Runs `work` on every ticket, a few at a time, under a progress bar."""
    gate = asyncio.Semaphore(AT_ONCE)
    columns = (TextColumn("   {task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(what, total=len(tickets))

        async def one(ticket: str) -> None:
            async with gate:
                await work(ticket)
            progress.advance(bar)

        async with asyncio.TaskGroup() as group:
            for ticket in tickets:
                group.create_task(one(ticket))


# --- what it says ---------------------------------------------------------------------------------------


def _figures(report: dict[str, Any], losses: list[float], seconds: float) -> dict[str, Any]:
    student = report["sides"][0]
    return {
        "agreement": student["agreement"]["share"],
        "held_out": student["agreement"]["total"],
        "held_out_among_training": student["training"]["trained_on"],
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": round(seconds, 1),
        "teacher": _side(", ".join(report["teacher"]["models"]), report["teacher"]),
        "student": _side(student["model"], student),
    }


def _side(name: str, told: dict[str, Any]) -> dict[str, Any]:
    """One side of the comparison. Latencies in seconds, price in USD per 1,000 calls."""
    speed, expense = told["speed"], told["expense"]
    return {
        "name": name,
        "prompt_tokens": expense["prompt_tokens"],
        "completion_tokens": expense["completion_tokens"],
        "latency_p50": speed["p50_ms"] / 1000,
        "latency_p95": speed["p95_ms"] / 1000,
        "price_per_1000": (expense["microusd_per_1000_calls"] or 0) / config.MICRO,
    }


def _show(console: Console, items: list[Any], figures: dict[str, Any]) -> None:
    _show_some(console, items)
    teacher, student = figures["teacher"], figures["student"]
    table = Table("", "teacher", "student", box=None, header_style="bold", pad_edge=False)
    rows = (
        ("prompt tokens a call", "prompt_tokens", "{:.0f}"),
        ("answer tokens a call", "completion_tokens", "{:.0f}"),
        (f"latency p50, {AT_ONCE} at a time", "latency_p50", "{:.3f} s"),
        ("latency p95", "latency_p95", "{:.3f} s"),
        ("price of 1,000 calls", "price_per_1000", "${:.3f}"),
    )
    for label, name, form in rows:
        table.add_row(label, form.format(teacher[name]), form.format(student[name]))
    console.print(table)
    if teacher["name"] == SCRIPTED:
        console.print("   The scripted teacher answers at once; its latency says nothing of a real one's.", style="dim")
        console.print("   The prices are assumptions: set your own in stillroom.toml.", style="dim")
    share, count = figures["agreement"], figures["held_out"]
    console.print(
        f"[bold]Agreement: {share:.1%}[/bold] ({round(share * count)} of {count} answers are the same; "
        f"{figures['held_out_among_training']} of these tickets were trained on). "
        f"The whole loop took {figures['seconds']:.0f} s."
    )


def _show_some(console: Console, items: list[Any]) -> None:
    """A few tickets with both answers, disagreements among them if there are any."""
    differing = [item for item in items if item.status != "pass"]
    agreeing = [item for item in items if item.status == "pass"]
    for item in [*agreeing[: SHOWN - len(differing[:2])], *differing[:2]]:
        asked = item.datasource_item
        console.print(f"   ticket   {_short(asked['input'][-1]['content'])}", markup=False)
        console.print(f"   teacher  {_short(asked['output_text'])}", markup=False)
        mark = "" if item in agreeing else "   <- differs"
        answer = item.sample.output[0].content if item.sample.output else ""
        console.print(f"   student  {_short(answer or '')}{mark}\n", markup=False)


def _closing_words(console: Console, asked: Demo, url: str, key: str) -> None:
    if asked.exit:
        return
    folder = Path(asked.data).expanduser().resolve()
    prompt = folder / "system-prompt.txt"
    prompt.write_text(triage.SYSTEM_PROMPT)
    stillroom = "stillroom" if shutil.which("stillroom") else str(Path(sys.executable).with_name("stillroom"))
    ticket = triage.tickets(1, seed=3, split=triage.Split.HELD_OUT)[0]
    at = f"--data {shlex.quote(str(folder))}"
    console.print(
        f"\nThe server stays up at {url} until you press Ctrl-C. To see all of this in a browser:\n"
        f"   {_portal_address(url, key)}    # signs in once; `{stillroom} portal {at}` prints another\n"
        "In another terminal:\n"
        f'   eval "$({stillroom} env --shell {at})"    # points the openai package here\n'
        f"   {stillroom} completions list --metadata app=ticket-triage {at}\n"
        f'   {stillroom} chat {DEPLOYMENT} {at} --system "$(cat {shlex.quote(str(prompt))})" {shlex.quote(ticket)}',
        markup=False,
    )


def _portal_address(url: str, key: str) -> str:
    from openai import OpenAI  # noqa: PLC0415 - as above

    with OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        made = client.post("/stillroom/sign_in_tokens", cast_to=dict[str, Any])
    return config.sign_in_address(url, made["token"])


def _curve(losses: list[float]) -> str:
    """The loss at five points of the run."""
    last = len(losses) - 1
    return " → ".join(f"{losses[last * i // 4]:.3f}" for i in range(5))


def _short(ticket: str) -> str:
    line = " ".join(ticket.split())
    return line if len(line) <= LETTERS else line[: LETTERS - 1] + "…"
