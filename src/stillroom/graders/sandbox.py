"""Runs the Python of a grader that nobody trusts: one source, one sandboxed process, many items.

Owns the process, its walls and its limits. The fence is bubblewrap: namespaces of its own, no network, a read-only
view of Python and nothing else of the machine, no capabilities, a seccomp filter, resource limits and, where one can
be made, a control group. What runs inside is `sandboxed.py`; of what it says, a finite number with the right token is
believed and nothing else. Knows nothing of evals.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import json
import logging
import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import InvalidRequest, PythonFailed, SandboxUnavailable
from stillroom.graders import cgroups, seccomp
from stillroom.graders.cgroups import ControlGroup

log = logging.getLogger(__name__)

MEGABYTE = 1024 * 1024
SOURCE_BYTES = 256 * 1024
REPLY_BYTES = 64 * 1024  # one line; a reply with its traceback has a tenth of it
TOLD_CHARACTERS = 4000  # of an error or its traceback
LARGEST = sys.float_info.max
STRAY_REPLIES = 100  # lines with another request's token that are passed over
START_SECONDS = 30.0
END_SECONDS = 5.0
PROGRAM = Path(__file__).with_name("sandboxed.py")
OPTION = "`[evals] unsafe_python_graders = true`"
NOBODY = "65534"
# Numbers that belong to no user of the machine (systemd takes its passing users from these too), one for each
# process, so that limits on one user's processes do not add up over several graders.
PASSING_USERS = (61184, 65519)
SUPERVISORS = 4  # bubblewrap's own processes inside the control group
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# Joins the control groups named by the first arguments, as far as the kernel lets it, then becomes the rest.
JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do { echo $$ >"$1"; } 2>/dev/null; shift; n=$((n-1)); done; exec "$@"'


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What one grader's process may use."""

    wall_seconds: float = 120.0
    """For one item; the first one's includes loading the source."""
    memory_bytes: int = 2048 * MEGABYTE
    """Of each process, and of all together where there is a control group."""
    disk_bytes: int = 64 * MEGABYTE
    """Of the private /tmp, which counts as memory too, and of one file."""
    processes: int = 64
    """Processes and threads."""
    open_files: int = 256


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """What the process answered, as far as it can be believed: an error's words, or a finite score, or neither."""

    error: str | None = None
    traceback: str = ""
    score: float | None = None


class _Gone(Exception):
    """The process ended, or what it says cannot be used."""


