"""What a hostile Python grader tries: each attack is contained, the next honest item is graded, nothing is left.

An attack is the body of a function. Reaching its end is the harm; it is contained by an exception, by its process's
end, or by a 0.0 that it returns when it finds nothing. The controls run some of them outside the sandbox, where they
must succeed: so these tests see harm where there is some.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import PythonFailed
from stillroom.graders import cgroups, sandbox
from stillroom.graders.cgroups import MOUNT, NAME, ControlGroup
from stillroom.graders.sandbox import MEGABYTE, PythonGrader, SandboxLimits, why_unavailable

unavailable = why_unavailable()
pytestmark = pytest.mark.skipif(unavailable is not None, reason=str(unavailable))

HARM = 666.0
HONEST = 1.0
SECRET = "a-secret-of-the-host"
PATIENT, IMPATIENT = 30.0, 1.5
# Stands in the command line of every process that these tests start, and of no other.
MARK = os.getpid() / 10**9

PRELUDE = """
import os, sys

def libc(name, *arguments):
    import ctypes
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def private_pipe():
    links = {number: os.readlink(f"/proc/self/fd/{number}") for number in (3, 4)}
    return min(number for number, link in links.items() if link.startswith("socket:"))

def reply(text):
    frame = sys._getframe()
    while "request" not in frame.f_locals:
        frame = frame.f_back
    line = text.replace("TOKEN", frame.f_locals["reply"]["token"])
    os.write(private_pipe(), line.encode(errors="surrogateescape") + b"\\n")
    return 0.0

def attack(item):
%s
    return 666.0

def grade(sample, item):
    return attack(item) if item.get("attack") else 1.0
