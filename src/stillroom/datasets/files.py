"""The files of a project: uploads, training files, results. Owns the table `files`; the bytes are blobs."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    RowMapping,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
)

from stillroom import ids
from stillroom.datasets import check
from stillroom.errors import InvalidRequest, InvalidTrainingFile, NotFound, shortened
from stillroom.store.blobs import Blobs
from stillroom.store.database import Database
from stillroom.store.tables import RowId, metadata
from stillroom.store.writer import Writer

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
RESULTS = "fine-tune-results"
NAME_LETTERS = 255
EXPIRY_SECONDS = (3600, 2_592_000)  # shortest and longest life of a file that expires

files = Table(
    "files",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("status", String(16), nullable=False),
    Column("status_details", Text),
    # What the check of a training file found; NULL for other purposes and broken files.
    Column("examples", Integer),
    Column("image_line", Integer),
    Column("preference_line", Integer),
    # The filter that a file of stored completions was selected by, and how many answers of which model it has.
    Column("selection", Text),
    Index("ix_files_project_number", "project", "number"),
)


class Status(enum.StrEnum):
    """ERROR marks a training file that cannot be read; its details say where."""

    PROCESSED = "processed"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class File:
    """One file's row. `number` orders files by their making."""

    number: int
    id: str
    project: int
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None
    status: Status
    status_details: str | None
    examples: int | None
    image_line: int | None
    preference_line: int | None
    selection: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class PreparedFile:
    """A file whose bytes are stored and that nobody has yet."""

    id: str
    row: Mapping[str, Any]


