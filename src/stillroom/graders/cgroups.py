"""One control group for one grader's process, where this process may make some: memory, processes, one core.

Both versions of the kernel's interface. Where none can be made (an ordinary user, most containers), the process has
its resource limits alone. Knows nothing of graders beyond the name.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
NAME = "stillroom-grader-"
REMOVE_SECONDS = 2.0  # the kernel lets a group go a little after its last process
PERIOD_MICROSECONDS = 100_000

_numbers = itertools.count()


class ControlGroup:
    """The folders of one group: one in version 2, one for each controller in version 1, none where none may be made."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders

    @classmethod
    def make(cls, *, memory_bytes: int, processes: int) -> ControlGroup:
        """A group with these limits, as far as this process may make one."""
        name = f"{NAME}{os.getpid()}-{next(_numbers)}"
        for parent in _version_2():
            if folder := _made(parent / name, _limits_2(memory_bytes, processes)):
                return cls([folder])
        limits = _limits_1(memory_bytes, processes)
        made = [_made(parent / name, limits[controller]) for controller, parent in _version_1().items()]
        return cls([folder for folder in made if folder])

    def entrances(self) -> list[str]:
        """The files into which a process writes its number to join."""
        return [str(folder / "cgroup.procs") for folder in self._folders]

    def remove(self) -> None:
        """Ends every process that is still in the group, and removes the group."""
        until = time.monotonic() + REMOVE_SECONDS
        for folder in self._folders:
            while not _removed(folder) and time.monotonic() < until:
                _kill(folder)
                time.sleep(0.005)


def sweep() -> None:
    """Removes what processes that were killed have left."""
    for parent in [*_version_2(), *_version_1().values()]:
        for folder in parent.glob(f"{NAME}*"):
            owner = folder.name.removeprefix(NAME).partition("-")[0]
            if not Path(f"/proc/{owner}").exists():
                _removed(folder)


def _kill(folder: Path) -> None:
    for pid in _read(folder / "cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _limits_1(memory_bytes: int, processes: int) -> dict[str, dict[str, str]]:
    return {
        "memory": {"memory.limit_in_bytes": str(memory_bytes)},
        "pids": {"pids.max": str(processes)},
        "cpu": {"cpu.cfs_period_us": str(PERIOD_MICROSECONDS), "cpu.cfs_quota_us": str(PERIOD_MICROSECONDS)},
    }


def _limits_2(memory_bytes: int, processes: int) -> dict[str, str]:
    cpu = f"{PERIOD_MICROSECONDS} {PERIOD_MICROSECONDS}"
    return {"memory.max": str(memory_bytes), "memory.swap.max": "0", "pids.max": str(processes), "cpu.max": cpu}


def _made(folder: Path, limits: dict[str, str]) -> Path | None:
    """The new group's folder, or None where it cannot be made or would limit nothing."""
    try:
        folder.mkdir()
    except OSError:
        return None
    held = [name for name, value in limits.items() if _written(folder / name, value)]
    if held and os.access(folder / "cgroup.procs", os.W_OK):
        return folder
    _removed(folder)
    return None


def _written(file: Path, value: str) -> bool:
    try:
        # Not created where it is not: a missing file is a controller that is not there.
        with file.open("r+") as opened:
            opened.write(value)
    except OSError:
        return False
    return True


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _version_1() -> dict[str, Path]:
    """The folder of our own group for each controller that we use."""
    ours = _memberships()
    found = {name: MOUNT / name / ours[name] for name in ("memory", "pids", "cpu") if name in ours}
    return {name: folder for name, folder in found.items() if folder.is_dir()}


def _version_2() -> list[Path]:
    """Groups below which one could be made: our own, and the one around it, whose controllers are handed down to us."""
    ours = _memberships().get("")
    if ours is None or not (MOUNT / "cgroup.controllers").exists():
        return []
    own = MOUNT / ours
    around = [own] if own == MOUNT else [own, own.parent]
    return [folder for folder in around if "memory" in _read(folder / "cgroup.subtree_control").split()]


def _memberships() -> dict[str, str]:
    """Controller -> our group's path; version 2's has the empty name."""
    found: dict[str, str] = {}
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path.lstrip("/")
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