"""


@dataclass(frozen=True)
class Attack:
    name: str
    body: str
    ends: str
    """What the score's repr or the failure's message must match."""
    wall_seconds: float = PATIENT

    @property
    def source(self) -> str:
        return PRELUDE % textwrap.indent(textwrap.dedent(self.body).strip(), "    ")


def attacks() -> Iterator[Attack]:
    yield from looking()
    yield from calling_out()
    yield from using_up()
    yield from lying()
    yield from dying()
    yield from breaking_out()
    yield from writing()
    if _group_can_be_made():
        yield from using_up_memory_by_stealth()
    if platform.machine() == "x86_64":
        yield from through_other_doors()


MISSING = "FileNotFoundError"
DENIED = "PermissionError"
READ_ONLY = r"Read-only file system|PermissionError"
TOO_LONG = "took longer than"


def looking() -> Iterator[Attack]:
    yield Attack("reads a file of the host", "open(item['file']).read()", MISSING)
    yield Attack("lists the data folder", "os.listdir(item['folder'])", MISSING)
    yield Attack("reads /etc/passwd", "open('/etc/passwd').read()", MISSING)
    yield Attack("reads /etc/shadow by way of ..", "open('/usr/../../../etc/shadow').read()", MISSING)
    yield Attack("reads through a symbolic link", "os.symlink(item['file'], '/tmp/x'); open('/tmp/x').read()", MISSING)
    yield Attack("reads through the first process's root", "open('/proc/1/root' + item['file'])", f"{MISSING}|{DENIED}")
    yield Attack("looks into the home folders", "os.listdir('/home')", MISSING)
    yield Attack("reads a secret of the environment", "os.environ[item['variable']]", "KeyError")
    yield Attack(
        "reads the environment of every process",
        """
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if item["secret"].encode() in open(f"/proc/{name}/environ", "rb").read():
                    return 666.0
            except OSError:
                pass
        return 0.0
        """,
        "0.0",
    )
    yield Attack(
        "uses a file that the server left open",
        """
        links = [os.readlink(path) for number in range(3, 400) if os.path.lexists(path := f"/proc/self/fd/{number}")]
        if item["file"] not in links:
            return 0.0
        """,
        "0.0",
    )
    yield Attack("lists the kernel's devices", "os.listdir('/sys')", MISSING)
    yield Attack("reads the machine's memory", "open('/dev/mem', 'rb').read(1)", MISSING)
    yield Attack("reads the kernel's messages", "open('/proc/kmsg').read(1)", DENIED)
    yield Attack("reads the first process's memory", "open('/proc/1/mem', 'rb').read(1)", f"{DENIED}|Input/output")
    yield Attack(
        "looks for an earlier item",
        """
        import gc
        for thing in gc.get_objects():
            if isinstance(thing, dict) and item["earlier"][::-1] in map(str, list(thing.values())):
                return 666.0
        return 0.0
        """,
        "0.0",
    )


def calling_out() -> Iterator[Attack]:
    yield Attack(
        "connects to the network",
        "import socket; socket.create_connection(('127.0.0.1', item['port']), 2).send(b'x')",
        DENIED,
    )
    yield Attack(
        "sends a datagram",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
        DENIED,
    )
    yield Attack("asks the name service", "import socket; socket.getaddrinfo('example.com', 80)", "gaierror|OSError")
    yield Attack(
        "asks the cloud's metadata service",
        "import urllib.request; urllib.request.urlopen('http://169.254.169.254/latest/', timeout=2)",
        "URLError",
    )
    yield Attack("opens a netlink socket", "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", DENIED)
    yield Attack("opens a vsock", "import socket; socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", DENIED)
    yield Attack("connects to a socket file", "import socket; socket.socket(1).connect(item['socket'])", MISSING)
    yield Attack(
        "connects to an abstract socket",
        "import socket; socket.socket(1).connect('\\0' + item['abstract'])",
        "ConnectionRefusedError",
    )
    yield Attack(
        "hands file descriptors to the server",
        """
        import socket
        fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
        socket.send_fds(socket.socket(fileno=os.dup(private_pipe())), [b"{}\\n"], fds)
        return 0.0
        """,
        "0.0",
    )


def using_up() -> Iterator[Attack]:
    yield Attack(
        "is a fork bomb",
        """
        import time
        for _ in range(5000):
            if os.fork() == 0:
                time.sleep(60)
        """,
        "BlockingIOError",
    )
    yield Attack(
        "is a thread bomb",
        """
        import threading, time
        for _ in range(5000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        """,
        "can't start new thread",
    )
    yield Attack("is a memory bomb", "bytearray(4 << 30)", "MemoryError")
    yield Attack("eats memory in small bites", "kept = []\nwhile True: kept.append('x' * 10**6)", "MemoryError|killed")
    yield Attack("computes forever", "while True: pass", TOO_LONG, IMPATIENT)
    yield Attack("sleeps forever", "import time; time.sleep(10**6)", TOO_LONG, IMPATIENT)
    yield Attack("matches forever", "import re; re.match('(a+)+$', 'a' * 60 + 'b')", TOO_LONG, IMPATIENT)
    yield Attack("computes forever in C", "9 ** 9 ** 9", TOO_LONG, IMPATIENT)
    yield Attack(
        "ignores every signal and computes forever",
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            try:
                while True: pass
            except BaseException: pass
        """,
        TOO_LONG,
        IMPATIENT,
    )
    yield Attack("stops itself", "import signal; os.kill(os.getpid(), signal.SIGSTOP)", TOO_LONG, IMPATIENT)
    yield Attack(
        "floods standard output",
        "for _ in range(300): print('x' * 10**6); os.write(1, b'x' * 10**6)\nreturn 0.0",
        "0.0",
    )
    yield Attack("floods standard error", "for _ in range(300): os.write(2, b'x' * 10**6)\nreturn 0.0", "0.0")
    yield Attack("fills the disk", "open('/tmp/x', 'wb').write(b'x' * (9 << 20))", "No space left|File too large")
    yield Attack(
        "fills the disk with many files",
        "for i in range(100): open(f'/tmp/{i}', 'wb').write(b'x' * (1 << 20))",
        "No space left",
    )
    yield Attack("fills shared memory", "open('/dev/shm/x', 'wb').write(b'x')", READ_ONLY)
    yield Attack(
        "makes a million files",
        "for i in range(10**6): os.mkdir(f'/tmp/{i}')",
        f"{TOO_LONG}|No space left|killed|MemoryError|Cannot allocate",
        IMPATIENT,
    )
    yield Attack("opens files without end", "for _ in range(10**6): os.dup(0)", "Too many open files")
    yield Attack(
        "lifts its limits",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "ValueError|PermissionError",
    )
    yield Attack(
        "asks for core dumps", "import resource; resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))", "ValueError"
    )
    yield Attack("asks for priority", "os.nice(-20)", DENIED)
    yield Attack("asks to run in real time", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))", DENIED)


