"""The database when everybody reads at once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from stillroom.errors import StoreUnavailable
from stillroom.store.database import READERS, Database


def test_who_finds_all_connections_busy_for_long_is_told_to_come_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "stillroom.db", wait_seconds=0.05)
    database.migrate()
    with ExitStack() as held:
        for _ in range(2 * READERS):
            held.enter_context(database.read())
        with pytest.raises(StoreUnavailable, match="All 16 connections to the database are busy"), database.read():
            pass
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()
