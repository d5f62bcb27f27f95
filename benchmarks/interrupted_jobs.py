"""Jobs whose workers are killed and stopped: how many succeed, once, with the weights of an undisturbed one.

A server that runs no jobs, workers beside it, and a plan: every job is claimed by some worker, which at any moment of
the job is killed (SIGKILL) or stopped (SIGSTOP, and SIGCONT after or shortly before another has taken the job over),
again and again. Afterwards every job must have ended once, with one model, one bill, every step's figures and the very
weights of a job that nobody disturbed; no process, claim or file is left. Linux only; takes about fifteen minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.faults.torment import Torment


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which it counts as failed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torment = Torment(
            Path(folder),
            jobs=given.jobs,
            kills=given.kills,
            stops=given.stops,
            workers=given.workers,
            seed=given.seed,
        )
        figures = torment.run(limit_seconds=given.minutes * 60)
        for name, value in asdict(figures).items():
            if name != "violations":
                print(
                    f"{name.replace('_', ' '):<28}{value:>10.1f}"
                    if isinstance(value, float)
                    else f"{name:<28}{value:>10}"
                )
        for violation in figures.violations:
            print("VIOLATED", violation)
        if figures.violations:
            print((Path(folder) / "workers.log").read_text()[-20_000:])
    print("every job ended once, as undisturbed" if not figures.violations else f"{len(figures.violations)} violations")
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