def using_up_memory_by_stealth() -> Iterator[Attack]:
    """Past the limit of one process's address space: what the control group is for."""
    yield Attack(
        "spreads memory over processes",
        """
        import time
        readable, writable = os.pipe()
        for _ in range(8):
            if os.fork() == 0:
                kept = bytearray(os.urandom(1)) * (120 << 20)
                os.write(writable, b"x")
                time.sleep(60)
        alive = b""
        until = time.monotonic() + 1.5
        os.set_blocking(readable, False)
        while len(alive) < 8 and time.monotonic() < until:
            try:
                alive += os.read(readable, 8)
            except BlockingIOError:
                time.sleep(0.05)
        if len(alive) < 8:
            return 0.0
        """,
        "0.0|killed",
    )
    yield Attack(
        "hides memory in files without names",
        """
        for _ in range(200):
            fd = os.memfd_create("x")
            for _ in range(4):
                os.write(fd, b"x" * (1 << 20))
        """,
        "killed|Cannot allocate",
    )


def lying() -> Iterator[Attack]:
    """Replies that are not the runner's."""
    unending = "while True: os.write(private_pipe(), b'x' * 10**5)"
    yield Attack("floods the private pipe", unending, "wrote more than")
    lines = 'while True: os.write(private_pipe(), b\'{"token": "0", "score": 666.0}\\n\' * 1000)'
    yield Attack("floods the private pipe with replies", lines, "not asked")
    forged = """os.write(private_pipe(), b'{"token": "%032d", "score": 666.0}\\n' % 7); return 0.0"""
    yield Attack("answers for another item", forged, "0.0")
    yield Attack(
        "answers twice", """reply('{"token": "TOKEN", "score": 0.0}\\n{"token": "TOKEN", "score": 666.0}')""", "0.0"
    )
    for name, score in {
        "NaN": "NaN",
        "infinity": "Infinity",
        "1e999": "1e999",
        "true": "true",
        "text": '"1"',
        "a list": "[1]",
        "a huge integer": "1" * 4000,
    }.items():
        yield Attack(
            f"writes the score {name}",
            f"""return reply('{{"token": "TOKEN", "score": {score}}}')""",
            "no finite number",
        )
    for name, text in {
        "5,000 digits": "1" * 5000,
        "deep JSON": '{"token": ' + "[" * 30000,
        "no JSON": "{nonsense",
        "no object": "[]",
        "broken UTF-8": "{\\udcff}",
    }.items():
        yield Attack(f"replies with {name}", f"return reply('{text}')", "no reply")
    yield Attack("replies with no score", """return reply('{"token": "TOKEN", "score": null}')""", "without a score")
    yield Attack(
        "writes half a reply and ends", """os.write(private_pipe(), b'{"tok'); os._exit(0)""", "without an answer"
    )
    yield Attack("closes the private pipe", "os.closerange(3, 100); return 0.0", "ended|closed")
    yield Attack(
        "shuts the private pipe",
        "import socket; socket.socket(fileno=os.dup(private_pipe())).shutdown(2); return 0.0",
        "ended|closed",
    )
    yield Attack("breaks the json module", "import json; json.loads = json.dumps = json.decoder = None; return 0.0", "")
    yield Attack("returns NaN", "return float('nan')", "no finite number")
    yield Attack("returns infinity", "return -float('inf')", "no finite number")
    yield Attack("returns a huge integer", "return 10 ** 400", "too large")
    yield Attack("returns text", "return '1'", "no number")
    yield Attack("returns None", "return None", "no number")
    yield Attack("returns a text of a truth", "return 'True'", "no number")
    evil = "class Evil(float):\n    def __float__(self): {}\n    def __repr__(self): raise SystemExit\nreturn Evil(1)"
    yield Attack("returns an object that lies about its value", evil.format("return float('nan')"), "no finite number")
    yield Attack("returns an object that raises", evil.format("raise KeyboardInterrupt"), "KeyboardInterrupt")
    yield Attack("returns an object that ends the process", evil.format("os._exit(5)"), "status 5")


