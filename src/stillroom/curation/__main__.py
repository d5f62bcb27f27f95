"""The process that curates: `python -m stillroom.curation FOLDER` reads `spec.json` and `rows.jsonl` and writes
`outcome.json` there. What it cannot do it reports as a JSON line on standard output. It ends when its standard input closes."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import msgspec

from stillroom.curation.curate import curate
from stillroom.curation.order import Curation
from stillroom.curation.rows import FileRows, Named
from stillroom.errors import StillroomError

GIVING_WAY = 5  # to the server, whose callers wait for less


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with the rows, each of which is called by its `id`."""

    curation: Curation
    scores: list[float | None] | None = None
    validation_fraction: float = 0.0
    seed: int = 0
    survey: bool = False


def main(folder: Path) -> int:
    os.nice(GIVING_WAY)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=Spec)
    try:
        with FileRows(folder / "rows.jsonl") as rows:
            outcome = curate(
                rows,
                spec.curation,
                names=Named(rows, "id"),
                scores=spec.scores,
                validation_fraction=spec.validation_fraction,
                seed=spec.seed,
                survey=spec.survey,
            )
    except StillroomError as error:
        told = {"code": error.code, "message": error.message, "param": error.param, "kind": type(error).__name__}
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        return 1
    (folder / "outcome.json").write_bytes(msgspec.json.encode(outcome))
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
