"""A run's figures at Weights & Biases, by a child process of the trainer's.

wandb has threads, exit hooks and a service of its own, and its server may be down or slow. In a process
beside the trainer's none of that can hold up or fail a training: the child follows `metrics.csv`, tells
what its owner should know, and is ended when it takes too long.

This module is both ends: `WandbRun` in the trainer, and `python -m stillroom.student.records.wandb_run FOLDER`.
The child reads one JSON line of settings, then the word of how the run has ended; input that ends
without it means that the trainer was killed. It writes message events as `run` does. The key comes by
WANDB_API_KEY and is written nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stillroom.student.records.metrics import METRICS_FILE, Follower

START_SECONDS = 30.0
"""That W&B may take to answer at the start; the training does not wait for it."""
FINISH_SECONDS = 8.0
"""That W&B may take for the last figures."""
END_SECONDS = 12.0
"""After the run's end, after which the child is ended."""
LOOK_SECONDS = 1.0
"""Between two looks at the metrics file."""
MOST_LETTERS = 400
"""Of what W&B says, in a message."""
DONE = "done"

_PRIVATE = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "host": "",
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Figures and hyperparameters are sent; nothing of the machine, its user or its code is."""


class WandbRun:
    """The trainer's end. `settings` has project, name, entity, tags and id; a run resumed goes on under its id."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], emit: Callable[[Mapping[str, Any]], None]) -> None:
        self._emit = emit
        self._heard = b""
        self._is_quiet = True
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Errors of wandb itself are reported to its makers unless this says no.
            env={**os.environ, "WANDB_ERROR_REPORTING": "false"},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._tell(json.dumps({"id": folder.name, **settings}))

    def listen(self) -> None:
        """Passes on what the child has said since."""
        assert self._process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while some := os.read(self._process.stdout.fileno(), 65536):
                self._heard += some
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._is_quiet = False
            self._emit(json.loads(line))

    def close(self) -> None:
        """Lets the child send the last figures, for as long as that may take, and ends it."""
        self._tell(DONE)
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.listen()
            problem = "has not answered" if self._is_quiet else "has not taken all figures"
            self._emit(_message("warn", f"W&B {problem} within {END_SECONDS:g} s of the run's end."))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.listen()
        self._process.stdout.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has said why it ended
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0])
    settings = json.loads(sys.stdin.readline())
    # Events have the output to themselves; what wandb prints goes where errors go.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    # A service manager tells every process of a service to end; the trainer is the one to say so here.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ending = _Ending()
    ending.start()
    try:
        run = _begun(folder, settings)
        events.write(json.dumps(_message("info", _where(run, folder))) + "\n")
        _follow(run, folder, ending)
        run.finish(exit_code=0 if ending.word == DONE else 1)
    except Exception as error:  # whatever wandb raises: the training goes on, and its owner is told
        problem = f"W&B does not show this run, or not all of it: {_shortened(error)}"
        events.write(json.dumps(_message("warn", problem)) + "\n")
        return 1
    return 0


class _Ending(threading.Thread):
    """Waits for the end of the run, and sees to it that this process does not outlive it by long."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.word = ""
        self.come = threading.Event()

    def run(self) -> None:
        self.word = sys.stdin.readline().strip()
        self.come.set()
        late = threading.Timer(END_SECONDS, os._exit, [1])
        late.daemon = True
        late.start()


def _begun(folder: Path, settings: Mapping[str, Any]) -> Any:
    import wandb

    known = wandb.Settings.model_fields
    private = {name: value for name, value in _PRIVATE.items() if name in known}
    return wandb.init(
        project=settings["project"],
        entity=settings.get("entity"),
        name=settings.get("name"),
        tags=settings.get("tags") or [],
        id=settings["id"],
        resume="allow",
        dir=str(folder),
        config=_config(folder),
        settings=wandb.Settings(
            init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True, **private
        ),
    )


def _where(run: Any, folder: Path) -> str:
    if run.offline:
        return f"W&B is offline: `wandb sync` sends what is in {folder.name}/wandb."
    return f"W&B shows this run at {run.url}"


def _follow(run: Any, folder: Path, ending: _Ending) -> None:
    """Logs step after step until the run has ended."""
    with Follower(folder / METRICS_FILE) as follower:
        while True:
            has_ended = ending.come.wait(LOOK_SECONDS)
            for row in follower.new_rows():
                step = int(row["step"])
                if step >= run.starting_step:  # the others it has from before an interruption
                    run.log({name: value for name, value in row.items() if name != "step"}, step=step)
            if has_ended:
                return


def _config(folder: Path) -> dict[str, Any]:
    """What the run is, for W&B's table of runs."""
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    training = about["data"]["training"]
    return {
        **about["hyperparameters"]["chosen"],
        "base": about["base"]["name"],
        "training_rows": training["rows"],
        "training_tokens": training["tokens"],
    }


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split())[:MOST_LETTERS] or type(error).__name__
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "(key)") if key else text


def _message(level: str, message: str) -> dict[str, str]:
    return {"type": "message", "level": level, "message": message}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
