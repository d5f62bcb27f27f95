"""Python graders in their sandbox: scores, failures, one process for many items, and the machines that have none."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import pickle
import platform
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stillroom.errors import InvalidRequest, PythonFailed, SandboxUnavailable
from stillroom.graders import cgroups, sandbox, seccomp
from stillroom.graders.sandbox import PythonGrader, SandboxLimits, why_unavailable

unavailable = why_unavailable()
sandboxed = pytest.mark.skipif(unavailable is not None, reason=str(unavailable))

LENGTH = "def grade(sample, item):\n    return len(sample['output_text']) / item['length']\n"
EVALUATE = "import os, time\nstate = {}\ndef grade(sample, item):\n    return eval(item['python'])\n"

Use = Callable[[PythonGrader], Awaitable[Any]]


def using(source: str, use: Use, *, unsafe: bool = False, **limits: Any) -> Any:
    async def run() -> Any:
        grader = await PythonGrader.start(source, SandboxLimits(**limits), unsafe=unsafe)
        try:
            return await use(grader)
        finally:
            await grader.close()

    return asyncio.run(run())


def evaluated(*pythons: str, **limits: Any) -> list[float]:
    """What a grader gets for each expression, one after the other in the same process."""

    async def use(grader: PythonGrader) -> list[float]:
        return [await grader.grade({}, {"python": python}) for python in pythons]

    return list(using(EVALUATE, use, **limits))


def failure(source: str, item: dict[str, Any] | None = None, **limits: Any) -> PythonFailed:
    async def use(grader: PythonGrader) -> None:
        await grader.grade({}, item or {})

    with pytest.raises(PythonFailed) as raised:
        using(source, use, **limits)
    return raised.value


@sandboxed
def test_a_grader_sees_sample_and_item_and_gives_a_score() -> None:
    async def use(grader: PythonGrader) -> float:
        return await grader.grade({"output_text": "four"}, {"length": 8})

    assert using(LENGTH, use) == 0.5


@sandboxed
def test_a_truth_counts_as_1_and_what_is_false_as_0() -> None:
    assert evaluated("1 < 2", "1 > 2", "True + True") == [1.0, 0.0, 2.0]


@sandboxed
@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_a_thousand_items_take_one_process(loop: Callable[[Any], Any]) -> None:
    async def run() -> tuple[list[float], int]:
        grader = await PythonGrader.start(LENGTH, SandboxLimits())
        try:
            items = [{"length": i + 1} for i in range(1000)]
            scores = await asyncio.gather(*(grader.grade({"output_text": "x"}, item) for item in items))
            return scores, grader.started_processes
        finally:
            await grader.close()

    scores, started = loop(run())
    assert scores == [1 / (i + 1) for i in range(1000)]  # each its own, however they were queued
    assert started == 1


@sandboxed
def test_no_process_is_started_before_the_first_item() -> None:
    async def use(grader: PythonGrader) -> int:
        return grader.started_processes

    assert using(LENGTH, use) == 0


@sandboxed
def test_the_failure_shows_the_graders_own_lines() -> None:
    failed = failure("def inner(item):\n    return item['missing']\ndef grade(sample, item):\n    return inner(item)\n")
    assert failed.message == "The grader failed: KeyError: 'missing'"
    assert failed.where == "runtime"
    assert failed.details["traceback"].splitlines() == [
        "Traceback (most recent call last):",
        '  File "<grader>", line 4, in grade',
        "    return inner(item)",
        "           ^^^^^^^^^^^",
        '  File "<grader>", line 2, in inner',
        "    return item['missing']",
        "           ~~~~^^^^^^^^^^^",
        "KeyError: 'missing'",
    ]
    assert pickle.loads(pickle.dumps(failed)).details == failed.details


@sandboxed
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def grade(sample, item) return 1", "SyntaxError"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("x = 1", "defines no function `grade(sample, item)`"),
        ("import absent_module", "No module named 'absent_module'"),
        ("def grade(sample, item): return 'good'", "'good' (str), which is no number"),
        ("def grade(): return 1", "takes 0 positional arguments"),
        ("x = '\\x00'\n\x00", "null bytes"),
        ("x = '\ud800'", "surrogates"),
    ],
)
def test_a_source_that_cannot_grade_is_told_so(source: str, words: str) -> None:
    failed = failure(source)
    assert words in failed.message
    assert failed.where == "runtime"


@sandboxed
def test_a_source_that_cannot_be_loaded_is_not_loaded_for_every_item() -> None:
    async def use(grader: PythonGrader) -> int:
        for _ in range(5):
            with pytest.raises(PythonFailed, match="could not be loaded"):
                await grader.grade({}, {})
        return grader.started_processes

    assert using("1 / 0", use) == 1


@sandboxed
def test_a_source_that_takes_too_long_to_load_is_waited_for_once() -> None:
    async def use(grader: PythonGrader) -> float:
        before = time.monotonic()
        for _ in range(100):
            with pytest.raises(PythonFailed, match="took longer than 1 seconds"):
                await grader.grade({}, {})
        return time.monotonic() - before

    assert using("import time; time.sleep(600)", use, wall_seconds=1) < 30


@sandboxed
@pytest.mark.parametrize("value", ["1", "0.25", "10**15", "__import__('fractions').Fraction(1, 4)", "-0.0"])
def test_every_kind_of_number_is_a_score(value: str) -> None:
    assert evaluated(value) == [float(eval(value))]


@sandboxed
def test_a_graders_packages_are_those_installed_beside_stillroom() -> None:
    assert evaluated("len(__import__('msgspec').json.encode([1, 2]))") == [5.0]


@sandboxed
def test_classes_of_a_source_find_their_module() -> None:
    source = """
