"""Puts an installation together: the only place that picks concrete classes."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stillroom import auth, jobs
from stillroom.auth import Keys, Sessions, SignInTokens
from stillroom.billing import Budgets
from stillroom.clock import Clock
from stillroom.completions.bulk import BulkActions
from stillroom.completions.facets import Tallies
from stillroom.completions.figures import Speeds
from stillroom.completions.indexing import Indexer
from stillroom.completions.kept import KeptAnswers
from stillroom.completions.recorder import Recorder
from stillroom.config import Settings, secret
from stillroom.datasets.files import Files
from stillroom.datasets.lineage import Lineage
from stillroom.errors import ConfigurationError
from stillroom.evals.agreement import Agreements
from stillroom.evals.items import Items
from stillroom.evals.owner import Evals
from stillroom.fine_tuning import FineTuning
from stillroom.fine_tuning.quote import Quotes
from stillroom.gateway.complete import Gateway
from stillroom.serving.deployments import Deployments
from stillroom.serving.exports import FOLDERS as EXPORT_FOLDERS
from stillroom.serving.exports import Exports
from stillroom.serving.hosting import Hosting
from stillroom.serving.models import Models
from stillroom.store.blobs import Blobs
from stillroom.store.database import Database
from stillroom.store.remembered import Remembered
from stillroom.store.writer import Writer

QUOTE_FOLDERS = "quote-"  # how folders below `runs` begin in which something is measured and nothing is kept
OVERVIEW_SECONDS = 60.0  # how old an overview may be while nothing happens: hosting becomes dearer by the minute


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Everything that runs in one process of an installation."""

    settings: Settings
    clock: Clock
    database: Database
    writer: Writer
    blobs: Blobs
    keys: Keys
    sessions: Sessions
    sign_in_tokens: SignInTokens
    files: Files
    lineage: Lineage
    budgets: Budgets
    kept_answers: KeptAnswers
    tallies: Tallies
    speeds: Speeds
    bulk_actions: BulkActions
    indexer: Indexer
    evals: Evals
    items: Items
    agreements: Agreements
    overviews: Remembered[dict[str, Any]]
    fine_tuning: FineTuning
    quotes: Quotes
    hosting: Hosting
    models: Models
    deployments: Deployments
    exports: Exports
    gateway: Gateway
    worker_name: str
    lock: IO[str] | None

    @property
    def is_server(self) -> bool:
        """Whether this is the one server on its data folder, not a worker beside it."""
        return self.lock is not None

    def close(self) -> None:
        """Commits what is waiting and lets go of the data folder."""
        self.writer.close()
        self.database.close()
        if self.lock is not None:
            self.lock.close()


def open_platform(settings: Settings, *, as_server: bool = True, clock: Clock | None = None) -> Platform:
    """Opens the data folder, making or migrating what is in it.

    A server locks the folder, so that there is one on it at a time; a worker beside it does not.
    Raises ConfigurationError when the folder cannot be used.
    """
    for teacher in settings.teachers.values():
        secret(teacher.api_key)  # one that is missing must be said before anything is made
    clock = clock or Clock()
    folder = _prepare(settings.folder)
    lock = _lock(folder) if as_server else None
    database = Database(folder / "stillroom.db")
    database.migrate()
    writer = Writer(database.writing)
    writer.write(auth.ensure_default_project)
    worker_name = _worker_name(as_server)
    if as_server:
        # The lock is ours, so whoever worked under this name is dead, and its children with it.
        writer.write(lambda connection: jobs.release_all(connection, worker_name))
        for begins in (QUOTE_FOLDERS, EXPORT_FOLDERS):
            for left in (folder / "runs").glob(f"{begins}*"):
                shutil.rmtree(left, ignore_errors=True)
    blobs = Blobs(folder / "blobs")
    files = Files(database, writer, blobs)
    files.purge_expired()
    lineage = Lineage(database, blobs)
    budgets = Budgets(database, writer, clock)
    kept_answers = KeptAnswers(database, writer, clock)
    hosting = Hosting(settings.serving, settings.gateway, folder / "blobs", writer, clock)
    models = Models(settings, database, hosting)
    gateway = Gateway(models, Recorder(writer), kept_answers, settings.gateway, clock)
    evals = Evals(settings, database, writer, files, budgets)
    keys = Keys(database, writer)
    return Platform(
        settings=settings,
        clock=clock,
        database=database,
        writer=writer,
        blobs=blobs,
        keys=keys,
        sessions=Sessions(database, writer, keys, clock),
        sign_in_tokens=SignInTokens(clock),
        files=files,
        lineage=lineage,
        budgets=budgets,
        kept_answers=kept_answers,
        tallies=Tallies(database),
        speeds=Speeds(),
        bulk_actions=BulkActions(database, writer, clock, gateway.being_made),
        indexer=Indexer(database, writer),
        evals=evals,
        items=Items(database, files, lineage),
        agreements=Agreements(database, evals),
        overviews=Remembered(database, OVERVIEW_SECONDS),
        fine_tuning=FineTuning(settings, database, writer, blobs, files, budgets),
        quotes=Quotes(settings, database, writer),
        hosting=hosting,
        models=models,
        deployments=Deployments(settings, database, writer, hosting, models),
        exports=Exports(folder / "runs"),
        gateway=gateway,
        worker_name=worker_name,
        lock=lock,
    )


def ensure_admin_key(platform: Platform) -> str | None:
    """Makes the first key of a new data folder and keeps it in `admin-key`; None when there is one."""
    path = platform.settings.folder / "admin-key"
    if platform.keys.of_project(auth.DEFAULT_PROJECT):
        return None
    _, secret = platform.keys.create(auth.DEFAULT_PROJECT, "admin")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    return secret


def _prepare(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "runs").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The data folder {folder} cannot be made: {error.strerror}.", param="data") from error
    return folder


def _lock(folder: Path) -> IO[str]:
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigurationError(
            f"Another stillroom server is running on the data folder {folder}. Stop it, or choose another with --data.",
            param="data",
        ) from None
    return lock


def _worker_name(as_server: bool) -> str:
    return "server" if as_server else f"worker-{socket.gethostname()[:24]}-{os.getpid()}-{int(time.time())}"
