"""Browsers that signed in with a key: sessions, and the one-time tokens that begin one.

Owns the table `sessions`. A session acts as its key and ends with it, when it is signed out, or after
SESSION_SECONDS. Cookies, and which requests may use one, are the API's business.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, ForeignKey, Index, String, Table, delete, insert, select

from stillroom.auth.keys import REMEMBERED_SECONDS, Keys, Principal, hashed
from stillroom.clock import Clock
from stillroom.errors import AuthenticationFailed
from stillroom.store.database import Database
from stillroom.store.tables import metadata
from stillroom.store.writer import Writer

SECRET_BYTES = 32  # a guess is right once in 2^256, so wrong ones need no counting
SESSION_SECONDS = 30 * 24 * 3600
TOKENS_OF_A_KEY = 20  # that wait to be used; a further one takes the place of the oldest

sessions = Table(
    "sessions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser that is signed in: as which key, and until when."""

    principal: Principal
    key_name: str
    expires_at: int


class Sessions:
    """The sessions of all projects."""

    def __init__(self, database: Database, writer: Writer, keys: Keys, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._keys = keys
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[int, int], Session]] = {}
        self._endings = 0

    def begin(self, principal: Principal) -> tuple[Session, str]:
        """A new session and its secret, which is not kept. Raises AuthenticationFailed when the key is
        revoked, or only lent to a job."""
        if principal.job is not None:
            raise AuthenticationFailed("A key lent to a job signs nobody in.")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        now = int(self._clock.now())
        row = {"hash": hashed(secret), "project": principal.project, "key_id": principal.key_id, "created_at": now}

        def write(connection: Connection) -> Session:
            session = self._session(connection, principal, now + SESSION_SECONDS)
            if session is None:
                raise AuthenticationFailed("The API key that this sign-in was for is revoked.")
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            connection.execute(insert(sessions).values(**row, expires_at=session.expires_at))
            return session

        return self._writer.write(write), secret

    def check(self, secret: str) -> Session:
        """Whose session this is. Raises AuthenticationFailed for an unknown one and for one that has ended."""
        digest = hashed(secret)
        as_of = self._as_of()
        query = select(sessions).where(sessions.c.hash == digest, sessions.c.expires_at > int(self._clock.now()))
        with self._database.read() as connection:
            row = connection.execute(query).first()
            principal = Principal(project=row.project, key_id=row.key_id) if row else None
            session = self._session(connection, principal, row.expires_at) if row and principal else None
        if session is None:
            raise AuthenticationFailed(
                "You are signed out: the session was ended, has expired, or its API key was revoked. "
                "Sign in again with a key, or with the address that `stillroom portal` prints."
            )
        self._known[digest] = (time.monotonic() + REMEMBERED_SECONDS, as_of, session)
        return session

    def check_any(self, secrets: Sequence[str]) -> Session:
        """As `check`, of the first of the secrets that has a session."""
        *others, last = secrets
        for secret in others:
            with contextlib.suppress(AuthenticationFailed):
                return self.check(secret)
        return self.check(last)

    def remembered(self, secret: str) -> Session | None:
        """As `check`, from memory alone: None when the database must be asked."""
        until, as_of, session = self._known.get(hashed(secret), (0.0, (0, 0), None))
        if session is None or until <= time.monotonic() or as_of != self._as_of():
            return None
        return session if session.expires_at > self._clock.now() else None

    def end(self, secret: str) -> None:
        """Signs out; does nothing when the session has ended."""
        digest = hashed(secret)
        self._writer.write(lambda connection: connection.execute(delete(sessions).where(sessions.c.hash == digest)))
        # Whoever looked it up just before may remember it only now.
        self._endings += 1
        self._known.pop(digest, None)

    def _as_of(self) -> tuple[int, int]:
        """Changes when what is remembered may be wrong."""
        return self._keys.revocations, self._endings

    def _session(self, connection: Connection, principal: Principal, expires_at: int) -> Session | None:
        name = self._keys.name_of_live(connection, principal)
        return None if name is None else Session(principal=principal, key_name=name, expires_at=expires_at)


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """A token that nobody has used yet."""

    principal: Principal
    expires_at: int


class SignInTokens:
    """Tokens that sign a browser in once, without a key being typed. They end with the server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}  # by the token's hash

    def mint(self, principal: Principal, seconds: int) -> tuple[str, int]:
        """A token that begins one session as the principal's key, and when it expires."""
        now = int(self._clock.now())
        for digest, waiting in list(self._waiting.items()):
            if waiting.expires_at <= now:
                self._waiting.pop(digest, None)
        own = [digest for digest, waiting in list(self._waiting.items()) if waiting.principal == principal]
        for digest in own[: -(TOKENS_OF_A_KEY - 1)]:
            self._waiting.pop(digest, None)
        token = secrets.token_urlsafe(SECRET_BYTES)
        self._waiting[hashed(token)] = _Waiting(principal=principal, expires_at=now + seconds)
        return token, now + seconds

    def redeem(self, token: str) -> Principal:
        """Whom the token signs in. Raises AuthenticationFailed when it is unknown, used or expired."""
        # Taking it out is what makes it work once, also when two ask at the same moment.
        waiting = self._waiting.pop(hashed(token), None)
        if waiting is None or waiting.expires_at <= self._clock.now():
            raise AuthenticationFailed(
                "This sign-in address was used before, has expired, or is from before the server's last start. "
                "`stillroom portal` prints a fresh one; an API key signs in as well."
            )
        return waiting.principal