from dataclasses import dataclass
@dataclass
class Point:
    x: "int"
def grade(sample, item):
    import pickle
    return pickle.loads(pickle.dumps(Point(3))).x
"""

    async def use(grader: PythonGrader) -> float:
        return await grader.grade({}, {})

    assert using(source, use) == 3.0


@sandboxed
def test_items_of_any_shape_reach_the_grader_unchanged() -> None:
    item: dict[str, Any] = {
        "text": 'zwölf \u2028 😀 \\ " \n \ud800',
        "none": None,
        "deep": [[[{"a": [1.5, -2, True]}]]],
        "": {},
    }

    async def use(grader: PythonGrader) -> float:
        return await grader.grade({"item": item}, item)

    assert using(
        "def grade(sample, item): return len(item['text']) + 100 * (sample['item'] == item)", use
    ) == 100 + len(item["text"])


@sandboxed
def test_an_item_too_deep_for_json_fails_alone() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    async def use(grader: PythonGrader) -> float:
        with pytest.raises(PythonFailed, match="cannot be handed"):
            await grader.grade({}, {"python": deep})
        return await grader.grade({}, {"python": "1"})

    assert using(EVALUATE, use) == 1.0
    while deep:  # a recursive release would overflow the stack
        deep = deep.pop()


@sandboxed
def test_what_ends_the_process_fails_one_item_and_the_next_gets_a_new_one() -> None:
    async def use(grader: PythonGrader) -> tuple[float, int]:
        assert await grader.grade({}, {"python": "1"}) == 1.0
        with pytest.raises(PythonFailed, match="status 3"):
            await grader.grade({}, {"python": "os._exit(3)"})
        return await grader.grade({}, {"python": "2"}), grader.started_processes

    score, started = using(EVALUATE, use)
    assert score == 2.0
    assert started == 3  # the first, one more for the item that ended it, in case it was not to blame, and the next


@sandboxed
def test_an_item_is_graded_although_an_earlier_one_left_a_bomb() -> None:
    bomb = "__import__('signal').setitimer(0, 0.1) and 0.0 or 0.0"
    assert evaluated(bomb, "time.sleep(0.3) or 1.0") == [0.0, 1.0]


@sandboxed
def test_what_an_item_leaves_running_ends_with_it() -> None:
    leave = "(os.fork() or (time.sleep(600), os._exit(0))) and 0.0"
    count = "len([name for name in os.listdir('/proc') if name.isdigit()])"
    assert evaluated(count, leave, count) == [2.0, 0.0, 2.0]  # bubblewrap's and its own


@sandboxed
def test_an_item_that_takes_too_long_fails_alone() -> None:
    async def use(grader: PythonGrader) -> float:
        before = time.monotonic()
        with pytest.raises(PythonFailed, match=r"took longer than 1\.5 seconds"):
            await grader.grade({}, {"python": "time.sleep(60)"})
        assert time.monotonic() - before < 20
        return await grader.grade({}, {"python": "1"})

    assert using(EVALUATE, use, wall_seconds=1.5) == 1.0


@sandboxed
def test_a_cancelled_call_ends_the_process_and_the_next_is_graded() -> None:
    async def use(grader: PythonGrader) -> float:
        call = asyncio.create_task(grader.grade({}, {"python": "time.sleep(600)"}))
        waiting = asyncio.create_task(grader.grade({}, {"python": "1"}))
        await asyncio.sleep(0.3)
        before = time.monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        score = await waiting
        assert time.monotonic() - before < 20
        return score

    assert using(EVALUATE, use) == 1.0


@sandboxed
@pytest.mark.parametrize("milliseconds", [0, 1, 3, 6, 10, 15, 25, 40])
def test_a_call_cancelled_while_its_process_starts_leaves_nothing(milliseconds: int) -> None:
    async def use(grader: PythonGrader) -> None:
        call = asyncio.create_task(grader.grade({}, {"python": "time.sleep(600)"}))
        await asyncio.sleep(milliseconds / 1000)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    mark = 600 + os.getpid() / 10**6
    using(EVALUATE, use, wall_seconds=mark)
    assert not running(str(mark))


@sandboxed
def test_closing_ends_what_is_being_graded() -> None:
    async def use(grader: PythonGrader) -> None:
        call = asyncio.create_task(grader.grade({}, {"python": "time.sleep(600)"}))
        await asyncio.sleep(0.3)
        await grader.close()
        with pytest.raises(PythonFailed):
            await call
        with pytest.raises(PythonFailed, match="closed") as raised:
            await grader.grade({}, {"python": "1"})
        assert raised.value.where == "server"

    using(EVALUATE, use)


@sandboxed
def test_a_grader_has_one_core_and_its_limits() -> None:
    limit = "__import__('resource').getrlimit(__import__('resource').RLIMIT_{})[{}]"
    kinds = ("AS", "NPROC", "NOFILE", "FSIZE", "CORE")
    assert evaluated(
        "len(os.sched_getaffinity(0))",
        *(limit.format(kind, hardness) for kind in kinds for hardness in (0, 1)),
        memory_bytes=512 * sandbox.MEGABYTE,
        disk_bytes=3 * sandbox.MEGABYTE,
        processes=7,
        open_files=33,
    ) == [1, *[512 * sandbox.MEGABYTE] * 2, 7, 7, 33, 33, *[3 * sandbox.MEGABYTE] * 2, 0, 0]


@sandboxed
def test_a_grader_is_nobody_without_capabilities_behind_a_filter() -> None:
    status = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('{}:')][0]"
    expected = {"CapEff": 0, "CapPrm": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}
    values = evaluated(*(f"int({status.format(name)}, 16)" for name in expected), "os.getuid()", "os.getgid()")
    assert values[:-2] == list(expected.values())
    assert all(value >= sandbox.PASSING_USERS[0] for value in values[-2:])


def test_a_source_of_256_kilobytes_is_refused() -> None:
    async def start(source: str) -> None:
        await (await PythonGrader.start(source, SandboxLimits(), unsafe=True)).close()

    asyncio.run(start("#" * (256 * 1024 - 1)))
    with pytest.raises(InvalidRequest, match="262,144 bytes"):
        asyncio.run(start("#" * 256 * 1024))


def test_a_machine_without_bubblewrap_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    problem = why_unavailable()
    assert problem is not None
    assert "bubblewrap (the program `bwrap`) is not installed; `apt-get install bubblewrap` adds it" in problem
    assert "`[evals] unsafe_python_graders = true`" in problem
    with pytest.raises(SandboxUnavailable) as raised:
        asyncio.run(PythonGrader.start(LENGTH, SandboxLimits()))
    assert raised.value.message == problem


def test_a_bubblewrap_that_may_not_work_here_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert "cannot make a sandbox here (bwrap: setting up uid map: Permission denied)" in str(why_unavailable())


def test_a_machine_without_a_filter_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "only for x86_64 and aarch64" in str(why_unavailable())


@sandboxed
def test_a_sandbox_that_stops_working_is_the_servers_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: no more namespaces' >&2; exit 1\n")
    program.chmod(0o755)

    async def use(grader: PythonGrader) -> float:
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
            with pytest.raises(PythonFailed, match="did not start: bwrap: no more namespaces") as raised:
                await grader.grade({}, {"python": "1"})
            assert raised.value.where == "server"
        return await grader.grade({}, {"python": "1"})

    assert using(EVALUATE, use) == 1.0


def test_without_the_sandbox_a_grader_still_has_its_own_process_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")  # no bubblewrap is needed
    monkeypatch.setenv("STILLROOM_TEST_SECRET", "x")

    async def use(grader: PythonGrader) -> list[float]:
        pythons = (
            "'STILLROOM_TEST_SECRET' in os.environ and 1.0 or 0.0",
            "os.getpid()",
            "len(os.sched_getaffinity(0))",
            "__import__('resource').getrlimit(__import__('resource').RLIMIT_AS)[0]",
        )
        scores = [await grader.grade({}, {"python": python}) for python in pythons]
        with pytest.raises(PythonFailed, match="took longer"):
            await grader.grade({}, {"python": "time.sleep(600)"})
        with pytest.raises(PythonFailed, match="MemoryError"):
            await grader.grade({}, {"python": "len(bytearray(1 << 30))"})
        return scores

    secrets, pid, cores, memory = using(EVALUATE, use, unsafe=True, wall_seconds=1.5, memory_bytes=1 << 29)
    assert (secrets, cores, memory) == (0.0, 1.0, 1 << 29)
    assert pid != os.getpid()
    assert not Path(f"/proc/{pid:.0f}").exists()


def test_the_operator_is_warned_once_that_there_is_no_sandbox(caplog: pytest.LogCaptureFixture) -> None:
    sandbox._warn_once.cache_clear()

    async def use(grader: PythonGrader) -> None: ...

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            using(LENGTH, use, unsafe=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "outside the sandbox" in caplog.text


def test_control_groups_of_a_server_that_is_gone_are_swept() -> None:
    group = cgroups.ControlGroup.make(memory_bytes=1 << 26, processes=4)
    folders = [Path(entrance).parent for entrance in group.entrances()]
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    left = [folder.with_name(f"{cgroups.NAME}{gone.pid}-0") for folder in folders]
    for folder in left:
        folder.mkdir()
    cgroups.sweep()
    assert not any(folder.exists() for folder in left)
    assert all(folder.exists() for folder in folders)  # ours is in use
    group.remove()
    assert not any(folder.exists() for folder in folders)


VERDICTS = {seccomp.ALLOW: "allow", seccomp.KILL: "kill", seccomp.ERROR | errno.EPERM: "refuse"}
VERDICTS[seccomp.ERROR | errno.ENOSYS] = "unknown"


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> str:
    """What the kernel would say: the few instructions of classic BPF that the filter uses."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *(arguments + (0,) * 6)[:6])
    lines = list(struct.iter_unpack("=HBBI", program))
    accumulator, position = 0, 0
    while True:
        code, when_true, when_false, value = lines[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return VERDICTS[value]
        else:
            held = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            position += when_true if held else when_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_what_it_names_and_allows_the_rest(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program = seccomp.program()
    audit, column = seccomp.ARCHITECTURES[machine]
    other, _ = seccomp.ARCHITECTURES["aarch64" if machine == "x86_64" else "x86_64"]

    def says(number: int | None, *arguments: int) -> str:
        assert number is not None
        return verdict(program, audit, number, *arguments)

    refused = {numbers[column] for numbers in seccomp.REFUSED.values()} - {None}
    judged = {number: says(number) for number in range(600)}
    special = {table[column] for table in (seccomp.CLONE, seccomp.CLONE3, seccomp.SOCKET, seccomp.SOCKETPAIR)}
    assert {number for number, said in judged.items() if said == "refuse"} - special == refused
    assert len(program) // 8 < 4096  # the kernel's own limit

    assert verdict(program, other, 0) == "kill"
    assert says(seccomp.X32 + 1) == "kill"
    assert says(seccomp.CLONE3[column]) == "unknown"
    assert says(seccomp.CLONE[column], 0x11) == "allow"  # fork
    assert says(seccomp.CLONE[column], 0x3D0F00) == "allow"  # a thread
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert says(seccomp.CLONE[column], flag | 0x11) == "refuse"
    for call in (seccomp.SOCKET[column], seccomp.SOCKETPAIR[column]):
        assert says(call, socket.AF_UNIX) == "allow"
        assert {says(call, family) for family in range(50) if family != socket.AF_UNIX} == {"refuse"}
    assert says(seccomp.IOCTL[column], 0, 0x5401) == "allow"
    assert says(seccomp.IOCTL[column], 0, 0x5412) == "refuse"
    assert says(seccomp.IOCTL[column], 0, 0xFFFFFFFF00005412) == "refuse"  # the kernel reads the low half


def running(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_text()
            if mark in line:
                found.append(line)
    return found
