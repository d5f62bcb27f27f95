"""`stillroom distill`, `jobs` and `models`: from stored completions to a fine-tuned model."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stillroom.cli import curating
from stillroom.cli.client import Client, ServerError, connect, segment
from stillroom.cli.options import Data, Json, Metadata, Wait, metadata, since
from stillroom.cli.output import as_json, err, fail, note, say, table, when
from stillroom.curation import Curation, Report
from stillroom.datasets.answers import Reasoning
from stillroom.student.hyperparameters import MethodType as Method

app = typer.Typer()
jobs = typer.Typer(help="Fine-tuning jobs of the running server.", no_args_is_help=True)
models = typer.Typer(help="Models of the running server.", no_args_is_help=True)

JOBS = "/v1/fine_tuning/jobs"
LOOK_SECONDS = 0.5
ENDED = ("succeeded", "failed", "cancelled")

JobId = Annotated[str, typer.Argument(metavar="ID")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the examples. Default: chosen for you.", min=1)]
Suffix = Annotated[str | None, typer.Option(help="Part of the new model's name.")]
Beta = Annotated[
    float | None,
    typer.Option(help="Of dpo: how strongly the student is held to what it answered before. Default: 0.1.", max=2),
]
OnPolicyTeacher = Annotated[
    str | None,
    typer.Option(
        "--on-policy-teacher",
        metavar="MODEL",
        help="Of on_policy: whose weights judge what the student says. Default: its own, which see the stored answer.",
    ),
]
DropSystemPrompt = Annotated[
    bool,
    typer.Option(
        "--drop-system-prompt", help="Train without the system prompt, and answer calls that have it without."
    ),
]


@app.callback(invoke_without_command=True)
def distill(
    context: typer.Context,
    student: Annotated[
        str, typer.Option("--student", metavar="BASE", help="The base model, or a fine-tuned one. Needed.")
    ] = "",
    metadata_: Metadata = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="TEACHER", help="Only this teacher's answers.")
    ] = None,
    since_: Annotated[
        str | None, typer.Option("--since", metavar="T", help="Only from 30m, 2h, 7d ago, or ISO.")
    ] = None,
    epochs: Epochs = None,
    on_policy: Annotated[
        bool,
        typer.Option("--on-policy", help="Let the student answer itself, and learn what its teacher thinks of that."),
    ] = False,
    on_policy_teacher: OnPolicyTeacher = None,
    drop_system_prompt: DropSystemPrompt = False,
    soft_labels: Annotated[
        float | None,
        typer.Option(
            "--soft-labels",
            metavar="WEIGHT",
            help="Learn what the teacher held likely, too: 0 (not at all) to 1 (that alone). Needs stored logprobs.",
            min=0,
            max=1,
        ),
    ] = None,
    reasoning: Annotated[
        Reasoning | None,
        typer.Option(help="What the teacher thought before it answered: strip leaves it out (default), keep does not."),
    ] = None,
    suffix: Suffix = None,
    validation: Annotated[float, typer.Option(help="Fraction of the examples to hold out.", min=0, max=0.9)] = 0.0,
    no_duplicates: curating.NoDuplicates = False,
    near_duplicates: curating.NearDuplicates = None,
    no_refusals: curating.NoRefusals = False,
    no_truncated: curating.NoTruncated = False,
    language: curating.Language = None,
    min_prompt: curating.MinPrompt = None,
    max_prompt: curating.MaxPrompt = None,
    min_answer: curating.MinAnswer = None,
    max_answer: curating.MaxAnswer = None,
    best_of: curating.BestOf = None,
    dry_run: curating.DryRun = False,
    seed: Annotated[int | None, typer.Option(help="Makes the run repeatable.")] = None,
    quote: Annotated[
        bool, typer.Option("--quote", help="Say what it would cost and how long it would take, and stop.")
    ] = False,
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
) -> None:
    """Fine-tune a student on stored completions."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    if not student and not dry_run:
        context.fail("Missing option '--student'.")
    curation = curating.curation_of(
        no_duplicates=no_duplicates,
        near_duplicates=near_duplicates,
        no_refusals=no_refusals,
        no_truncated=no_truncated,
        languages=language,
        lengths={
            "min_prompt": min_prompt,
            "max_prompt": max_prompt,
            "min_answer": min_answer,
            "max_answer": max_answer,
        },
    )
    reached = connect(data)
    conditions = {"metadata": metadata(metadata_), "model": model, "created_after": since(since_)}
    rows: dict[str, Any] = {"filter": conditions, "validation_fraction": validation}
    if wishes := curating.as_request(curation, best_of):
        rows["curation"] = wishes
    rows |= {name: value for name, value in (("soft_labels", bool(soft_labels)), ("reasoning", reasoning)) if value}
    if dry_run:
        _tell_dry_run(reached.post("/v1/stillroom/selections", {**rows, "dry_run": True}), curation, json=json)
        return
    body: dict[str, Any] = {"model": student}
    drop = "drop" if drop_system_prompt else None
    method = Method.ON_POLICY if on_policy else Method.SUPERVISED
    body |= method_of(
        method.value, on_policy_teacher, n_epochs=epochs, system_prompt=drop, soft_label_weight=soft_labels
    )
    if quote:
        note("Measuring some steps ...")
        _tell_quote(reached.post("/v1/stillroom/quotes", {**body, "selection": rows}), json=json)
        return
    selection = reached.post("/v1/stillroom/selections", rows)
    for warning in selection["warnings"]:
        note(f"Note: {warning}")
    body["training_file"] = selection["training_file"]["id"]
    if selection["validation_file"]:
        body["validation_file"] = selection["validation_file"]["id"]
    body |= {name: value for name, value in (("suffix", suffix), ("seed", seed)) if value is not None}
    try:
        job = reached.post(JOBS, body)
    except ServerError:
        for file in (selection["training_file"], selection["validation_file"]):
            if file:  # made for a job that is not to be
                reached.delete(f"/v1/files/{file['id']}")
        raise
    left_out = sum(left["count"] for left in (selection["report"] or {"left_out": []})["left_out"])
    beside = f", {left_out} left out by curation" if left_out else ""
    note(f"{selection['training_examples']} examples selected{beside}; job {job['id']} created.")
    finish(reached, job, wait=wait, json=json)


