"""The rows of a JSONL file, each read when it is asked for: only where they begin is kept in memory."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import msgspec

LINE_BYTES = 32 * 1024 * 1024  # a longer line is no chat example
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BROKEN = "a line that is no JSON object"


class _Rows(Sequence[Any]):
    """Rows by their place, from 0, and slices of them."""

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._at(place) for place in range(*index.indices(len(self)))]
        return self._at(index)

    @abstractmethod
    def _at(self, place: int) -> Any:
        """The row there."""


class FileRows(_Rows):
    """Blank lines are no rows; a line that cannot be read is one, and malformed. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._begins = array("q")
        self.lines = array("q")
        """The line number of each row, from 1."""
        at = 0
        for number, line in enumerate(_lines(self._file), start=1):
            if line.strip():
                self._begins.append(at)
                self.lines.append(number)
            at = self._file.tell()

    def __enter__(self) -> FileRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._begins)

    def _at(self, place: int) -> Any:
        self._file.seek(self._begins[place])
        line = self._file.readline(LINE_BYTES + 1)
        if len(line) > LINE_BYTES:
            return BROKEN
        try:
            return msgspec.json.decode(line.removeprefix(BYTE_ORDER_MARK))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return BROKEN


class Named(_Rows):
    """What each row says under a field: its name, where the rows themselves have one."""

    def __init__(self, rows: Sequence[Any], field: str) -> None:
        self._rows = rows
        self._field = field

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, place: int) -> Any:
        return self._rows[place][self._field]


def _lines(file: Any) -> Iterator[bytes]:
    """Each line, of a long one only its beginning."""
    while line := file.readline(LINE_BYTES + 1):
        begin = line
        while not line.endswith(b"\n") and (line := file.readline(LINE_BYTES + 1)):
            pass
        yield begin
