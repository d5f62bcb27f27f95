"""Projects and the API keys that belong to them. Keys are kept as hashes; a key is shown once.

Owns the tables `projects` and `api_keys`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Delete,
    ForeignKey,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from stillroom import ids
from stillroom.errors import AuthenticationFailed, InvalidRequest, NotFound, shortened
from stillroom.store.database import Database
from stillroom.store.tables import RowId, metadata
from stillroom.store.writer import Writer

KEY_PREFIX = "sk-stillroom-"
KEY_BYTES = 32
SHOWN_LETTERS = len(KEY_PREFIX) + 4
REMEMBERED_SECONDS = 5.0  # how long a revoked key may still work in another process
NAME_LETTERS = 64
DEFAULT_PROJECT = 1

projects = Table(
    "projects",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("shown", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    # A key lent to a job: what the job asks for is counted as its owner's, by the owner's key.
    Column("acts_for", String(64)),
)


_LIVE = select(api_keys.c.id).where(api_keys.c.id == bindparam("key"), api_keys.c.revoked_at.is_(None))


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who calls: the project whose rows are seen, and the key it was known by. `job`: the job that was lent
    a key and calls on its owner's behalf."""

    project: int
    key_id: str
    job: str | None = None


NOBODY = Principal(project=0, key_id="")
"""Who has not said who they are; no project has this number."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as its owner sees it later: without its secret."""

    id: str
    name: str
    shown: str
    created_at: int
    revoked_at: int | None


class Keys:
    """The keys of all projects."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._known: dict[str, tuple[float, Principal | None]] = {}
        self.revocations = 0
        """How many keys were ended since the start: what is remembered from before one was, may be wrong."""

    def check(self, secret: str | None) -> Principal:
        """Whose key this is. Raises AuthenticationFailed for none, an unknown or a revoked one."""
        principal = self._lookup(secret) if secret else None
        if principal is None:
            raise AuthenticationFailed(_refusal(secret))
        return principal

    def remembered(self, secret: str | None) -> Principal | None:
        """As `check`, from memory alone: None when the database must be asked."""
        until, principal = self._known.get(hashed(secret), (0.0, None)) if secret else (0.0, None)
        return principal if until > time.monotonic() else None

    def create(self, project: int, name: str) -> tuple[ApiKey, str]:
        """A new key and its secret, which is not kept."""
        if not name or len(name) > NAME_LETTERS or "\0" in name:
            raise InvalidRequest(f"A key's name has 1 to {NAME_LETTERS} characters; got {len(name)}.", param="name")
        secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
        key = ApiKey(
            id=ids.random_id("key-"),
            name=name,
            shown=secret[:SHOWN_LETTERS],
            created_at=int(time.time()),
            revoked_at=None,
        )
        row = {"id": key.id, "project": project, "name": name, "hash": hashed(secret), "shown": key.shown}
        self._writer.write(lambda c: c.execute(insert(api_keys).values(**row, created_at=key.created_at)))
        return key, secret

    def of_project(self, project: int) -> list[ApiKey]:
        """The project's keys, oldest first, revoked ones included."""
        own = (api_keys.c.project == project, api_keys.c.acts_for.is_(None))
        query = select(api_keys).where(*own).order_by(api_keys.c.created_at, api_keys.c.id)
        with self._database.read() as connection:
            return [
                ApiKey(id=r.id, name=r.name, shown=r.shown, created_at=r.created_at, revoked_at=r.revoked_at)
                for r in connection.execute(query)
            ]

    def revoke(self, project: int, key_id: str) -> None:
        """Ends a key. Raises NotFound when the project has no live key of that id."""
        statement = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.project == project, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=int(time.time()))
        )
        if self._writer.write(lambda c: c.execute(statement).rowcount) == 0:
            raise NotFound(f"No live API key {shortened(key_id)!r} in this project.", param="id")
        self._known.clear()
        self.revocations += 1

    def name_of_live(self, connection: Connection, principal: Principal) -> str | None:
        """The name of the principal's key; None when the key is revoked."""
        query = _LIVE.with_only_columns(api_keys.c.name).where(api_keys.c.project == principal.project)
        name: str | None = connection.execute(query, {"key": principal.key_id}).scalar()
        return name

    def lend(self, project: int, owner_key: str, to: str) -> str:
        """A key for the job `to`, which acts as its owner's and ends with it; any that was lent to the job before
        ends now. Raises AuthenticationFailed when the owner's key is revoked."""
        secret = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
        row = {"id": ids.random_id("key-"), "project": project, "name": to, "hash": hashed(secret), "shown": ""}

        def write(connection: Connection) -> None:
            if connection.execute(_LIVE, {"key": owner_key}).first() is None:
                raise AuthenticationFailed("The API key that asked for this is revoked.")
            connection.execute(_lent(to))
            connection.execute(insert(api_keys).values(**row, created_at=int(time.time()), acts_for=owner_key))

        self._writer.write(write)
        return secret

    def take_back(self, to: str, secret: str | None = None) -> None:
        """Ends the key that was lent to the job; with its secret, that very one, and not one that the job's next
        worker was lent since."""
        statement = _lent(to) if secret is None else _lent(to).where(api_keys.c.hash == hashed(secret))
        self._writer.write(lambda connection: connection.execute(statement))
        self._known.clear()

    def _lookup(self, secret: str) -> Principal | None:
        digest = hashed(secret)
        query = select(api_keys.c.id, api_keys.c.project, api_keys.c.acts_for, api_keys.c.name).where(
            api_keys.c.hash == digest, api_keys.c.revoked_at.is_(None)
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
            if row is not None and row.acts_for and connection.execute(_LIVE, {"key": row.acts_for}).first() is None:
                row = None
        principal = _principal(row) if row else None
        if principal is not None:  # unknown keys are not remembered: guesses must not fill memory
            self._known[digest] = (time.monotonic() + REMEMBERED_SECONDS, principal)
        return principal


def ensure_default_project(connection: Connection) -> None:
    """Makes the project that everything belongs to until there are more."""
    if connection.execute(select(projects.c.id).where(projects.c.id == DEFAULT_PROJECT)).first() is None:
        connection.execute(insert(projects).values(id=DEFAULT_PROJECT, name="default", created_at=int(time.time())))


def _principal(row: Any) -> Principal:
    if row.acts_for is None:
        return Principal(project=row.project, key_id=row.id)
    return Principal(project=row.project, key_id=row.acts_for, job=row.name)


def _lent(to: str) -> Delete:
    return delete(api_keys).where(api_keys.c.acts_for.is_not(None), api_keys.c.name == to)


def hashed(secret: str) -> str:
    """What is kept of a secret."""
    # The secret is 256 random bits, so a fast hash is as good as a slow one; the lookup is by the
    # hash, so that comparing takes no time that would tell an attacker anything.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _refusal(secret: str | None) -> str:
    if not secret:
        return (
            "You didn't provide an API key. Send it as `Authorization: Bearer KEY` or `api-key: KEY`; "
            "the first one is in the file admin-key of the data folder."
        )
    return f"Incorrect API key provided: {secret[:4]}***. Make one with `stillroom keys create NAME`."