def _tell_dry_run(selection: dict[str, Any], curation: Curation, *, json: bool) -> None:
    if json:
        as_json(selection)
    else:
        curating.tell(msgspec.convert(selection["report"], Report), curation)


def method_of(method: str, teacher: str | None = None, **hyperparameters: Any) -> dict[str, Any]:
    """The method as a request has it, with the hyperparameters that are given; nothing when that says nothing."""
    given = {name: value for name, value in hyperparameters.items() if value is not None}
    own = {"hyperparameters": given, **({"teacher": teacher} if teacher else {})}
    if method == "supervised" and own == {"hyperparameters": {}}:
        return {}
    return {"method": {"type": method, method: own}}


def _refuse_options(context: typer.Context) -> None:
    """Options before a subcommand's name are the plain command's, and would be dropped without a word."""
    given = [name for name, value in context.params.items() if value]
    if given:
        option = "--" + given[0].strip("_").replace("_", "-")
        context.fail(
            f"{option} belongs to `stillroom distill` alone; `{context.invoked_subcommand}` has its own options."
        )


@jobs.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 20,
    json: Json = False,
    data: Data = None,
) -> None:
    """List fine-tuning jobs, newest first."""
    found = list(connect(data).pages(JOBS, {}, limit))
    if json:
        as_json(found)
        return
    rows = [(j["id"], j["status"], j["model"], j["fine_tuned_model"] or "-", when(j["created_at"])) for j in found]
    table(("ID", "STATUS", "BASE", "FINE-TUNED MODEL", "CREATED"), rows, "No fine-tuning jobs.")


@jobs.command("create")
def create_job(
    student: Annotated[str, typer.Option("--student", metavar="BASE", help="The base model, or a fine-tuned one.")],
    training_file: Annotated[str, typer.Option("--training-file", metavar="ID", help="A file of purpose fine-tune.")],
    validation_file: Annotated[str | None, typer.Option("--validation-file", metavar="ID")] = None,
    method: Annotated[
        Method,
        typer.Option(help="supervised, on_policy: the file has conversations; dpo: it has preference pairs."),
    ] = Method.SUPERVISED,
    teacher: OnPolicyTeacher = None,
    epochs: Epochs = None,
    beta: Beta = None,
    drop_system_prompt: DropSystemPrompt = False,
    suffix: Suffix = None,
    seed: Annotated[int | None, typer.Option(help="Makes the run repeatable.")] = None,
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
) -> None:
    """Fine-tune a student on a file that is there already."""
    reached = connect(data)
    drop = "drop" if drop_system_prompt else None
    files = {"training_file": training_file, "validation_file": validation_file}
    asked: dict[str, Any] = {"model": student, **files, "suffix": suffix, "seed": seed}
    body = {name: value for name, value in asked.items() if value is not None}
    body |= method_of(method.value, teacher, n_epochs=epochs, beta=beta, system_prompt=drop)
    finish(reached, reached.post(JOBS, body), wait=wait, json=json)


