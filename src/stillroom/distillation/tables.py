"""`python tables.py FROM TO`: a table on disk becomes JSON lines, one row each.

Reads Parquet files and the folders of Hugging Face's `datasets`: what `save_to_disk` writes, and the snapshot of a
data set's repository (Parquet or JSON lines below `data/` or beside its card). In a process of its own, so that what
reads a gigabyte of columns is gone when the rows are there, and a command that reads none starts fast.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

REFUSED = 2  # the exit status of a table that cannot be read; why is on standard error
BATCH_ROWS = 1000
TRAINING = ("train", "training")
VALIDATION = ("validation", "valid", "val", "dev", "test")
SPLIT = re.compile(r"(?:^|[-_/.])(train|training|validation|valid|val|dev|test)(?=[-_/.]|$)")
ONLY = ""  # the name of a split that has none


class Unreadable(Exception):
    """The table cannot be read; the text says why."""


def main(arguments: list[str] | None = None) -> int:
    """Writes the rows; gives the exit status."""
    parser = argparse.ArgumentParser(prog="tables.py")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--split", help="the split to read; default: the one for training")
    parser.add_argument("--validation", action="store_true", help="without --split, the one for validation")
    parser.add_argument("--limit", type=int, help="so many rows at most")
    asked = parser.parse_args(arguments)
    try:
        rows = _rows(asked.source, asked.split, validation=asked.validation)
        with asked.target.open("wb") as file:
            _write(rows, file, asked.limit)
    except (Unreadable, pa.ArrowException, OSError) as error:
        print(str(error), file=sys.stderr)  # noqa: T201
        return REFUSED
    except (KeyError, TypeError, ValueError) as error:
        print(f"{asked.source} is not what save_to_disk writes: {error!r}", file=sys.stderr)  # noqa: T201
        return REFUSED
    return 0


def _write(rows: Iterable[dict[str, Any]], file: BinaryIO, limit: int | None) -> None:
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            return
        file.write(msgspec.json.encode(row, enc_hook=str) + b"\n")


def _rows(source: Path, split: str | None, *, validation: bool) -> Iterator[dict[str, Any]]:
    if source.is_file():
        return _rows_of_file(source)
    splits = _splits(source)
    if not splits:
        raise Unreadable(
            f"{source} holds no data set: neither `state.json` or `dataset_dict.json` (from save_to_disk), nor Parquet or "
            "JSON lines files."
        )
    files = splits[_chosen(splits, split, VALIDATION if validation else TRAINING)]
    return (row for file in files for row in _rows_of_file(file))


def _chosen(splits: dict[str, list[Path]], split: str | None, preferred: tuple[str, ...]) -> str:
    names = ", ".join(sorted(splits))
    if split is not None:
        if split not in splits:
            raise Unreadable(f"There is no split {split!r}; there are: {names or 'none by name'}.")
        return split
    found = [name for name in preferred if name in splits] or (list(splits) if len(splits) == 1 else [])
    if not found:
        raise Unreadable(f"Write `split:` and one of: {names}.")
    return found[0]


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in order."""
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        return {name: _saved(_inside(folder, name)) for name in names}
    if (folder / "state.json").is_file():
        return {ONLY: _saved(folder)}
    found: dict[str, list[Path]] = {}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".parquet", ".jsonl") and path.is_file()]
    for path in files:
        named = SPLIT.findall(path.relative_to(folder).as_posix().lower())
        found.setdefault(named[-1] if named else ONLY, []).append(path)
    return found


def _saved(folder: Path) -> list[Path]:
    state = json.loads((folder / "state.json").read_text())
    if state.get("_indices_files"):
        raise Unreadable(f"{folder} is a selection of another data set: save what `flatten_indices()` gives.")
    return [_inside(folder, each["filename"]) for each in state["_data_files"]]


def _inside(folder: Path, name: str) -> Path:
    """The folder's file or folder of that name, which must not lead out of it."""
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise Unreadable(f"{folder} names {name!r} as a part of it, which is elsewhere.")
    return path


def _rows_of_file(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield dict(msgspec.json.decode(line))
    elif path.suffix == ".arrow":
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
            for batch in stream:
                yield from batch.to_pylist()
    else:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()


if __name__ == "__main__":
    sys.exit(main())
