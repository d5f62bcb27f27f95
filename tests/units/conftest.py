"""A platform on a real data folder, without a server around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillroom import auth
from stillroom.assembly import Platform, open_platform
from stillroom.config import Settings
from stillroom.store.database import Database


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(Settings(data=str(tmp_path / "data")))
    yield opened
    opened.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """One with its first project, and nothing around it."""
    opened = Database(tmp_path / "stillroom.db")
    opened.migrate()
    with opened.writing.begin() as connection:
        auth.ensure_default_project(connection)
    yield opened
    opened.close()
