"""A run's folder as a page: `report.md`, with the losses as `loss.png`.

Made of what lies in the folder alone (see `story`), so that it can be written at any moment of a run and
long after. Says what is known and leaves out what is not.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stillroom.student.records.metrics import METRICS_FILE, Row, rows_of

RUN_FILE, ENVIRONMENT_FILE, EVENTS_FILE = "run.json", "environment.json", "events.jsonl"
REPORT_FILE, PLOT_FILE = "report.md", "loss.png"
SMOOTHED_FROM = 60
"""Steps from which on the plot's line is a running mean, with the steps themselves pale behind it."""
LOGARITHMIC_FROM = 20.0
"""Times the smallest loss that the largest is, from which on losses are drawn on a logarithmic scale."""
LOSSES = {
    "train_loss": "training loss",
    "valid_loss": "validation loss, one batch",
    "full_valid_loss": "validation loss, whole file",
    "train_mean_token_accuracy": "training token accuracy",
    "valid_mean_token_accuracy": "validation token accuracy, one batch",
    "full_valid_mean_token_accuracy": "validation token accuracy, whole file",
    "rewards_margin": "training reward margin",
}
OF_PAIRS = {
    "train_mean_token_accuracy": "training pairs told apart",
    "valid_mean_token_accuracy": "validation pairs told apart, one batch",
    "full_valid_mean_token_accuracy": "validation pairs told apart, whole file",
}
"""What some of them are where a run learns from pairs."""
LEARNS_FROM_PAIRS = "dpo"
GIB = 1024**3


def write_cancelled(folder: Path) -> None:
    """Ends the tale of a run whose process was ended with it: `python -m stillroom.student.records.report FOLDER`."""
    with (folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"at": round(time.time(), 3), "type": "cancelled"}) + "\n")
    write(folder)


def write(folder: Path, *, with_plot: bool = True) -> Path:
    """Writes the report of the run in a folder, and its plot; gives the report's path."""
    rows = list(rows_of(folder / METRICS_FILE))
    events = _events(folder / EVENTS_FILE)
    about = _json(folder / RUN_FILE)
    if with_plot and rows and find_spec("matplotlib") is not None:
        _plot(folder / PLOT_FILE, rows, unit="pair" if _is_of_pairs(about) else "token")
    parts = [
        *_heading(about, events, rows),
        *_what(about, events, rows),
        *_how(_json(folder / ENVIRONMENT_FILE)),
        *_losses(about, rows, has_plot=(folder / PLOT_FILE).is_file()),
        *_checkpoints(events),
        *_messages(events),
    ]
    path = folder / REPORT_FILE
    draft = path.with_suffix(".part")
    draft.write_text("\n".join(parts) + "\n", encoding="utf-8")
    draft.rename(path)
    return path


# --- what the page says -----------------------------------------------------------------------------