class Files:
    """Every project's files. All methods block; none is for the event loop."""

    def __init__(self, database: Database, writer: Writer, blobs: Blobs) -> None:
        self._database = database
        self._writer = writer
        self._blobs = blobs
        self.curating = asyncio.Lock()
        """Whoever curates rows holds it: the work is heavy, and two at a time would only slow each other."""

    def create(
        self,
        project: int,
        filename: str,
        purpose: str,
        pieces: Iterable[bytes],
        *,
        expires_after_seconds: int | None = None,
        selection: Mapping[str, Any] | None = None,
        report: bytes | None = None,
    ) -> File:
        """Stores the pieces joined. A training file is read line by line: what is wrong with it is
        in the status, so that the upload itself succeeds as it does elsewhere. `report`: that of its curation."""
        file_id = ids.random_id("file-")
        prepared = self.prepare(
            file_id,
            project,
            filename,
            purpose,
            pieces,
            expires_after_seconds=expires_after_seconds,
            selection=selection,
        )
        if report is not None:
            self._blobs.write(_report(file_id), [report])
        self._writer.write(lambda c: self.add(c, prepared))
        return self.get(project, file_id)

    def prepare(
        self,
        file_id: str,
        project: int,
        filename: str,
        purpose: str,
        pieces: Iterable[bytes],
        *,
        expires_after_seconds: int | None = None,
        selection: Mapping[str, Any] | None = None,
    ) -> PreparedFile:
        """As `create`, but for that the project has no such file before `add`, which belongs into a transaction.
        What was prepared under the same id and never added is replaced."""
        if purpose not in (*PURPOSES, RESULTS):
            raise InvalidRequest(f"{purpose!r} is not one of {list(PURPOSES)!r} - 'purpose'", param="purpose")
        _check_name(filename)
        size = self._blobs.write(_blob(file_id), pieces)
        created_at = int(time.time())
        row = {
            "id": file_id,
            "project": project,
            "filename": filename,
            "purpose": purpose,
            "bytes": size,
            "created_at": created_at,
            "expires_at": created_at + expires_after_seconds if expires_after_seconds else None,
            **_examine(self._blobs.path(_blob(file_id)), purpose),
            "selection": msgspec.json.encode(selection).decode() if selection is not None else None,
        }
        return PreparedFile(id=file_id, row=row)

    def add(self, connection: Connection, prepared: PreparedFile) -> None:
        """The project has the file from now on."""
        connection.execute(insert(files).values(**prepared.row))

    def get(self, project: int, file_id: str) -> File:
        """Raises NotFound when the project has no such file."""
        query = select(files).where(files.c.project == project, files.c.id == file_id, _alive())
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"No such File object: {shortened(file_id)}", param="id")
        return _file_of(row)

    def examples_of(self, project: int, file_ids: Collection[str]) -> dict[str, int]:
        """How many examples each of the files has, by its id; those that are gone or have none counted are left out."""
        row = files.c
        query = select(row.id, row.examples).where(
            row.project == project, row.id.in_(file_ids), row.examples.is_not(None)
        )
        with self._database.read() as connection:
            return {found.id: found.examples for found in connection.execute(query)}

    def page(
        self, project: int, *, purpose: str | None, after: str | None, descending: bool, limit: int
    ) -> tuple[list[File], bool]:
        """A page of files and whether more follow."""
        query = select(files).where(files.c.project == project, _alive())
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        number = files.c.number
        if after is not None:
            cursor = self.get(project, after).number
            query = query.where(number < cursor if descending else number > cursor)
        query = query.order_by(number.desc() if descending else number.asc()).limit(limit + 1)
        with self._database.read() as connection:
            rows = [_file_of(row) for row in connection.execute(query).mappings()]
        return rows[:limit], len(rows) > limit

    def path(self, project: int, file_id: str) -> Path:
        """Where the bytes lie."""
        return self._blobs.path(_blob(self.get(project, file_id).id))

    def report(self, project: int, file_id: str) -> bytes:
        """The report of the curation that made the file. Raises NotFound when there was none."""
        file = self.get(project, file_id)
        try:
            return self._blobs.path(_report(file.id)).read_bytes()
        except NotFound:
            raise NotFound(
                f"{file.id} has no report: it was not made of stored completions with 'curation'.", param="id"
            ) from None

    def delete(self, project: int, file_id: str) -> None:
        """Removes the row, then the bytes. Raises NotFound when the project has no such file."""
        statement = delete(files).where(files.c.project == project, files.c.id == file_id)
        if self._writer.write(lambda c: c.execute(statement).rowcount) == 0:
            raise NotFound(f"No such File object: {shortened(file_id)}", param="id")
        self._blobs.delete(_blob(file_id))
        self._blobs.delete(_report(file_id))

    def purge_expired(self) -> None:
        """Removes the files whose time is over; they have been invisible since."""
        with self._database.read() as connection:
            dead = list(connection.execute(select(files.c.project, files.c.id).where(~_alive())))
        for row in dead:
            self.delete(row.project, row.id)


def _file_of(row: RowMapping) -> File:
    selection = msgspec.json.decode(row["selection"]) if row["selection"] else None
    return File(**{**row, "status": Status(row["status"]), "selection": selection})


def _alive() -> ColumnElement[bool]:
    return files.c.expires_at.is_(None) | (files.c.expires_at > int(time.time()))


def _blob(file_id: str) -> str:
    return f"files/{file_id}"


def _report(file_id: str) -> str:
    return f"reports/{file_id}"


def _check_name(filename: str) -> None:
    if not filename or len(filename) > NAME_LETTERS or "\0" in filename:
        raise InvalidRequest(f"A file's name has 1 to {NAME_LETTERS} characters and no NUL.", param="file")


def _examine(path: Path, purpose: str) -> dict[str, object]:
    if purpose != "fine-tune":
        return {"status": Status.PROCESSED.value}
    try:
        report = check.check_file(path)
    except InvalidTrainingFile as error:
        return {"status": Status.ERROR.value, "status_details": error.message}
    return {
        "status": Status.PROCESSED.value,
        "examples": report.examples,
        "image_line": report.image_line,
        "preference_line": report.preference_line,
    }