class PythonGrader:
    """One grader's source, ready to grade items one after the other. Close it when done with it."""

    def __init__(self, source: str, limits: SandboxLimits, *, unsafe: bool) -> None:
        self._source = source
        self._limits = limits
        self._unsafe = unsafe
        self._turn = asyncio.Lock()
        self._process: _Process | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._unloadable: PythonFailed | None = None
        self._closed = False
        self.started_processes = 0

    @classmethod
    async def start(cls, source: str, limits: SandboxLimits, *, unsafe: bool = False) -> PythonGrader:
        """A grader whose process starts with its first item.

        Raises SandboxUnavailable where the machine has no sandbox. `unsafe` is the operator's word that the source
        may run as the server's own user, outside the sandbox, on this machine.
        """
        if len(source.encode(errors="replace")) >= SOURCE_BYTES:
            raise InvalidRequest(
                f"The grader's source has {len(source.encode(errors='replace')):,} bytes; it must be smaller than "
                f"{SOURCE_BYTES:,}.",
                param="source",
            )
        if unsafe:
            _warn_once()
        elif problem := await asyncio.to_thread(why_unavailable):
            raise SandboxUnavailable(problem)
        return cls(source, limits, unsafe=unsafe)

    async def grade(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        """The score of one item. Raises PythonFailed; the next item is graded whatever this one did."""
        async with self._turn:
            reused = self._process is not None
            try:
                return await self._attempt(sample, item)
            except _Gone as gone:
                if not reused:
                    raise _failed(gone) from gone
            try:
                # What an earlier item left behind may have done it: this one gets a process of its own.
                return await self._attempt(sample, item)
            except _Gone as gone:
                raise _failed(gone) from gone

    async def close(self) -> None:
        """Ends the process and waits until nothing of it is left."""
        self._closed = True
        self._end()
        while self._endings:
            await asyncio.gather(*self._endings)

    async def _attempt(self, sample: Mapping[str, Any], item: Mapping[str, Any]) -> float:
        if self._unloadable is not None:
            raise copy.copy(self._unloadable)
        try:
            process = self._process or await self._start()
            async with asyncio.timeout(self._limits.wall_seconds):
                if not process.loaded:
                    await self._load(process)
                reply = await process.ask({"sample": sample, "item": item})
                if reply.error is None and reply.score is None:
                    raise _Gone("replied without a score")
        except TimeoutError as error:
            raise self._timed_out() from error
        except BaseException as error:
            ending = self._end()
            if isinstance(error, _Gone) and ending is not None:
                await asyncio.shield(ending)
            raise
        if reply.score is None:
            raise _told(reply, "The grader failed")
        return reply.score

    async def _start(self) -> _Process:
        if self._closed:
            raise PythonFailed("The grader was closed.", where="server")
        self._process = _Process(self._limits, unsafe=self._unsafe)
        self.started_processes += 1
        await self._process.start()
        return self._process

    async def _load(self, process: _Process) -> None:
        reply = await process.ask({"source": self._source})
        if reply.error is not None:
            self._unloadable = _told(reply, "The grader's source could not be loaded")
            raise copy.copy(self._unloadable)
        process.loaded = True

    def _end(self) -> asyncio.Task[None] | None:
        """Kills the process, now; the task sees to the rest."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        ending = asyncio.create_task(process.end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    def _timed_out(self) -> PythonFailed:
        """Ends the process. A source that did not even load in the time is not tried again."""
        loading = self._process is not None and not self._process.loaded
        self._end()
        failed = PythonFailed(
            f"The grader took longer than {self._limits.wall_seconds:g} seconds for one item and was ended.",
            where="runtime",
            timed_out=True,
        )
        if loading:
            self._unloadable = failed
        return failed


def _failed(gone: _Gone) -> PythonFailed:
    return PythonFailed(f"The grader's process {gone}.", where="runtime")


def _told(reply: _Reply, what: str) -> PythonFailed:
    return PythonFailed(f"{what}: {reply.error}", where="runtime", traceback=reply.traceback)


class _Process:
    """One process that runs `sandboxed.py`, inside the sandbox unless told otherwise."""

    def __init__(self, limits: SandboxLimits, *, unsafe: bool) -> None:
        self.loaded = False
        self._limits = limits
        self._unsafe = unsafe
        self._group: ControlGroup | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._gone: list[int] = []
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """Starts it and waits until it listens. Raises PythonFailed when that is not to be had."""
        # A few small files, written here and now: in a thread, a cancelled call would leave them behind.
        self._group = _group(self._limits)
        try:
            pipe = self._launch(self._group)
            self._reader, self._writer = await asyncio.open_connection(sock=pipe, limit=REPLY_BYTES)
            async with asyncio.timeout(START_SECONDS):
                if (await self._reply()).get("ready") is not True:
                    raise _Gone("did not begin as it should")
        except (_Gone, OSError) as error:  # TimeoutError is an OSError
            raise PythonFailed(f"The sandbox did not start: {self._complaint() or error}", where="server") from error

    def _launch(self, group: ControlGroup) -> socket.socket:
        """Our end of the pipe.

        Not through the event loop: uvloop's processes inherit every descriptor that is not closed on exec, and in a
        thread, the end of that thread would end the process.
        """
        ours, theirs = socket.socketpair()
        with theirs, _filter(none=self._unsafe) as descriptors:
            try:
                command = _unsafe(self._limits) if self._unsafe else _bubblewrapped(self._limits, *descriptors)
                self._process = subprocess.Popen(
                    _joining(group, command),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    pass_fds=descriptors,
                    env=ENVIRONMENT if self._unsafe else {},
                    cwd="/",
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return ours

    async def ask(self, request: dict[str, Any]) -> _Reply:
        """The reply to this request. Raises _Gone when there is none that can be used."""
        assert self._writer is not None
        token = secrets.token_hex(16)
        try:
            line = json.dumps({"token": token, **request}).encode() + b"\n"
        except (ValueError, TypeError, RecursionError) as error:
            raise PythonFailed(f"The item cannot be handed to the grader: {error}", where="server") from error
        try:
            self._writer.write(line)
            await self._writer.drain()
        except OSError as error:
            raise _Gone(await self._how_it_ended()) from error
        for _ in range(STRAY_REPLIES):
            reply = await self._reply()
            if reply.get("token") == token:
                return _checked(reply)
        raise _Gone("answered what it was not asked")

    async def _reply(self) -> dict[str, Any]:
        assert self._reader is not None
        try:
            line = await self._reader.readline()
        except OSError as error:
            raise _Gone(await self._how_it_ended()) from error
        except ValueError as error:
            raise _Gone(f"wrote more than {REPLY_BYTES:,} bytes without an end") from error
        if not line.endswith(b"\n"):
            raise _Gone(await self._how_it_ended())
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _Gone("wrote something that is no reply") from error
        if not isinstance(reply, dict):
            raise _Gone("wrote something that is no reply")
        return reply

    def kill(self) -> None:
        """Ends it and all that it started, now."""
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._unsafe:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._gone += _kill_sandbox(self._process.pid)

    async def end(self) -> None:
        """Waits until it is gone and tidies up after it."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        await asyncio.to_thread(self._tidy)

    def _tidy(self) -> None:
        if self._process is not None:
            self._process.wait()
            _wait_and_close(self._gone)  # bubblewrap's death comes before that of what it watched
            self._gone.clear()
            assert self._process.stderr is not None
            self._process.stderr.close()
        if self._group is not None:
            self._group.remove()

    async def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            status = await asyncio.to_thread(self._process.wait, 1.0)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        number = -status if status < 0 else status - 128  # bubblewrap tells a signal as 128 and more
        if number == signal.SIGKILL:
            return f"was killed; most often that means more memory than {self._limits.memory_bytes // MEGABYTE:,} MB"
        if number in set(signal.Signals):
            return f"ended by {signal.Signals(number).name}"
        return f"ended with status {status} and without an answer"

    def _complaint(self) -> str:
        """What it wrote on standard error until its program took over."""
        self.kill()
        if self._process is None or self._process.stderr is None:
            return ""
        os.set_blocking(self._process.stderr.fileno(), False)
        return (self._process.stderr.read(2000) or b"").decode(errors="replace").strip()


def _checked(reply: dict[str, Any]) -> _Reply:
    error, score = reply.get("error"), reply.get("score")
    if isinstance(error, str):
        return _Reply(error=error[:TOLD_CHARACTERS], traceback=str(reply.get("traceback", ""))[:TOLD_CHARACTERS])
    if score is None:
        return _Reply()
    if isinstance(score, bool) or not isinstance(score, float | int) or not -LARGEST <= score <= LARGEST:
        raise _Gone("wrote a score that is no finite number")
    return _Reply(score=float(score))


def _kill_sandbox(pid: int) -> list[int]:
    """Kills bubblewrap and the first process of its namespace, with which the kernel ends all others in it.

    bubblewrap is stopped first, so that none is born while we look. Its own death would be told to its child too, but
    not in the moment after the child's birth. Gives a file descriptor for each child, readable when it is gone.
    """
    gone = []
    os.kill(pid, signal.SIGSTOP)
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            gone.append(os.pidfd_open(int(child)))
            signal.pidfd_send_signal(gone[-1], signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    return gone


def _wait_and_close(gone: list[int]) -> None:
    for descriptor in gone:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(END_SECONDS * 1000)
        os.close(descriptor)


@functools.cache
def _warn_once() -> None:
    log.warning(
        "Python graders run outside the sandbox, as this server's own user: %s. Whoever may create an eval can read "
        "and change what this server can.",
        OPTION,
    )


def why_unavailable() -> str | None:
    """None when Python graders can be sandboxed on this machine; else what is missing and what to do."""
    if sys.platform != "linux":
        return _unavailable("that needs Linux")
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        return _unavailable("bubblewrap (the program `bwrap`) is not installed; `apt-get install bubblewrap` adds it")
    if not seccomp.supported():
        return _unavailable(f"there is no system call filter for {os.uname().machine}, only for x86_64 and aarch64")
    complaint = _trial(bubblewrap)
    return _unavailable(f"bubblewrap cannot make a sandbox here ({complaint})") if complaint else None


def _unavailable(reason: str) -> str:
    return (
        f"Python graders run in a sandbox, and {reason}. An operator who trusts everybody who may create evals can set "
        f"{OPTION} to run them without."
    )


_tried: set[str] = set()


def _trial(bubblewrap: str) -> str:
    """What goes wrong when a sandbox is started; empty when it works. A success is remembered."""
    if bubblewrap in _tried:
        return ""
    with _filter() as descriptors:
        command = _bubblewrapped(SandboxLimits(), *descriptors)
        tried = subprocess.run(
            command, input=b"", capture_output=True, env={}, pass_fds=descriptors, timeout=START_SECONDS, check=False
        )
    if tried.returncode == 0 and b"ready" in tried.stdout:
        _tried.add(bubblewrap)
        return ""
    return tried.stderr.decode(errors="replace").strip()[-300:] or f"it ended with status {tried.returncode}"


@contextlib.contextmanager
def _filter(*, none: bool = False) -> Iterator[tuple[int, ...]]:
    """The file descriptor from which bubblewrap reads the seccomp filter."""
    if none:
        yield ()
        return
    descriptor = os.memfd_create("seccomp", 0)
    try:
        os.write(descriptor, seccomp.program())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield (descriptor,)
    finally:
        os.close(descriptor)


def _group(limits: SandboxLimits) -> ControlGroup:
    _sweep_once()
    return ControlGroup.make(memory_bytes=limits.memory_bytes, processes=limits.processes + SUPERVISORS)


@functools.cache
def _sweep_once() -> None:
    cgroups.sweep()


def _joining(group: ControlGroup, command: Sequence[str]) -> list[str]:
    entrances = group.entrances()
    return ["/bin/sh", "-c", JOIN, "sh", str(len(entrances)), *entrances, *command] if entrances else [*command]


def _unsafe(limits: SandboxLimits) -> list[str]:
    return [sys.executable, "-I", "-S", "-B", str(PROGRAM), _confinement(limits, user=None, alone=False)]


def _bubblewrapped(limits: SandboxLimits, filter_fd: int) -> list[str]:
    """bubblewrap's command line.

    Root starts it as root and steps down to a passing user inside, so that Python may lie in root's own folders and
    the kernel's rules for ordinary users hold. Anybody else needs a user namespace.
    """
    as_root = os.geteuid() == 0
    user = random.randint(*PASSING_USERS) if as_root else None
    bubblewrap = shutil.which("bwrap") or "bwrap"
    return [
        bubblewrap,
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *(() if as_root else ("--unshare-user", "--uid", NOBODY, "--gid", NOBODY)),
        *("--die-with-parent", "--new-session", "--hostname", "grader", "--cap-drop", "ALL"),
        *(("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID") if as_root else ()),
        *("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", "/tmp"),  # noqa: S108
        *_python(),
        *("--ro-bind", str(PROGRAM), f"/{PROGRAM.name}", "--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
        *("--clearenv", *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value))),
        *("--seccomp", str(filter_fd), "--"),
        *(os.path.realpath(sys.executable), "-I", "-S", "-B", f"/{PROGRAM.name}"),
        _confinement(limits, user=user, alone=True),
    ]


def _python() -> list[str]:
    """Read-only views of what this Python needs, and of the packages installed beside it."""
    words = ["--ro-bind", "/usr", "/usr", "--perms", "0755", "--dir", "/etc"]
    words += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in ("bin", "lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        else:
            words += ["--ro-bind-try", str(path), str(path)]
    for folder in (sys.base_prefix, *_packages()):
        if not Path(folder).is_relative_to("/usr"):
            # Folders on the way get the rights of a private folder unless told otherwise.
            for parent in [*reversed(Path(folder).parents)][1:]:
                words += ["--perms", "0755", "--dir", str(parent)]
            words += ["--ro-bind", folder, folder]
    return words


def _packages() -> list[str]:
    """The environment's folders of installed packages."""
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def _confinement(limits: SandboxLimits, *, user: int | None, alone: bool) -> str:
    """What `sandboxed.py` does to itself before it loads the source."""
    resources = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_CORE": 0,
    }
    if not alone:
        del resources["RLIMIT_NPROC"]  # it would count every process of the server's user
        if sys.platform == "darwin":
            del resources["RLIMIT_AS"]  # refused there
    return json.dumps(
        {
            "limits": resources,
            "wall_seconds": limits.wall_seconds,
            "core": random.randrange(1024),
            "packages": _packages(),
            "user": user,
            "alone": alone,
        }
    )
