"""Builds the portal while the Python package is built or installed; how, `portal/build.py` knows.

STILLROOM_PORTAL=skip leaves it out: the API and the command line need none of it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

REMEDY = "To install without the portal, set STILLROOM_PORTAL=skip; the API and the command line need none of it."


class PortalHook(BuildHookInterface):
    """Runs for wheels and for editable installs."""

    def dependencies(self) -> list[str]:
        """The package with Node.js, where the portal must be built and this machine has none."""
        if self._portal.LEFT_OUT or self._portal.is_current() or self._portal.machines_node():
            return []
        return [self._portal.NODE_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self._portal.LEFT_OUT:
            return
        try:
            self._portal.build()
        except self._portal.NotBuilt as error:
            if version != "editable":
                self.app.abort(f"The portal could not be built. {error}\n{REMEDY}")
            # The server says so too, where a browser looks for the portal.
            self.app.display_warning(f"The portal is not built, the rest works. {error}\n`make portal` tries again.")
            return
        build_data["artifacts"].append("src/stillroom/portal/**")  # built, and in no repository

    @property
    def _portal(self) -> ModuleType:
        name = "portal_build"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, Path(self.root) / "portal" / "build.py")
            assert spec is not None and spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]
