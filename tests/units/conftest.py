"""A platform on a real data folder, without a server around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillroom.assembly import Platform, open_platform
from stillroom.config import Settings


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(Settings(data=str(tmp_path / "data")))
    yield opened
    opened.close()
