"""The connection to the database: SQLite unless told otherwise, migrated before first use.

Reads run in any thread on pooled connections; writes go through the one writer (`writer.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stillroom.errors import ConfigurationError, StoreUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_MS = 5000
READERS = 8  # connections that are kept; as many more are opened while all of them are busy
WAIT_SECONDS = 30.0


class Database:
    """One SQLite file, opened for reading by many and for writing by one."""

    def __init__(self, path: Path, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """`wait_seconds`: how long who reads may wait until one of the others has read."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite+pysqlite:///{path}"
        # The one used last is taken first: its statements are prepared, and it has in memory what was read last.
        readers = {"pool_size": READERS, "max_overflow": READERS, "pool_use_lifo": True, "pool_timeout": wait_seconds}
        self._readers = _engine(url, begin="BEGIN", **readers)
        self.writing = _engine(url, begin="BEGIN IMMEDIATE", pool_size=1, max_overflow=0)
        self._counter: PoolProxiedConnection | None = None
        self._counting = threading.Lock()

    def migrate(self) -> None:
        """Brings the schema up to date. Refuses, and writes nothing, when it is newer or damaged."""
        try:
            with self.writing.connect() as connection:
                _refuse_newer(connection, self.path)
                command.upgrade(_alembic(connection), "head")
                connection.commit()
        except DatabaseError as error:
            raise ConfigurationError(
                f"The database {self.path} cannot be opened: {error.orig}. "
                "Put back a copy of it, or start with another data folder.",
                param="data",
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one consistent state. Raises StoreUnavailable when none becomes free in time."""
        with self._connect() as connection:
            yield connection

    def _connect(self) -> Connection:
        try:
            return self._readers.connect()
        except PoolTimeout as error:
            raise StoreUnavailable(
                f"All {2 * READERS} connections to the database are busy with other requests. Try again."
            ) from error

    def watch(self) -> Watch:
        """Tells when it is worth looking again."""
        return Watch(self)

    def version(self) -> int:
        """Another number after each commit, whoever made it; only of this object's numbers is that true.
        Costs some microseconds."""
        with self._counting:
            if self._counter is None:
                self._counter = self._readers.raw_connection()
            # SQLite counts, for each connection, what the others commit: so this one is kept, and never writes.
            cursor = self._counter.cursor()
            number: int = cursor.execute("PRAGMA data_version").fetchone()[0]
            cursor.close()
            return number

    def close(self) -> None:
        if self._counter is not None:
            self._counter.close()
        self._readers.dispose()
        self.writing.dispose()


class Watch:
    """Whether anything was committed since this was last asked, so that whoever waits for work need not query for
    it: an idle server is to cost nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: int | None = None

    def anything_new(self) -> bool:
        """True the first time."""
        version = self._database.version()
        changed = version != self._seen
        self._seen = version
        return changed


def _engine(url: str, *, begin: str, **pool: Any) -> Engine:
    engine = create_engine(url, connect_args={"check_same_thread": False}, **pool)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: it would begin deferred ones, which
        # fail with "database is locked" at their first write without waiting.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={LOCK_WAIT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _refuse_newer(connection: Connection, path: Path) -> None:
    if not inspect(connection).has_table("alembic_version"):
        return
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    try:
        ScriptDirectory.from_config(_alembic(connection)).get_revision(revision or "base")
    except CommandError as error:
        raise ConfigurationError(
            f"The database {path} was made by a newer stillroom (schema {revision}). Install that version.",
            param="data",
        ) from error
