"""The overview's agreement is the newest run's that compared something, and each run is read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillroom import jobs
from stillroom.assembly import Platform, open_platform
from stillroom.config import Settings, Teacher
from stillroom.evals import order, record
from stillroom.evals.agreement import RUNS
from stillroom.evals.items import Laid
from stillroom.evals.table import KIND, Run
from tests.units.evals.test_record import CHECK, found

STORED = {
    "type": "completions",
    "source": {"type": "stored_completions"},
    "model": "gpt-4o",
    "input_messages": {"type": "item_reference", "item_reference": "item.input"},
}
GIVEN = {
    "type": "completions",
    "source": {"type": "file_content", "content": [{"item": {"a": "b"}}]},
    "model": "gpt-4o",
    "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{ item.a }}"}]},
}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    teachers = {"gpt-4o": Teacher(base_url="http://127.0.0.1:9")}
    opened = open_platform(Settings(data=str(tmp_path / "data"), teachers=teachers))
    yield opened
    opened.close()


def ran(platform: Platform, source: dict[str, Any], *agreeing: bool) -> Run:
    """A run that has succeeded, with an item for each comparison."""
    made = platform.evals.create(
        1, order.parse_eval({"data_source_config": {"type": "logs"}, "testing_criteria": [CHECK]})
    )
    run = platform.evals.start(1, "key-1", made.id, order.parse_run({"data_source": source}, made.data_source_config))
    claim = platform.writer.write(lambda c: jobs.claim(c, "worker", [KIND]))
    assert claim is not None
    laid = Laid(total=len(agreeing), trained_on=0, left_out=0, unusable=0)
    reference = {"model": "gpt-4o"}
    items = [
        {**found(number, True), "agrees": agrees, "reference": reference} for number, agrees in enumerate(agreeing)
    ]
    platform.writer.write(lambda c: record.record_start(c, claim, laid))
    if items:
        platform.writer.write(lambda c: record.record_items(c, claim, items))
    platform.writer.write(lambda c: record.finish(c, claim))
    return run


def newest(platform: Platform) -> tuple[str, float] | None:
    agreement = platform.agreements.newest(1)
    return None if agreement is None else (agreement.run, agreement.agreeing.share)


def test_a_run_that_compared_nothing_does_not_hide_the_one_before(platform: Platform) -> None:
    assert newest(platform) is None
    older = ran(platform, STORED, True, True, False, True)
    assert newest(platform) == (older.id, 0.75)
    ran(platform, STORED)
    ran(platform, GIVEN, True)
    assert newest(platform) == (older.id, 0.75)
    newer = ran(platform, STORED, False)
    assert newest(platform) == (newer.id, 0.0)
    platform.evals.delete(1, newer.eval)
    assert newest(platform) == (older.id, 0.75)


def test_only_so_many_runs_are_looked_at(platform: Platform) -> None:
    older = ran(platform, STORED, True)
    for _ in range(RUNS - 1):
        ran(platform, GIVEN)
    assert newest(platform) == (older.id, 1.0)
    ran(platform, GIVEN)
    assert newest(platform) is None