def dying() -> Iterator[Attack]:
    yield Attack("ends with os._exit", "os._exit(0)", "status 0 and without an answer")
    yield Attack("ends with sys.exit", "sys.exit(3)", "SystemExit: 3")
    yield Attack("raises what is no Exception", "raise GeneratorExit('now')", "GeneratorExit: now")
    yield Attack("raises KeyboardInterrupt", "raise KeyboardInterrupt", "KeyboardInterrupt")
    shy = "class Shy(Exception):\n    def __str__(self): {}\nraise Shy"
    yield Attack("raises what cannot be shown", shy.format("raise BaseException"), "Shy|cannot be shown")
    yield Attack("raises what ends the process", shy.format("os._exit(6)"), "status 6")
    yield Attack("raises with a long message", "raise ValueError('x' * 10**7)", "ValueError: x{100,}")
    yield Attack("recurses", "def f(): f()\nf()", "RecursionError")
    yield Attack(
        "recurses beyond the stack",
        "import json; sys.setrecursionlimit(10**9); json.loads('[' * 10**6)",
        "SIGSEGV|RecursionError",
    )
    yield Attack("crashes in C", "import ctypes; ctypes.string_at(0)", "SIGSEGV")
    yield Attack("aborts", "os.abort()", "SIGABRT")
    yield Attack("kills itself", "os.kill(os.getpid(), 9)", "killed")


def breaking_out() -> Iterator[Attack]:
    yield Attack("kills a process of the host", "os.kill(item['pid'], 9)", "ProcessLookupError")
    yield Attack(
        "kills everything",
        "if os.getppid() != 1: return 666.0  # in no namespace of its own: do not even try\nos.kill(-1, 9)",
        f"ProcessLookupError|{DENIED}",
    )
    yield Attack("kills the first process", "os.kill(1, 9); return 0.0", f"0.0|{DENIED}")
    yield Attack("traces the first process", "libc('ptrace', 16, 1, 0, 0)", "PermissionError")
    yield Attack("reads another process", "libc('process_vm_readv', 1, 0, 0, 0, 0, 0)", DENIED)
    yield Attack("becomes root", "os.setuid(0)", f"{DENIED}|Invalid argument")
    yield Attack("becomes another user", "os.setresuid(1, 1, 1)", f"{DENIED}|Invalid argument")
    yield Attack("joins root's group", "os.setgroups([0])", DENIED)
    yield Attack("asks su for root", "import subprocess; subprocess.run(['su', '-c', 'true'], check=True)", "Error")
    yield Attack("makes a user namespace", "libc('unshare', 0x10000000)", DENIED)
    yield Attack("makes a mount namespace", "libc('unshare', 0x20000)", DENIED)
    yield Attack("enters a namespace", "libc('setns', os.open('/proc/self/ns/net', 0), 0)", DENIED)
    yield Attack("mounts", "libc('mount', b'none', b'/tmp', b'tmpfs', 0, None)", DENIED)
    yield Attack("unmounts", "libc('umount2', b'/proc', 2)", DENIED)
    yield Attack("changes its root", "os.chroot('/tmp')", DENIED)
    yield Attack("pushes keystrokes", "import fcntl; fcntl.ioctl(0, 0x5412, b'x')", DENIED)
    yield Attack("opens the terminal", "open('/dev/tty')", "No such device|PermissionError")
    yield Attack("makes a device", "os.mknod('/tmp/sda', 0o60600, os.makedev(8, 0))", DENIED)
    yield Attack("names the machine", "import socket; socket.sethostname('evil')", DENIED)
    yield Attack("sets the clock", "import time; time.clock_settime(time.CLOCK_REALTIME, 0)", DENIED)
    yield Attack("allows itself new privileges", "libc('prctl', 38, 0, 0, 0, 0)", "Invalid argument")
    yield Attack("becomes dumpable and dumps its core", "libc('prctl', 4, 1, 0, 0, 0); os.abort()", "SIGABRT")
    yield Attack("loads a kernel module", f"libc('syscall', {_number('init_module')}, 0, 0, 0)", DENIED)
    for name in ("bpf", "keyctl", "userfaultfd", "perf_event_open", "io_uring_setup", "kexec_load", "personality"):
        yield Attack(f"calls {name}", f"libc('syscall', {_number(name)}, 0, 0, 0, 0, 0)", DENIED)
    yield Attack("clones into new namespaces with clone3", "libc('syscall', 435, 0, 0)", "Function not implemented")
    yield Attack(
        "clones into a new user namespace",
        f"if libc('syscall', {_number('clone')}, 0x10000011, 0, 0, 0, 0) == 0: os._exit(0)",
        DENIED,
    )
    yield Attack(
        "leaves a daemon behind",
        """
        import time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: time.sleep(0.01)
            os._exit(0)
        return 0.0
        """,
        "0.0",
    )
    yield Attack(
        "leaves a bomb for the next item",
        "import signal; signal.setitimer(signal.ITIMER_REAL, 0.001); return 0.0",
        "0.0|SIGALRM",
    )