@jobs.command("show")
def show_job(job_id: JobId, json: Json = False, data: Data = None) -> None:
    """Show a job, its checkpoints and its events; of the steps the last."""
    reached = connect(data)
    path = f"{JOBS}/{segment(job_id)}"
    job = reached.get(path)
    job["checkpoints"] = reached.get(f"{path}/checkpoints")["data"]
    job["events"] = list(reached.pages(f"{path}/events", {}))
    job["quote"] = _comparison(reached, job)
    if json:
        as_json(job)
        return
    for name in ("id", "status", "model", "fine_tuned_model", "trained_tokens", "training_file"):
        say(f"{name}: {job[name]}")
    for line in _told_of_method(job, job["events"]):
        say(line)
    say("hyperparameters: " + " ".join(f"{name}={value}" for name, value in job["hyperparameters"].items()))
    for line in _compared(job["quote"]):
        say(line)
    for checkpoint in job["checkpoints"]:
        say(f"checkpoint: {checkpoint['fine_tuned_model_checkpoint']}")
    steps = [event for event in job["events"] if event["type"] == "metrics"]
    for event in reversed(job["events"]):
        if event not in steps[1:]:  # of the steps the last one tells enough; the result file has all
            say(f"{when(event['created_at'])} {event['level']}: {event['message']}")
    if job["error"]:
        fail(job["error"]["message"])


@jobs.command("watch")
def watch_job(job_id: JobId, json: Json = False, data: Data = None) -> None:
    """Follow a job until it ends; exit 0 only on success."""
    reached = connect(data)
    finish(reached, reached.get(f"{JOBS}/{segment(job_id)}"), wait=True, json=json)


@jobs.command("cancel")
def cancel_job(job_id: JobId, data: Data = None) -> None:
    """Cancel a job at once."""
    connect(data).post(f"{JOBS}/{segment(job_id)}/cancel")
    say(f"{job_id} is cancelled.")


@models.command("list")
def list_models(json: Json = False, data: Data = None) -> None:
    """List teachers, student bases, fine-tuned models and deployments."""
    found = connect(data).get("/v1/models")["data"]
    if json:
        as_json(found)
        return
    table(("MODEL", "OWNER", "CREATED"), [(m["id"], m["owned_by"], when(m["created"])) for m in found], "No models.")


@models.command("show")
def show_model(model: Annotated[str, typer.Argument()], data: Data = None) -> None:
    """Show one model, as JSON."""
    as_json(connect(data).get(f"/v1/models/{segment(model)}"))


@models.command("delete")
def delete_model(model: Annotated[str, typer.Argument()], data: Data = None) -> None:
    """Delete a fine-tuned model and its weights; refused while it is deployed."""
    connect(data).delete(f"/v1/models/{segment(model)}")
    say(f"{model} is deleted.")


def follow(reached: Client, job_id: str) -> dict[str, Any]:
    """Shows a job's progress until it ends; gives the job."""
    path = f"{JOBS}/{segment(job_id)}"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    loss = TextColumn("loss {task.fields[loss]}")
    with Progress(*columns, loss, TimeRemainingColumn(), console=err, transient=False) as progress:
        bar = progress.add_task("queued", total=None, loss="-")
        while True:
            job = reached.patiently(path)
            if step := _last_step(reached, path):
                loss_text = f"{step['train_loss']:.3f}"
                progress.update(bar, completed=step["step"], total=step["total_steps"], loss=loss_text)
            progress.update(bar, description=job["status"])
            if job["status"] in ENDED:
                return job
            time.sleep(LOOK_SECONDS)


