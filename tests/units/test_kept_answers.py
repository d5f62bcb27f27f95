"""Kept answers: found by key, removed by prefix and by age."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from stillroom.assembly import Platform, open_platform
from stillroom.completions import kept
from stillroom.completions.kept import KEPT_SECONDS
from stillroom.config import Settings
from tests.units.test_budgets import Hands


@pytest.fixture
def clock() -> Hands:
    return Hands("2026-11-01T00:00:00")


@pytest.fixture
def platform(tmp_path: Path, clock: Hands) -> Iterator[Platform]:
    opened = open_platform(Settings(data=str(tmp_path / "data")), clock=clock)
    with opened.database.writing.begin() as connection:
        connection.execute(text("INSERT INTO projects VALUES (2, 'other', 0)"))
    yield opened
    opened.close()


def keep(platform: Platform, *keys: str, project: int = 1) -> None:
    for key in keys:
        answer = kept.pack(project=project, key=key, request_hash=b"h" * 32, body=f"answer to {key}".encode())
        platform.writer.write(lambda c, answer=answer: kept.add(c, answer))


def there(platform: Platform, *keys: str, project: int = 1) -> list[str]:
    return [key for key in keys if platform.kept_answers.find(project, key)]


def test_an_answer_is_found_by_its_project_and_key(platform: Platform) -> None:
    keep(platform, "a", "b c~!")
    found = platform.kept_answers.find(1, "b c~!")
    assert found is not None
    assert (found.body, found.request_hash) == (b"answer to b c~!", b"h" * 32)
    assert platform.kept_answers.find(2, "a") is None
    assert platform.kept_answers.find(1, "A") is None


def test_a_prefix_is_forgotten_and_its_neighbours_are_not(platform: Platform) -> None:
    ours = ("run-1/", "run-1/0", "run-1/zz", "run-1/~~")
    others = ("run-1", "run-10", "run-2/0", "Run-1/0", "run-1.", "run-10/0", "run-11/")
    keep(platform, *ours, *others)
    keep(platform, "run-1/0", project=2)
    assert platform.kept_answers.forget(1, "run-1/") == len(ours)
    assert there(platform, *ours, *others) == list(others)
    assert there(platform, "run-1/0", project=2) == ["run-1/0"]
    keep(platform, "~~x", "~x")
    assert platform.kept_answers.forget(1, "~~") == 1


def test_forgetting_searches_the_keys_index(platform: Platform) -> None:
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        platform.kept_answers.forget(1, "run-1/")
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    statement, parameters = next(each for each in seen if each[0].startswith("SELECT") and ">=" in each[0])
    with platform.database.read() as connection:
        (plan,) = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert plan.startswith("SEARCH kept_answers USING")
    assert plan.endswith("(project=? AND key>? AND key<?)")


def test_answers_go_after_a_day_and_are_looked_for_once_an_hour(platform: Platform, clock: Hands) -> None:
    keep(platform, "old", "new")
    now = int(clock.now())
    with platform.database.writing.begin() as connection:
        connection.execute(text(f"UPDATE kept_answers SET created_at = {now - KEPT_SECONDS - 1} WHERE key = x'6f6c64'"))
        connection.execute(text(f"UPDATE kept_answers SET created_at = {now - KEPT_SECONDS} WHERE key = x'6e6577'"))
    platform.kept_answers.purge_old()
    assert there(platform, "old", "new") == ["new"]
    clock.set("2026-11-01T00:10:00")
    clock.passed += 600
    platform.kept_answers.purge_old()
    assert there(platform, "new") == ["new"]
    clock.passed += 3001
    platform.kept_answers.purge_old()
    assert there(platform, "new") == []