def through_other_doors() -> Iterator[Attack]:
    yield Attack("calls by the x32 ABI", "libc('syscall', 0x40000000 + 41, 2, 1, 0)", "SIGSYS")
    yield Attack(
        "calls by the 32-bit ABI",
        """
        import ctypes, mmap
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
        """,
        "SIGSYS|SIGSEGV",
    )


def writing() -> Iterator[Attack]:
    yield Attack("writes into a file of the host", "open(item['file'], 'a').write('harm')", MISSING)
    yield Attack("writes into the standard library", "open(os.__file__, 'a').write('harm')", READ_ONLY)
    packages = "folder = [p for p in sys.path if p.endswith('-packages')][0]\nopen(folder + '/evil.py', 'w')"
    yield Attack("writes into the installed packages", packages, READ_ONLY)
    yield Attack("writes a program", "open('/usr/bin/evil', 'w').write('harm')", READ_ONLY)
    yield Attack("writes into the root folder", "open('/evil', 'w').write('harm')", READ_ONLY)
    yield Attack("changes its runner", "open('/sandboxed.py', 'w').write('harm')", READ_ONLY)
    yield Attack("sets the core pattern", "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')", READ_ONLY)
    yield Attack("pulls the emergency brake", "open('/proc/sysrq-trigger', 'w').write('h')", f"{READ_ONLY}|{MISSING}")
    yield Attack(
        "hides from the out-of-memory killer", "open('/proc/self/oom_score_adj', 'wb', 0).write(b'-1000')", DENIED
    )
    yield Attack(
        "maps itself to root", "open('/proc/self/uid_map', 'wb', 0).write(b'0 0 1')", f"{DENIED}|{READ_ONLY}|Invalid"
    )
    left = "open('/tmp/left-by-a-grader', 'w').write('harm'); return 0.0"
    yield Attack("leaves a file in /tmp", left, "0.0")


def _number(call: str) -> int:
    from stillroom.graders.seccomp import ARCHITECTURES, CLONE, REFUSED

    column = ARCHITECTURES[platform.machine()][1]
    number = {**REFUSED, "clone": CLONE}[call][column]
    assert number is not None
    return number


def _group_can_be_made() -> bool:
    group = ControlGroup.make(memory_bytes=64 * MEGABYTE, processes=8)
    try:
        return any("memory" in entrance for entrance in group.entrances())
    finally:
        group.remove()