def _heading(about: Mapping[str, Any], events: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[str]:
    total, step = _last(events, "started").get("total_steps"), int(rows[-1]["step"]) if rows else 0
    reached = f"step {step:,} of {total:,}" if total else "the first step"
    end = events[-1] if events else {}
    state = {
        "done": f"The run is done: {reached}.",
        "stopped": f"The run was stopped at {reached}, and can go on from there.",
        "cancelled": f"The run was cancelled at {reached}.",
        "error": f"The run failed at {reached}: {end.get('message')}",
    }.get(end.get("type", ""), f"The run is at {reached}, or was ended there without a word.")
    when = [f"As of {_moment(end['at'])}."] if end else []
    return [f"# {about.get('model_name', 'A training run')}", "", " ".join([state, *when]), ""]


def _what(about: Mapping[str, Any], events: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> list[str]:
    started = _last(events, "started")
    lines: list[tuple[str, str]] = []
    if about:
        base = about["base"]
        revision = f" at {base['revision']}" if base.get("revision") else ""
        lines.append(("base", f"{base['name']}{revision}"))
        lines.append(("method", about.get("method", "supervised")))
        lines += [(f"{name} data", _data(data)) for name, data in about["data"].items() if data]
        lines.append(("seed", str(about["seed"])))
    if started:
        share = f"{started['trainable_parameters']:,} of {started['parameters']:,} parameters"
        lines.append(("trained", f"{share} ({about['hyperparameters']['chosen']['training']})"))
        lines += _of_method(started)
    if rows:
        lines += _pace(rows)
    chosen, why = (about.get("hyperparameters", {}).get(name, {}) for name in ("chosen", "why"))
    numbers = [(name, str(value), why.get(name, "")) for name, value in chosen.items()]
    return [*_table(("", ""), lines), *_table(("hyperparameter", "value", "why"), numbers)]


def _of_method(started: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    if dropped := started.get("dropped_prompt"):
        found.append(("system prompt", f"dropped: {dropped['tokens']:,} tokens fewer in a prompt"))
    if (share := started.get("soft_label_positions")) is not None:
        found.append(("soft labels", f"at {share:.1%} of the trained tokens"))
    return found


def _data(data: Mapping[str, Any]) -> str:
    counts = f"{data['rows']:,} rows, {data['tokens']:,} tokens, {data['trained_tokens']:,} of them trained"
    return f"{data['file']}: {counts}; sha256 `{data['sha256']}`"


def _pace(rows: Sequence[Row]) -> list[tuple[str, str]]:
    found = [("training time", _duration(rows[-1]["elapsed_seconds"]))] if "elapsed_seconds" in rows[-1] else []
    for name, called in (("tokens_per_second", "useful"), ("computed_tokens_per_second", "computed")):
        if values := _values(rows, name):
            found.append((f"{called} tokens a second", f"{statistics.median(values):,.0f} (median step)"))
    if values := _values(rows, "memory_bytes"):
        found.append(("memory at most", f"{max(values) / GIB:.2f} GiB"))
    return found


def _how(machine: Mapping[str, Any]) -> list[str]:
    if not machine:
        return []
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    gpus = ", ".join(f"{each['name']} ({each['memory_bytes'] / GIB:.0f} GiB)" for each in machine["gpus"])
    memory = f"{machine['memory_bytes'] / GIB:.0f} GiB of memory"
    many = machine.get("processes", 1)
    lines = [
        ("machine", f"{machine['processor']}, {machine['cores']} cores, {memory}; {machine['system']}"),
        ("threads", f"{machine['threads']}" + (f" in each of {many} processes" if many > 1 else "")),
        ("GPUs", f"{gpus}; CUDA {machine['cuda']}" if gpus else "none"),
        ("software", f"Python {machine['python']}, {packages}"),
    ]
    return ["## Carried out with", "", *_table(("", ""), lines)]


def _is_of_pairs(about: Mapping[str, Any]) -> bool:
    return about.get("method") == LEARNS_FROM_PAIRS


def _losses(about: Mapping[str, Any], rows: Sequence[Row], *, has_plot: bool) -> list[str]:
    lines: list[tuple[str, ...]] = []
    for name, called in (LOSSES | OF_PAIRS if _is_of_pairs(about) else LOSSES).items():
        measured = [row for row in rows if name in row]
        if measured:
            best = (min if name.endswith("loss") else max)(measured, key=lambda row: row[name])
            lines.append((called, *(_figure(row, name) for row in (measured[0], best, measured[-1]))))
    if not lines:
        return []
    plot = [f"![Losses over steps]({PLOT_FILE})", ""] if has_plot else []
    return ["## Losses", "", *plot, *_table(("", "first", "best", "last"), lines)]


def _figure(row: Row, name: str) -> str:
    return f"{row[name]:.4g} at step {int(row['step']):,}"


def _checkpoints(events: Sequence[Mapping[str, Any]]) -> list[str]:
    # A run that went on has told of some twice.
    found = {event["step"]: event for event in events if event["type"] == "checkpoint"}
    lines = [
        (
            f"{step:,}",
            str(event["epoch"]),
            Path(event["path"]).name,
            *(_optional(event["metrics"].get(name)) for name in ("train_loss", "full_valid_loss")),
        )
        for step, event in sorted(found.items())
    ]
    columns = ("step", "epoch", "folder in checkpoints/", "training loss", "validation loss, whole file")
    return ["## Checkpoints", "", "Of these the last are kept.", "", *_table(columns, lines)] if lines else []


def _messages(events: Sequence[Mapping[str, Any]]) -> list[str]:
    told = dict.fromkeys((event["level"], event["message"]) for event in events if event["type"] == "message")
    goes_on = [
        ("info", f"The run went on from step {event['resumed_from_step']}, {_moment(event['at'])}.")
        for event in events
        if event["type"] == "started" and event.get("resumed_from_step") is not None
    ]
    lines = [f"- {level}: {message}" for level, message in [*told, *goes_on]]
    return ["## Messages", "", *lines, ""] if lines else []


def _table(columns: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> list[str]:
    found = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    if not found:
        return []
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *found, ""]


# --- the plot ---------------------------------------------------------------------------------------


def _plot(path: Path, rows: Sequence[Row], *, unit: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps, losses = [row["step"] for row in rows], [row["train_loss"] for row in rows]
    if len(rows) >= SMOOTHED_FROM:
        axes.plot(steps, losses, color="#9db8dc", linewidth=0.8, label="training, each step")
        axes.plot(steps, _smoothed(losses), color="#1f5fae", linewidth=1.8, label="training, running mean")
    else:
        axes.plot(steps, losses, color="#1f5fae", linewidth=1.8, marker=".", label="training")
    for name, style, called in (("valid_loss", "o", "one batch"), ("full_valid_loss", "D-", "whole file")):
        if measured := [(row["step"], row[name]) for row in rows if name in row]:
            axes.plot(*zip(*measured, strict=True), style, color="#d1600a", markersize=4, label=f"validation, {called}")
    drawn = [loss for name in ("train_loss", "valid_loss", "full_valid_loss") for loss in _values(rows, name)]
    if min(drawn) > 0 and max(drawn) / min(drawn) > LOGARITHMIC_FROM:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss (nats a {unit})")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)
    # Nothing in the file depends on when it was drawn.
    figure.savefig(path, metadata={"Software": None})


def _smoothed(losses: Sequence[float]) -> list[float]:
    """The mean of the steps around each, of a fortieth of them to each side."""
    reach, sums = max(1, len(losses) // 40), [0.0, *itertools.accumulate(losses)]
    ends = [(max(0, at - reach), min(len(losses), at + reach + 1)) for at in range(len(losses))]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in ends]


# --- what the folder holds --------------------------------------------------------------------------


def _events(path: Path) -> list[dict[str, Any]]:
    """Those that can be read: a run that was killed may have left a torn line."""
    found: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                continue
    return found


def _last(events: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((event for event in reversed(events) if event["type"] == kind), {})


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _values(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{seconds:.1f} s"
        if seconds < 60
        else f"{hours} h {minutes} min {rest} s"
        if hours
        else f"{minutes} min {rest} s"
    )


if __name__ == "__main__":
    write_cancelled(Path(sys.argv[1]))
