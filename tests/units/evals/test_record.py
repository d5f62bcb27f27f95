"""What a worker records: items with what they add to the run's sums, all or nothing, and only with a live claim."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from stillroom import catalog, jobs
from stillroom.assembly import Platform
from stillroom.catalog import DeploymentState
from stillroom.errors import InvalidRequest, StillroomError
from stillroom.evals import order, record
from stillroom.evals.items import Laid
from stillroom.evals.owner import Page
from stillroom.evals.table import KIND, Outcome, Run
from stillroom.jobs import Claim, StaleClaim, State

CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.a }}",
    "operation": "eq",
}
JUDGE: dict[str, Any] = {
    "type": "score_model",
    "name": "judged",
    "model": "gpt-4o",
    "input": [{"role": "user", "content": "{{ sample.output_text }}"}],
}
ALL = Page(after=None, descending=False, limit=100)


@pytest.fixture
def claimed(platform: Platform) -> tuple[Claim, Run]:
    """A run of an eval with two criteria, claimed by a worker."""
    body = {"data_source_config": {"type": "logs"}, "testing_criteria": [CHECK, {**CHECK, "name": "also"}]}
    made = platform.evals.create(1, order.parse_eval(body))
    source = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"a": "b"}}]}}
    asked = order.parse_run({"data_source": source}, made.data_source_config)
    run = platform.evals.start(1, "key-1", made.id, asked)
    claim = platform.writer.write(lambda c: jobs.claim(c, "worker", [KIND]))
    assert claim is not None
    laid = Laid(total=3, trained_on=0, left_out=0, unusable=0)
    platform.writer.write(lambda c: record.record_start(c, claim, laid))
    return claim, run


def found(number: int, *passed: bool | None) -> dict[str, Any]:
    """An item as the runner reports it; None for a criterion that could not be graded."""
    results: list[dict[str, Any]] = [
        {
            "name": "n",
            "type": "t",
            "score": 0.0,
            "passed": bool(one),
            "sample": None,
            "problem": None if one is not None else {},
        }
        for one in passed
    ]
    status = "error" if None in passed or not passed else "pass" if all(passed) else "fail"
    usage = {"m": {"invocation_count": 1, "prompt_tokens": 2, "completion_tokens": 3}}
    return {
        "type": "item",
        "number": number,
        "status": status,
        "item": {},
        "sample": {},
        "results": results,
        "usage": usage,
    }


def now(platform: Platform, run: Run) -> Run:
    return platform.evals.get_run(1, run.eval, run.id)


def test_counts_criteria_and_usage_grow_with_the_items(platform: Platform, claimed: tuple[Claim, Run]) -> None:
    claim, run = claimed
    platform.writer.write(lambda c: record.record_items(c, claim, [found(0, True, True), found(1, True, False)]))
    platform.writer.write(lambda c: record.record_items(c, claim, [found(2, True, None)]))
    seen = now(platform, run)
    assert (seen.counts.total, seen.counts.passed, seen.counts.failed, seen.counts.errored) == (3, 1, 1, 1)
    assert seen.criteria == [{"passed": 3, "failed": 0}, {"passed": 1, "failed": 1}]
    assert seen.usage == {"m": {"invocation_count": 3, "prompt_tokens": 6, "completion_tokens": 9}}
    items, more = platform.evals.output_items(1, run.eval, run.id, ALL, outcome=None)
    assert ([item.item for item in items], more) == ([0, 1, 2], False)
    assert [item.outcome for item in items] == [Outcome.PASS, Outcome.FAIL, Outcome.ERROR]
    assert list(platform.evals.walk(seen)) == items


def test_items_are_listed_by_their_place_in_the_data_source_whenever_they_were_graded(
    platform: Platform, claimed: tuple[Claim, Run]
) -> None:
    claim, run = claimed
    order_of_grading = [2, 0, 3, 1, 4]
    for number in order_of_grading:
        platform.writer.write(lambda c, n=number: record.record_items(c, claim, [found(n, n % 2 == 0, True)]))

    def listed(descending: bool, outcome: Outcome | None) -> list[int]:
        """Page by page, two at a time."""
        numbers: list[int] = []
        after, more = None, True
        while more:
            page = Page(after=after, descending=descending, limit=2)
            some, more = platform.evals.output_items(1, run.eval, run.id, page, outcome=outcome)
            numbers += [item.item for item in some]
            after = some[-1].id
        return numbers

    assert listed(False, None) == [0, 1, 2, 3, 4]
    assert listed(True, None) == [4, 3, 2, 1, 0]
    assert listed(False, Outcome.PASS) == [0, 2, 4]
    assert listed(True, Outcome.FAIL) == [3, 1]
    assert [item.item for item in platform.evals.walk(run)] == [0, 1, 2, 3, 4]


def test_a_judge_must_be_there_when_an_eval_is_made_and_still_when_it_is_run(platform: Platform) -> None:
    judge = {**JUDGE, "model": "my-judge"}
    asked = order.parse_eval({"data_source_config": {"type": "logs"}, "testing_criteria": [CHECK, judge]})
    with pytest.raises(InvalidRequest, match="`my-judge` does not exist") as refused:
        platform.evals.create(1, asked)
    assert (refused.value.param, refused.value.code) == ("testing_criteria[1].model", "model_not_found")
    there = {"model": "scratch-small", "state": DeploymentState.SUCCEEDED, "extra": {}}
    platform.writer.write(lambda c: catalog.put_deployment(c, 1, "my-judge", **there))
    made = platform.evals.create(1, asked)
    platform.writer.write(lambda c: catalog.delete_deployment(c, 1, "my-judge"))
    source = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"a": "b"}}]}}
    run = order.parse_run({"data_source": source}, made.data_source_config)
    with pytest.raises(InvalidRequest, match="`my-judge` does not exist"):
        platform.evals.start(1, "key-1", made.id, run)


def test_an_item_without_results_counts_for_no_criterion(platform: Platform, claimed: tuple[Claim, Run]) -> None:
    claim, run = claimed
    platform.writer.write(lambda c: record.record_items(c, claim, [found(0)]))
    assert now(platform, run).criteria == [{"passed": 0, "failed": 0}, {"passed": 0, "failed": 0}]


def test_an_item_is_never_recorded_twice_and_takes_its_whole_batch_with_it(
    platform: Platform, claimed: tuple[Claim, Run]
) -> None:
    claim, run = claimed
    platform.writer.write(lambda c: record.record_items(c, claim, [found(0, True, True)]))
    with pytest.raises((IntegrityError, StillroomError)):
        platform.writer.write(lambda c: record.record_items(c, claim, [found(1, True, True), found(0, True, True)]))
    assert now(platform, run).counts.passed == 1
    with platform.database.read() as connection:
        assert record.graded_items(connection, run.id) == [0]


def test_a_claim_that_is_lost_records_nothing(platform: Platform, claimed: tuple[Claim, Run]) -> None:
    claim, run = claimed
    platform.writer.write(lambda c: c.execute(update(jobs.jobs).values(fence=claim.fence + 1)))
    for work in (
        lambda c: record.record_items(c, claim, [found(0, True, True)]),
        lambda c: record.finish(c, claim),
        lambda c: record.fail(c, claim, StillroomError("no")),
        lambda c: record.set_aside(c, claim, State.QUEUED),
    ):
        with pytest.raises(StaleClaim):
            platform.writer.write(work)
    seen = now(platform, run)
    assert (seen.state, seen.counts.passed, seen.finished_at) == (State.RUNNING, 0, None)


def test_a_cancelled_run_records_nothing_more(platform: Platform, claimed: tuple[Claim, Run]) -> None:
    claim, run = claimed
    assert platform.evals.cancel(1, run.eval, run.id).state is State.CANCELLED
    with pytest.raises(StaleClaim):
        platform.writer.write(lambda c: record.record_items(c, claim, [found(0, True, True)]))


def test_a_run_ends_with_its_time_and_a_failed_one_with_its_reason(
    platform: Platform, claimed: tuple[Claim, Run]
) -> None:
    claim, run = claimed
    platform.writer.write(lambda c: record.fail(c, claim, StillroomError("The model is gone.", code="gone")))
    seen = now(platform, run)
    assert (seen.state, seen.error) == (State.FAILED, {"code": "gone", "message": "The model is gone."})
    assert seen.finished_at is not None