@dataclass
class Host:
    """What there is to harm: files, sockets, a process, an environment."""

    folder: Path
    victim: subprocess.Popen[bytes]
    port: int
    called: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "stillroom.db"

    def item(self, **more: Any) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "file": str(self.file),
            "socket": str(self.folder / "socket"),
            "abstract": self.abstract,
            "port": self.port,
            "pid": self.victim.pid,
            "variable": "STILLROOM_TEST_SECRET",
            "secret": SECRET,
            "earlier": SECRET[::-1],
            **more,
        }

    @property
    def abstract(self) -> str:
        return f"stillroom-test-{os.getpid()}-{self.folder.name}"

    def unharmed(self) -> bool:
        return not self.called and self.victim.poll() is None and self.file.read_text() == SECRET


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("STILLROOM_TEST_SECRET", SECRET)
    victim = subprocess.Popen(["/bin/sleep", "600"], env={"SECRET": SECRET})
    with contextlib.ExitStack() as stack:
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        network = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        host = Host(tmp_path, victim, network.getsockname()[1])
        host.file.write_text(SECRET)
        listeners = {"network": network}
        for name, address in {"file": str(tmp_path / "socket"), "abstract": "\0" + host.abstract}.items():
            listeners[name] = stack.enter_context(socket.socket(socket.AF_UNIX))
            listeners[name].bind(address)
            listeners[name].listen()
        for name, listener in listeners.items():
            threading.Thread(target=_listen, args=(name, listener, host.called), daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        left_open = stack.enter_context(host.file.open())
        os.set_inheritable(left_open.fileno(), True)
        yield host


def _listen(name: str, listener: socket.socket, called: list[str]) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
            called.append(name)


def limits(attack: Attack) -> SandboxLimits:
    return SandboxLimits(
        wall_seconds=attack.wall_seconds + MARK, memory_bytes=256 * MEGABYTE, disk_bytes=8 * MEGABYTE, processes=16
    )


async def play(attack: Attack, host: Host, *, unsafe: bool = False) -> tuple[float | PythonFailed, float]:
    """What came of the attack, and the honest item's score after it."""
    grader = await PythonGrader.start(attack.source, limits(attack), unsafe=unsafe)
    try:
        await grader.grade({}, {"text": SECRET})  # the earlier item that one of them looks for
        try:
            outcome: float | PythonFailed = await grader.grade({}, host.item(attack=True))
        except PythonFailed as failed:
            outcome = failed
        return outcome, await grader.grade({"output_text": "hello"}, {"honest": True})
    finally:
        await grader.close()


def told(outcome: float | PythonFailed) -> str:
    return outcome.message if isinstance(outcome, PythonFailed) else repr(outcome)


@pytest.mark.parametrize("attack", list(attacks()), ids=lambda attack: attack.name.replace(" ", "_"))
def test_a_grader_is_contained_that(attack: Attack, host: Host) -> None:
    files = len(list(Path("/proc/self/fd").iterdir()))
    outcome, honest = asyncio.run(play(attack, host))
    assert outcome != HARM
    assert re.search(attack.ends, told(outcome)), told(outcome)
    if isinstance(outcome, PythonFailed):
        assert outcome.where == "runtime"
        assert len(outcome.message) < 1000
        assert len(outcome.details.get("traceback", "")) <= 4000
    assert honest == HONEST
    assert host.unharmed()
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
    assert left_over() == []


CONTROLS = (
    "reads a file of the host",
    "lists the data folder",
    "reads the environment of every process",
    "connects to the network",
    "connects to a socket file",
    "connects to an abstract socket",
    "writes into a file of the host",
    "kills a process of the host",
)


@pytest.mark.parametrize("name", CONTROLS, ids=lambda name: name.replace(" ", "_"))
def test_outside_the_sandbox_a_grader_does_harm_that(name: str, host: Host) -> None:
    attack = next(attack for attack in attacks() if attack.name == name)
    outcome, _ = asyncio.run(play(attack, host, unsafe=True))
    assert outcome == HARM
    if name.startswith(("connects", "writes", "kills")):
        until = time.monotonic() + 5
        while host.unharmed() and time.monotonic() < until:
            time.sleep(0.01)
        assert not host.unharmed()
    assert left_over() == []


ORDINARY = """
import asyncio, json, sys
from stillroom.errors import PythonFailed
from stillroom.graders.sandbox import MEGABYTE, PythonGrader, SandboxLimits

async def play(gate, source, item):
    limits = SandboxLimits(wall_seconds=30, memory_bytes=256 * MEGABYTE, disk_bytes=8 * MEGABYTE, processes=16)
    async with gate:
        grader = await PythonGrader.start(source, limits)
        try:
            outcome = repr(await grader.grade({}, {**item, "attack": True}))
        except PythonFailed as failed:
            outcome = failed.message
        honest = await grader.grade({}, {})
        await grader.close()
        return outcome, honest

async def main():
    given = json.load(sys.stdin)
    gate = asyncio.Semaphore(2)
    played = await asyncio.gather(*(play(gate, source, given["item"]) for source in given["sources"]))
    json.dump(played, sys.stdout)

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the attacks above were all contained for an ordinary user already")
def test_an_ordinary_users_sandbox_contains_them_too(host: Host) -> None:
    """With the system's own Python, which every user can read; its namespaces belong to the user."""
    python = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if newer(path)), None)
    assert python, "there is no Python 3.11 or newer in /usr; `apt-get install python3` adds one"
    tried = [*looking(), *calling_out(), *breaking_out(), *writing()]
    with copy_for_everybody() as folder:
        ran = subprocess.run(
            [python, "-B", "-W", "error", "-c", ORDINARY],
            input=json.dumps({"item": host.item(), "sources": [attack.source for attack in tried]}),
            env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
            cwd="/",
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    for attack, (outcome, honest) in zip(tried, json.loads(ran.stdout), strict=True):
        packages = attack.name == "writes into the installed packages"  # which the system's Python may not have
        assert re.search(attack.ends + ("|IndexError|FileNotFoundError" if packages else ""), outcome), attack.name
        assert outcome != repr(HARM)
        assert honest == HONEST
    assert host.unharmed()


def newer(python: str) -> bool:
    if not Path(python).exists():
        return False
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-I", "-c", check], check=False).returncode == 0


@contextlib.contextmanager
def copy_for_everybody() -> Iterator[Path]:
    """The sandbox's modules alone, where any user may read them: they need nothing but the standard library."""
    folder = Path(tempfile.mkdtemp())
    try:
        ours = Path(sandbox.__file__).parent
        copied = folder / "stillroom" / "graders"
        copied.mkdir(parents=True)
        for path in (copied / "__init__.py", copied.parent / "__init__.py"):
            path.touch()
        shutil.copy(ours.parent / "errors.py", copied.parent)
        for module in ("sandbox", "sandboxed", "seccomp", "cgroups"):
            shutil.copy(ours / f"{module}.py", copied)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


def test_what_is_left_would_be_found() -> None:
    async def look() -> list[str]:
        grader = await PythonGrader.start(
            "def grade(sample, item): return 1", SandboxLimits(wall_seconds=PATIENT + MARK)
        )
        try:
            await grader.grade({}, {})
            return left_over()
        finally:
            await grader.close()

    found = asyncio.run(look())
    assert len([line for line in found if "sandboxed.py" in line]) == 3  # bubblewrap, its child and the grader
    assert not _group_can_be_made() or [line for line in found if NAME in line]
    assert left_over() == []


def test_a_graders_files_are_gone_with_it_and_no_other_grader_sees_them() -> None:
    source = """
import os
def grade(sample, item):
    seen = len(os.listdir("/tmp"))
    open("/tmp/" + item["name"], "w").write("mine")
    return seen
"""

    async def two() -> list[float]:
        graders = [await PythonGrader.start(source, SandboxLimits()) for _ in range(2)]
        try:
            return [await grader.grade({}, {"name": f"file-{i}"}) for i, grader in enumerate(graders)]
        finally:
            for grader in graders:
                await grader.close()

    first, second = asyncio.run(two())
    assert first == second  # the folders on the way to Python's packages, at most
    assert not Path("/tmp/file-0").exists()


def test_a_grader_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal
from stillroom.graders.sandbox import PythonGrader, SandboxLimits
async def main():
    source = "import time\\ndef grade(sample, item): time.sleep(item['seconds']); return 1.0"
    grader = await PythonGrader.start(source, SandboxLimits(wall_seconds={PATIENT + MARK!r}))
    await grader.grade({{}}, {{"seconds": 0}})
    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGKILL)
    await grader.grade({{}}, {{"seconds": 600}})
asyncio.run(main())
"""
    server = subprocess.Popen([sys.executable, "-c", script])
    assert server.wait(timeout=60) == -9
    until = time.monotonic() + 10
    while processes() and time.monotonic() < until:
        time.sleep(0.02)
    assert processes() == []
    cgroups.sweep()  # as the next server does before it runs a grader
    assert list(MOUNT.glob(f"**/{NAME}{server.pid}-*")) == []


def left_over() -> list[str]:
    """Processes, control groups and files that these tests' graders have left on the host."""
    groups = [str(folder) for folder in MOUNT.glob(f"**/{NAME}{os.getpid()}-*")] if MOUNT.is_dir() else []
    files = [path for path in ("/tmp/left-by-a-grader", "/evil", "/usr/bin/evil") if Path(path).exists()]
    return processes() + groups + files


def processes() -> list[str]:
    """Command lines that bear our mark, bubblewrap's and the graders' alike; forks bear it too."""
    mark = f'"wall_seconds": {json.dumps(PATIENT + MARK)}', f'"wall_seconds": {json.dumps(IMPATIENT + MARK)}'
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(text in line for text in mark):
                found.append(line)
    return found
