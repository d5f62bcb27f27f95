"""What near-duplicate removal costs, what it misses, and how a peer does on the same rows.

Rows are made up: texts of words as frequent as in English, and of Japanese letters, of which a share are copies of earlier ones
with some words changed, few or many. The whole run of `python -m stillroom.curation` is measured, reading and report
included, by what the operating system charged the process: CPU is user + system time, memory its peak. The peer is
datasketch's MinHash and MinHashLSH with the same pieces of text, 128 permutations and threshold; it compares estimates, not texts.
It is left out when it is not installed. Precision and recall: of the rows that are left out of some thousand, against brute force over
every pair, each by its own definition.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from stillroom.curation import Curation, FileRows, curate
from stillroom.curation.duplicates import form_of
from stillroom.curation.texts import Said, jaccard, said, shingles

THRESHOLD = 0.8
PERMUTATIONS = 128
WORDS = 20_000
JAPANESE = 0.2  # of the rows
COPIES = 0.25  # of the rows, each with some of its words changed
CHANGED = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3)  # of a copy's words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=3_000, help="rows that brute force compares")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)  # we are the peer's process: the folder to work on
    asked = parser.parse_args()
    if asked.peer is not None:
        (asked.peer / "peer.json").write_bytes(msgspec.json.encode(_peer(asked.peer)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = _write(folder, asked.rows, asked.seed)
        print(f"{asked.rows:,} rows, {size / 1e6:.0f} MB, threshold {THRESHOLD}")
        ours = _told("stillroom", _spent([sys.executable, "-m", "stillroom.curation", name]), asked.rows)
        if find_spec("datasketch") is not None:
            peer = _told("datasketch", _spent([sys.executable, __file__, "--peer", name]), asked.rows)
            print(f"the peer's CPU / ours: {peer / ours:.1f}")
        _accuracy(folder, asked.sample, asked.seed)


def _write(folder: Path, count: int, seed: int) -> int:
    with (folder / "rows.jsonl").open("wb") as file:
        for number, row in enumerate(_rows(count, seed)):
            file.write(msgspec.json.encode({"id": number, **row}) + b"\n")
    (folder / "spec.json").write_bytes(msgspec.json.encode({"curation": {"near_duplicates": THRESHOLD}}))
    return (folder / "rows.jsonl").stat().st_size


def _rows(count: int, seed: int) -> Iterator[dict[str, Any]]:
    chosen = random.Random(seed)
    words = ["".join(chosen.choices("abcdefghijklmnoprstuvw", k=chosen.randint(2, 9))) for _ in range(WORDS)]
    # As frequent as Zipf says.
    weights = [1 / rank for rank in range(1, WORDS + 1)]
    cumulated = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulated.append(cumulated[-1] + weight)
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 2000)]
    before: list[tuple[bool, list[str], list[str]]] = []
    for _ in range(count):
        if before and chosen.random() < COPIES:
            is_japanese, asked, answered = chosen.choice(before)
            share = chosen.choice(CHANGED)
            alphabet = letters if is_japanese else words
            asked, answered = ([_changed(each, share, alphabet, chosen) for each in text] for text in (asked, answered))
        else:
            is_japanese = chosen.random() < JAPANESE
            if is_japanese:
                asked, answered = (chosen.choices(letters, k=chosen.randint(30, 200)) for _ in range(2))
            else:
                asked, answered = (
                    chosen.choices(words, cum_weights=cumulated, k=chosen.randint(20, 150)) for _ in range(2)
                )
            before.append((is_japanese, asked, answered))
        glue = "" if is_japanese else " "
        yield {
            "messages": [
                {"role": "system", "content": "You answer the customers of a shop, in their language and briefly."},
                {"role": "user", "content": glue.join(asked)},
                {"role": "assistant", "content": glue.join(answered)},
            ]
        }


def _changed(word: str, share: float, alphabet: list[str], chosen: random.Random) -> str:
    return chosen.choice(alphabet) if chosen.random() < share else word


@dataclass(frozen=True, kw_only=True)
class _Spent:
    cpu_seconds: float
    seconds: float
    megabytes: float


def _spent(command: list[str]) -> _Spent:
    """What a process takes, of all its threads together."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return _Spent(
        cpu_seconds=used.ru_utime + used.ru_stime, seconds=time.monotonic() - began, megabytes=used.ru_maxrss / 1024
    )


def _told(whose: str, spent: _Spent, rows: int) -> float:
    print(
        f"{whose}: {spent.cpu_seconds:.1f} s CPU ({spent.cpu_seconds / rows * 1e6:.0f} us a row), {spent.seconds:.1f} s, "
        f"{spent.megabytes:.0f} MB at most"
    )
    return spent.cpu_seconds


def _peer(folder: Path) -> list[int]:
    """The rows that datasketch would leave out: those with an earlier kept one among their candidates."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found, unused-ignore]

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    kept: dict[int, Any] = {}
    left_out = []
    with FileRows(folder / "rows.jsonl") as rows:
        for number in range(len(rows)):
            texts = said(rows[number])
            assert texts is not None
            sketch = MinHash(num_perm=PERMUTATIONS)
            sketch.update_batch([piece.encode() for piece in _whole(texts)])
            if any(sketch.jaccard(kept[other]) >= THRESHOLD for other in index.query(sketch)):
                left_out.append(number)
            else:
                index.insert(number, sketch)
                kept[number] = sketch
    return left_out


def _accuracy(folder: Path, count: int, seed: int) -> None:
    """Of the first rows, and so of copies of them alone: rows that are left out."""
    _write(folder, count, seed + 1)
    with FileRows(folder / "rows.jsonl") as rows:
        texts = [found for row in rows[:] if (found := said(row)) is not None]
        form = form_of(lambda number: texts[number], range(len(texts)), [each.prompt_digest for each in texts])
        true = _brute_force([(form.without(shingles(each.prompt)), shingles(each.answer)) for each in texts])
        ours = set(curate(rows, Curation(near_duplicates=THRESHOLD)).reasons)
        print(f"of {count:,} rows, {len(true):,} are near-duplicates of an earlier one that stays")
        _compared("stillroom", ours, true)
        if find_spec("datasketch") is not None:
            _compared("datasketch", set(_peer(folder)), _brute_force([(_whole(each),) for each in texts]))


def _whole(texts: Said) -> frozenset[str]:
    """What the peer compares: prompt and answer as one, so that it is held to a definition that it can meet."""
    return shingles(texts.prompt) | {f"a {piece}" for piece in shingles(texts.answer)}


def _brute_force(rows: Sequence[tuple[frozenset[str], ...]]) -> set[int]:
    """The rows of which all parts are as similar to those of one that stays as the threshold asks, by every pair."""
    stays: list[int] = []
    gone: set[int] = set()
    for number, parts in enumerate(rows):
        if any(all(map(_are_like, parts, rows[other])) for other in stays):
            gone.add(number)
        else:
            stays.append(number)
    return gone


def _are_like(one: frozenset[str], other: frozenset[str]) -> bool:
    least, most = sorted((len(one), len(other)))
    # Sets of too different sizes need no comparison.
    return least >= THRESHOLD * most and jaccard(one, other) >= THRESHOLD


def _compared(whose: str, found: set[int], true: set[int]) -> None:
    right = len(found & true)
    print(
        f"{whose}: {len(found):,} left out, precision {right / max(1, len(found)):.4f}, recall {right / max(1, len(true)):.4f}"
    )


if __name__ == "__main__":
    main()
