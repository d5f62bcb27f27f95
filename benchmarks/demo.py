"""What `stillroom demo` takes and reaches, on a fresh data folder: one line of figures a run."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    for number in range(parser.parse_args().runs):
        with tempfile.TemporaryDirectory() as data:
            before = _children_cpu()
            command = [sys.executable, "-m", "stillroom", "demo", "--data", data, "--port", "0", "--exit", "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout)
        print(
            f"run {number + 1}: agreement {figures['agreement']:.1%} on {figures['held_out']} held-out tickets, "
            f"{figures['held_out_among_training']} of them trained on; loss {figures['first_loss']:.3f} -> "
            f"{figures['last_loss']:.4f}; {figures['seconds']:.0f} s, {_children_cpu() - before:.0f} CPU s"
        )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
