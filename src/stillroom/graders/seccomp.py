"""The system calls that a grader's code is refused: a seccomp filter as a classic BPF program.

A layer behind the namespaces, not the fence itself: it closes the parts of the kernel that graders never need and
that escapes have come from. Everything else is allowed, so that an interpreter of tomorrow still runs. Knows nothing
of processes; `sandbox.py` hands the program to bubblewrap.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct

# What the kernel calls the machine, and the column of the numbers below.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
X32 = 0x40000000  # system calls of the x32 ABI, a second door to the same kernel

REFUSED: dict[str, tuple[int, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # file systems and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # parts of the kernel that programs rarely need and exploits often do
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "uselib": (134, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "nfsservctl": (180, 42),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
}
CLONE, CLONE3 = (56, 220), (435, 435)
SOCKET, SOCKETPAIR, IOCTL = (41, 198), (53, 199), (16, 29)
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # put words into the mouth of a terminal

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE = 0, 4  # offsets into struct seccomp_data
FIRST, SECOND = 16, 24  # low halves of the first two arguments, on little-endian machines
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def supported() -> bool:
    """Whether there is a filter for this machine."""
    return platform.machine() in ARCHITECTURES


def program() -> bytes:
    """The filter for this machine, an array of struct sock_filter."""
    audit, column = ARCHITECTURES[platform.machine()]
    lines = [_load(ARCHITECTURE), *_unless(JUMP_EQUAL, audit, KILL), _load(NUMBER)]
    lines += _when(JUMP_AT_LEAST, X32, KILL)
    # The C library falls back to clone, whose flags a filter can see.
    lines += _when(JUMP_EQUAL, CLONE3[column], ERROR | errno.ENOSYS)
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            lines += _when(JUMP_EQUAL, number, ERROR | errno.EPERM)
    lines += _with_argument(CLONE[column], FIRST, _when(JUMP_BITS, CLONE_NAMESPACES, ERROR | errno.EPERM))
    local = _unless(JUMP_EQUAL, int(socket.AF_UNIX), ERROR | errno.EPERM)
    lines += _with_argument(SOCKET[column], FIRST, local)
    lines += _with_argument(SOCKETPAIR[column], FIRST, local)
    typing = [line for code in (TIOCSTI, TIOCLINUX) for line in _when(JUMP_EQUAL, code, ERROR | errno.EPERM)]
    lines += _with_argument(IOCTL[column], SECOND, typing)
    return b"".join([*lines, _return(ALLOW)])


def _line(code: int, value: int, when_true: int = 0, when_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)


def _load(offset: int) -> bytes:
    return _line(LOAD, offset)


def _return(verdict: int) -> bytes:
    return _line(RETURN, verdict)


def _when(test: int, value: int, verdict: int) -> list[bytes]:
    return [_line(test, value, 0, 1), _return(verdict)]


def _unless(test: int, value: int, verdict: int) -> list[bytes]:
    return [_line(test, value, 1, 0), _return(verdict)]


def _with_argument(number: int, argument: int, tests: list[bytes]) -> list[bytes]:
    """The tests on one argument of one system call; passing them all, the call is allowed."""
    body = [_load(argument), *tests, _return(ALLOW)]
    return [_line(JUMP_EQUAL, number, 0, len(body)), *body]
