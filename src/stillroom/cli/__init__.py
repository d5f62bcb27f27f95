"""The command line: parses, calls, prints. One module a group of commands.

Commands that look at or change an installation talk to its running server through the public API.
"""

from __future__ import annotations

import sys

from stillroom.cli.commands import app
from stillroom.cli.output import fail
from stillroom.errors import StillroomError


def main() -> None:
    """Runs the command line; a deliberate error is one line on standard error and exit code 1."""
    try:
        app()
    except StillroomError as error:
        fail(error.message)
        sys.exit(1)


__all__ = ["app", "main"]
