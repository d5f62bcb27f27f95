"""`python -m stillroom.teachers.scripted`: the triage expert behind a port."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from stillroom.teachers.scripted import ScriptedTeacher, in_form, triage_expert


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the triage expert until interrupted, or until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m stillroom.teachers.scripted", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seconds-per-answer", type=float, default=0.0)
    parser.add_argument("--until-stdin-closes", action="store_true")
    options = parser.parse_args(arguments)
    seconds = options.seconds_per_answer
    with ScriptedTeacher(
        in_form(triage_expert), port=options.port, first_token_seconds=seconds, record=False
    ) as teacher:
        print(teacher.url, flush=True)  # noqa: T201
        try:
            if options.until_stdin_closes:
                sys.stdin.buffer.read()
            else:
                threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
