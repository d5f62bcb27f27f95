"""Files and model folders that last, in one folder on disk.

Names are made by us, never by callers. A blob is complete or absent: it is written under another
name, forced to disk, then renamed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from stillroom.errors import DiskFull, NotFound

NAME = re.compile(r"[a-z]+/[A-Za-z0-9_-]+(/[A-Za-z0-9._-]+)?")
DISK_FULL = 28  # errno.ENOSPC


class Blobs:
    """Blobs below one folder, named `kind/id`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the blob lies on this machine. Raises NotFound when there is none."""
        path = self._place(name)
        if not path.exists():
            raise NotFound(f"The stored content {name} is missing from the data folder.")
        return path

    def size(self, name: str) -> int | None:
        """The bytes of the blob, a folder's files added; None when there is none."""
        place = self._place(name)
        try:
            files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
            return sum(path.stat().st_size for path in files)
        except FileNotFoundError:
            return None  # deleted meanwhile, too

    def write(self, name: str, pieces: Iterable[bytes]) -> int:
        """Stores the pieces joined; gives the number of bytes."""
        target = self._place(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{threading.get_ident()}")
        try:
            size = _write_through(draft, pieces)
            draft.rename(target)
        except OSError as error:
            draft.unlink(missing_ok=True)
            if error.errno == DISK_FULL:
                raise DiskFull("The disk that holds the data folder is full; the file was not stored.") from error
            raise
        _sync_folder(target.parent)
        return size

    def write_folder(self, name: str, source: Path) -> Path:
        """Stores a copy of a folder of files; gives where it lies. Raises FileNotFoundError when it goes meanwhile."""
        target = self._place(name)
        if target.exists():
            return target
        # A name of its own: a worker that was taken for dead may be storing the same.
        draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        draft.mkdir(parents=True)
        try:
            _copy_through(source, draft)
            draft.rename(target)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not target.exists():
                raise
        _sync_folder(target.parent)
        return target

    def clear_drafts(self, name: str) -> None:
        """Removes what was left unfinished of folders whose names begin so, by processes that were killed."""
        place = self._place(name)
        for draft in place.parent.glob(f".{place.name}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def delete(self, name: str) -> None:
        """Removes the blob, file or folder; does nothing when it is gone."""
        path = self._place(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        if not NAME.fullmatch(name) or ".." in name:
            raise ValueError(f"not a blob name: {name!r}")
        return self._folder / name


def _write_through(path: Path, pieces: Iterable[bytes]) -> int:
    size = 0
    with path.open("wb") as file:
        for piece in pieces:
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return size


def _copy_through(source: Path, target: Path) -> None:
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"{source} holds no files.")
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as content:
            _write_through(copy, iter(lambda content=content: content.read(1 << 20), b""))  # type: ignore[misc]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