def _told_of_method(job: dict[str, Any], events: Iterable[dict[str, Any]]) -> list[str]:
    """The method, and what its events say of how it went."""
    method = str(job["method"]["type"])
    judge = (job["method"].get(method) or {}).get("teacher")
    lines = [f"method: {method}" + (f", judged by {judge}" if judge else "")]
    for event in events:
        if (share := event["data"].get("soft_label_positions")) is not None:
            lines.append(f"soft labels: {share:.1%} of the tokens to learn have them")
        if (tokens := event["data"].get("dropped_prompt_tokens")) is not None:
            lines.append(f"saves: {tokens:,} prompt tokens a call, by doing without the system prompt")
    return lines


def _last_step(reached: Client, path: str) -> dict[str, Any] | None:
    events = reached.patiently(f"{path}/events", {"limit": 10})["data"]
    return next((event["data"] for event in events if event["type"] == "metrics"), None)


def finish(reached: Client, job: dict[str, Any], *, wait: bool, json: bool) -> None:
    if wait:
        job = follow(reached, job["id"])
    if json:
        as_json(job)
    elif not wait:
        say(job["id"])
    elif job["status"] == "succeeded":
        events = reached.pages(f"{JOBS}/{segment(job['id'])}/events", {})
        for line in (*_told_of_method(job, events), *_compared(_comparison(reached, job))):
            note(line)
        say(job["fine_tuned_model"])
    if not wait or job["status"] == "succeeded":
        return
    fail(job["error"]["message"] if job["error"] else f"The job was {job['status']}.")
    raise typer.Exit(1)


def _tell_quote(quote: dict[str, Any], *, json: bool) -> None:
    for warning in quote["warnings"]:
        note(f"Note: {warning}")
    if json:
        as_json(quote)
        return
    say(
        f"{quote['model']}, {quote['examples']} examples: {quote['n_epochs']} epochs in {quote['steps']} steps of "
        f"{quote['batch_size']}, {quote['trained_tokens']:,} tokens to train"
    )
    say(f"cost: {_usd(quote['cost_usd'])}, and {_usd(quote['hosting_usd_per_month'])} a month to host it")
    say(f"time: {_minutes(quote['minutes'])} (measured: {quote['measured']})")
    if quote["dropped_prompt_tokens"] is not None:
        say(f"saves: {quote['dropped_prompt_tokens']:,} prompt tokens a call, by doing without the system prompt")
    if quote["break_even"]:
        say(f"break-even: {_break_even(quote['break_even'])}")


def _break_even(found: dict[str, Any]) -> str:
    if found["reason"]:
        return str(found["reason"])
    teacher, student = found["teacher_microusd_per_day"] / 1e6, found["student_microusd_per_day"] / 1e6
    on = f", on {found['break_even_date']}" if found["break_even_date"] else ""
    return (
        f"after {found['break_even_days']:.1f} days{on}: {found['calls_per_day']:,.0f} calls a day cost {_usd(teacher)} "
        f"with {', '.join(found['teachers'])} and {_usd(student)} with the student, hosting included "
        f"(seen over {found['window']['days']:.1f} days)"
    )


def _comparison(reached: Client, job: dict[str, Any]) -> dict[str, Any]:
    return reached.get(f"/v1/stillroom/jobs/{segment(job['id'])}/quote")


def _compared(found: dict[str, Any]) -> list[str]:
    """What was quoted and what came of it; nothing when no quote was made."""
    quoted, actual, errors = found["predicted"], found["actual"], found["relative_error"]
    if quoted is None:
        return []
    lines = [f"quoted: {quoted['trained_tokens']:,} tokens, {_usd(quoted['cost_usd'])}, {_minutes(quoted['minutes'])}"]
    if actual is not None:
        minutes = f"{actual['minutes']:.2f} minutes" if actual["minutes"] is not None else "minutes unknown"
        off = "" if errors["minutes"] is None else f" (the quote was off by {errors['minutes']:+.0%})"
        lines.append(f"actual: {actual['trained_tokens']:,} tokens, {_usd(actual['cost_usd'])}, {minutes}{off}")
    return lines


def _minutes(minutes: dict[str, float]) -> str:
    return f"{minutes['expected']:.2f} minutes ({minutes['low']:.2f} to {minutes['high']:.2f})"


def _usd(usd: float) -> str:
    """Cents, unless they would hide what there is."""
    return f"{usd:.2f} USD" if usd >= 1 or usd == 0 else f"{usd:.6f} USD"
