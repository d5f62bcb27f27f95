"""Building the portal installs its packages when they are not there whole, and leaves a developer's alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parents[2] / "portal"
LOCKED = {
    "": {"name": "portal"},
    "node_modules/vite": {"version": "8.0.1"},
    "node_modules/react": {"version": "19.1.0"},
    "node_modules/biome": {"version": "2.5.0", "dev": True},
    "node_modules/binding-darwin": {"version": "1.0.0", "optional": True},
}
NEEDED = {name: LOCKED[name] for name in ("node_modules/vite", "node_modules/react")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A portal's sources, with nothing installed."""
    (tmp_path / "build.py").write_bytes((SOURCES / "build.py").read_bytes())
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": LOCKED}))
    (tmp_path / "node_modules" / "vite").mkdir(parents=True)
    return tmp_path


def build_of(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("portal_build_here", folder / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As the build hook does: its dataclass looks its module up.
    sys.modules["portal_build_here"] = module
    spec.loader.exec_module(module)
    return module


def install(folder: Path, packages: dict[str, Any]) -> None:
    """Leaves what npm leaves when it has come to its end."""
    (folder / "node_modules" / ".package-lock.json").write_text(json.dumps({"packages": packages}))


def test_an_installation_that_was_interrupted_is_done_again(folder: Path) -> None:
    assert not build_of(folder).packages_are_installed()
    install(folder, NEEDED)
    assert build_of(folder).packages_are_installed()


def test_packages_are_installed_again_when_the_lock_file_has_other_versions(folder: Path) -> None:
    install(folder, {**NEEDED, "node_modules/react": {"version": "19.0.0"}})
    assert not build_of(folder).packages_are_installed()
    install(folder, {"node_modules/vite": {"version": "8.0.1"}})
    assert not build_of(folder).packages_are_installed()


def test_a_developers_own_packages_are_left_alone(folder: Path) -> None:
    install(folder, {**NEEDED, "node_modules/biome": {"version": "2.6.0", "dev": True}, "node_modules/more": {}})
    assert build_of(folder).packages_are_installed()


@pytest.mark.parametrize("develops", [False, True])
def test_who_develops_the_portal_keeps_the_tools_for_it(folder: Path, develops: bool) -> None:
    tools = {"node_modules/biome": {"version": "2.5.0", "dev": True}} if develops else {}
    install(folder, {"node_modules/vite": {"version": "7.0.0"}, **tools})
    programs = folder / "bin"
    programs.mkdir()
    for name, says in (("node", "echo v24.19.0"), ("npm", f'echo "$@" >> {folder}/asked')):
        (programs / name).write_text(f"#!/bin/sh\n{says}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    left_out = {**os.environ, "PATH": path, "STILLROOM_PORTAL": "skip"}
    subprocess.run([sys.executable, folder / "build.py"], env=left_out, check=True)
    assert not (folder / "asked").exists()
    # Nothing is built by such an npm, so the end does not matter: what it was asked first does.
    subprocess.run(
        [sys.executable, folder / "build.py"], env={**os.environ, "PATH": path}, check=False, capture_output=True
    )
    first, *_ = (folder / "asked").read_text().splitlines()
    assert first.startswith("ci ")
    assert ("--omit=dev" in first) is not develops
