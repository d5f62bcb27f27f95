"""What the database must keep to: its schema, its query plans, its words, its counts."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, Select, event, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import ClauseElement

from stillroom import auth, billing, catalog, fine_tuning, ids, jobs
from stillroom.assembly import Platform, ensure_admin_key, open_platform
from stillroom.billing import By, Entry, Kind, Period
from stillroom.billing.record import fold
from stillroom.catalog import DeploymentState
from stillroom.clock import Clock
from stillroom.completions import batch, bulk, facets, figures, kept, matching, search, soft_labels, table
from stillroom.completions.table import Filter, NewCompletion, Status
from stillroom.config import Price, Settings
from stillroom.errors import StoreUnavailable
from stillroom.evals import record
from stillroom.evals.items import Laid
from stillroom.evals.order import parse_eval, parse_run
from stillroom.evals.owner import Page
from stillroom.evals.table import Outcome, project_of
from stillroom.fine_tuning.quote import Measurement
from stillroom.jobs import State
from stillroom.serving.prices import price_book
from stillroom.store.tables import metadata
from tests.support import example_lines

PROJECT = auth.DEFAULT_PROJECT
EVAL = {
    "data_source_config": {"type": "logs"},
    "testing_criteria": [{"type": "string_check", "name": "same", "operation": "eq", "input": "a", "reference": "a"}],
}
EVAL_CONFIG = parse_eval(EVAL).data_source_config
NUMBERS = ids.OrderedNumbers()


class NextYear(Clock):
    """A clock that is a year ahead."""

    def now(self) -> float:
        return super().now() + 365 * 24 * 3600


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = open_platform(Settings(data=str(tmp_path / "data")))
    yield opened
    opened.close()


def add(platform: Platform, *, text: str = "hi", system: str = "be brief", model: str = "gpt-4o", **pairs: str) -> int:
    """Stores one completion; gives its number."""
    new = NewCompletion(
        number=NUMBERS.mint(),
        project=PROJECT,
        created_at=1,
        model=model,
        status=Status.COMPLETED,
        request={"messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]},
        response={"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]},
        metadata=pairs,
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=1,
        latency_ms=1,
    )
    platform.writer.write(lambda connection: table.add(connection, new, table.pack(new.request, new.response)))
    return new.number


# --- schema ---------------------------------------------------------------------------------------------


def test_the_migrated_schema_is_the_tables_own(platform: Platform) -> None:
    def told(name: str | None, kind: str, _parents: Any) -> bool:
        return not (kind == "table" and name is not None and name.startswith(search.TABLE))  # FTS5's own

    with platform.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": told})
        assert compare_metadata(context, metadata) == []


def test_migrating_twice_changes_nothing(platform: Platform) -> None:
    number = add(platform)
    platform.database.migrate()
    with platform.database.read() as connection:
        assert table.get(connection, PROJECT, number) is not None


def test_every_row_of_every_table_belongs_to_a_project(platform: Platform) -> None:
    """Of a project itself, or of a row that does."""
    through_another = {
        "projects",
        "completion_metadata",
        "soft_labels",
        "fine_tuning_events",
        "fine_tuning_checkpoints",
        "eval_output_items",
    }
    assert {name for name, each in metadata.tables.items() if "project" not in each.c} == through_another


# --- plans ----------------------------------------------------------------------------------------------


@contextmanager
def executed() -> Iterator[list[tuple[str, Any]]]:
    """The SQL of the statements that run meanwhile, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plan(platform: Platform, statement: str, parameters: Any) -> list[str]:
    with platform.database.read() as connection:
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def plans(platform: Platform, work: Callable[[Connection], object]) -> list[list[str]]:
    """The plan of each SELECT that the work runs."""
    with executed() as seen, platform.database.read() as connection:
        work(connection)
    return [plan(platform, statement, parameters) for statement, parameters in seen if statement.startswith("SELECT")]


BY_PROJECT = "SEARCH completions USING COVERING INDEX ix_completions_project_number (project=?)"
BY_MODEL = "SEARCH completions USING COVERING INDEX ix_completions_project_model_number (project=? AND model=?)"
BY_INCOMPLETE = "SEARCH completions USING INDEX ix_completions_incomplete (project=?)"
BY_BOTH = "SEARCH completions USING INDEX ix_completions_incomplete_model (project=? AND model=?)"
BY_PROJECT_ROWS, BY_MODEL_ROWS = (line.replace("COVERING ", "") for line in (BY_PROJECT, BY_MODEL))
BY_PAIR = "SEARCH completion_metadata USING PRIMARY KEY (pair=?)"
BY_WORDS = "SCAN completion_search VIRTUAL TABLE"
OTHER_PAIR = "SEARCH completion_metadata_1 USING PRIMARY KEY (pair=? AND completion=?)"
ANOTHER_PAIR = OTHER_PAIR.replace("_1", "_2")
ITS_ROW = "SEARCH completions_1 USING INTEGER PRIMARY KEY (rowid=?)"
ROWS = "SEARCH completions USING INTEGER PRIMARY KEY (rowid=?)"
THEIR_PREFIXES = "SEARCH prefixes USING INTEGER PRIMARY KEY (rowid=?)"
PAIR_ITSELF = "SEARCH metadata_pairs USING INDEX sqlite_autoindex_metadata_pairs_1 (project=? AND key=? AND value=?)"
IN_ORDER = "USE TEMP B-TREE FOR ORDER BY"  # of at most sixteen pairs


def bare(line: str) -> str:
    """A line of a plan without the cursor, which is one more bound of the same search."""
    line = re.sub(r" AND (number|completion)[<>]\?(?: AND (?:number|completion)[<>]\?)?\)$", ")", line)
    return re.sub(r"(VIRTUAL TABLE) INDEX \S+$", r"\1", line)


@pytest.mark.parametrize(("after", "descending"), [(None, False), (None, True), (1, False), (2**62, True)])
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filter(), [BY_PROJECT]),
        (Filter(model="gpt-4o"), [BY_MODEL]),
        (Filter(status=Status.INCOMPLETE), [BY_INCOMPLETE]),
        (Filter(status=Status.INCOMPLETE, model="gpt-4o"), [BY_BOTH]),
        (Filter(status=Status.COMPLETED), [BY_PROJECT_ROWS]),
        (Filter(created_after=0, created_before=2**40), [BY_PROJECT_ROWS]),
        (Filter(created_after=0, model="gpt-4o"), [BY_MODEL_ROWS]),
        (Filter(metadata={"a": "1"}), [BY_PAIR]),
        (Filter(metadata={"a": "1", "b": "2"}), [BY_PAIR, OTHER_PAIR]),
        (Filter(metadata={"a": "1"}, created_after=0), [BY_PAIR, ITS_ROW]),
        (Filter(search="hi"), [BY_WORDS, ITS_ROW]),
        (Filter(search="hi", metadata={"a": "1", "b": "2"}), [BY_WORDS, OTHER_PAIR, ANOTHER_PAIR, ITS_ROW]),
    ],
)
def test_a_page_of_completions_is_read_in_order_from_one_index(
    platform: Platform, chosen: Filter, expected: list[str], after: int | None, descending: bool
) -> None:
    add(platform, a="1", b="2")
    platform.indexer.step()
    found = plans(platform, lambda c: table.numbers(c, PROJECT, chosen, after=after, descending=descending, limit=21))
    assert [bare(line) for line in found[-1] if "SUBQUERY" not in line] == expected


def test_what_is_rare_is_walked_and_what_is_common_looked_up(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "FEW", 2)
    monkeypatch.setattr(matching, "MANY", 8)
    for n in range(3):
        add(platform, a="1", text=f"rare{n}")
    platform.indexer.step()
    for chosen, expected in (
        (Filter(metadata={"a": "1"}, model="rare"), [BY_MODEL, OTHER_PAIR]),
        (Filter(metadata={"a": "1"}, status=Status.INCOMPLETE), [BY_INCOMPLETE, OTHER_PAIR]),
        (Filter(metadata={"a": "1"}, search="rare1"), [BY_WORDS, OTHER_PAIR, ITS_ROW]),
        (Filter(metadata={"a": "1"}, search="gone"), [BY_WORDS, OTHER_PAIR, ITS_ROW]),
    ):
        assert number_plan(platform, chosen) == expected, chosen
    for _ in range(10):
        add(platform, a="1", b="2")
    platform.indexer.step()
    for chosen, expected in (
        (Filter(metadata={"a": "1"}, model="gpt-4o"), [BY_PAIR, ITS_ROW]),
        (Filter(metadata={"a": "1"}, search="hi"), [BY_WORDS, OTHER_PAIR, ITS_ROW]),
        (Filter(model="rare", search="hi"), [BY_MODEL, BY_WORDS]),
        (Filter(metadata={"a": "1"}, search="hi", status=Status.INCOMPLETE), [BY_INCOMPLETE, OTHER_PAIR, BY_WORDS]),
    ):
        assert number_plan(platform, chosen) == expected, chosen


def number_plan(platform: Platform, chosen: Filter) -> list[str]:
    found = plans(platform, lambda c: table.numbers(c, PROJECT, chosen, descending=True, limit=21))
    return [bare(line) for line in found[-1] if "SUBQUERY" not in line]


def test_a_pages_rows_are_found_by_their_numbers(platform: Platform) -> None:
    number = add(platform)
    for descending in (False, True):
        (rows,) = plans(platform, lambda c, d=descending: list(table.one_by_one(c, [number], descending=d)))
        assert rows == [ROWS, THEIR_PREFIXES]  # no sorting, which would have all of them in memory
    (rows,) = plans(platform, lambda c: list(table.without_beginnings(c, [number])))
    assert rows == [ROWS]


def test_soft_labels_are_found_by_their_completion(platform: Platform) -> None:
    number = add(platform)
    bodies, sizes = plans(platform, lambda c: (soft_labels.of(c, [number]), soft_labels.sizes(c, number)))
    assert bodies == sizes == ["SEARCH soft_labels USING INTEGER PRIMARY KEY (rowid=?)"]


def test_costs_are_found_by_what_they_are_of(platform: Platform) -> None:
    add(platform)
    (costs,) = plans(platform, lambda c: billing.costs_of(c, PROJECT, Kind.ANSWER, ["a", "b"]))
    assert costs == ["SEARCH ledger USING INDEX ix_ledger_project_subject (project=? AND subject=?)"]


def test_facets_of_everything_are_read_from_indexes(platform: Platform) -> None:
    add(platform, a="1", b="2")
    models, incomplete, *metadata_ = plans(platform, lambda c: facets.facets(c, PROJECT, Filter()))
    assert models == [BY_PROJECT.replace("project_number", "project_model_number")]
    assert incomplete == [BY_INCOMPLETE]
    for key in metadata_:
        assert re.fullmatch(
            r"SEARCH metadata_pairs USING (COVERING )?INDEX \S+ \(project=\?( AND key[=>]\?)?( AND count>\?)?\)", *key
        )


def test_metadata_pairs_are_found_by_key_and_value(platform: Platform) -> None:
    add(platform, a="1", b="2")
    one, *_ = plans(platform, lambda c: table.numbers(c, PROJECT, Filter(metadata={"a": "1"}), limit=1))
    assert one == [PAIR_ITSELF]
    two, *_ = plans(platform, lambda c: table.numbers(c, PROJECT, Filter(metadata={"a": "1", "b": "2"}), limit=1))
    assert two == ["MULTI-INDEX OR", "INDEX 1", PAIR_ITSELF, "INDEX 2", PAIR_ITSELF, IN_ORDER]


def test_no_list_reads_a_whole_table(platform: Platform) -> None:
    fill(platform)
    with executed() as seen:
        read_everything(platform)
    scanned = {
        line
        for statement, parameters in seen
        if statement.startswith("SELECT")
        for line in plan(platform, statement, parameters)
        if line.startswith("SCAN") and not re.search(r" VIRTUAL TABLE INDEX \d+:\S*M", line)  # a MATCH
    }
    # Keys and names are few in every installation; the last is the part of an index that is counted.
    assert {line.split()[1] for line in scanned} <= {"api_keys", "deployments", "anon_1"}


# --- words ----------------------------------------------------------------------------------------------


def test_every_statement_can_be_said_to_postgresql(platform: Platform) -> None:
    seen: list[ClauseElement] = []

    def note(_c: Any, statement: Any, _many: Any, _parameters: Any, _options: Any) -> None:
        if isinstance(statement, ClauseElement):
            seen.append(statement)

    event.listen(Engine, "before_execute", note)
    try:
        fill(platform)
        read_everything(platform)
        remove_everything(platform)
    finally:
        event.remove(Engine, "before_execute", note)
    kinds = Counter(type(statement).__name__ for statement in seen)
    assert min(kinds[name] for name in ("Select", "Insert", "Update", "Delete")) >= 5
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for statement in seen:
        assert str(statement.compile(dialect=dialect))


def test_the_schema_can_be_said_to_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    said = [str(CreateTable(each).compile(dialect=dialect)) for each in metadata.sorted_tables]
    said += [str(CreateIndex(i).compile(dialect=dialect)) for each in metadata.sorted_tables for i in each.indexes]
    assert all(len(name) <= 63 for statement in said for name in re.findall(r"(?:ix|uq|pk)_\w+", statement))
    numbered = next(statement for statement in said if "CREATE TABLE prefixes" in statement)
    assert "id BIGSERIAL NOT NULL" in numbered


def quote_for(platform: Platform, order: fine_tuning.Order) -> None:
    measurement = Measurement(
        hyperparameters=fine_tuning.Hyperparameters(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0),
        total_steps=10,
        examples=10,
        valid_examples=0,
        tokens_per_epoch=100,
        trained_tokens=100,
        setup_seconds=1.0,
        step_seconds=[1.0, 1.0],
        validation_batch_seconds=None,
        validation_batches=0,
        checkpoint_seconds=1.0,
        load=0.0,
        notes=[],
    )
    more: dict[str, Any] = {"is_kept": True, "digest": "d", "teachers": ("gpt-4o",), "warnings": (), "now": 10}
    platform.quotes.make(PROJECT, order, "scratch-small", measurement, **more)


def fill(platform: Platform) -> None:
    """Writes at least one row of everything, by every way there is."""
    ensure_admin_key(platform)
    first = add(platform, a="1", b="2")
    add(platform, text="ho", a="1")
    platform.writer.write(lambda c: table.merge_metadata(c, PROJECT, first, {"c": "3"}))
    file = platform.files.create(PROJECT, "a.jsonl", "fine-tune", [example_lines(10)])
    order = {"model": "scratch-small", "training_file": file.id, "metadata": {"a": "1"}}
    quote_for(platform, fine_tuning.parse_order(order))
    job = platform.fine_tuning.create(PROJECT, fine_tuning.parse_order(order))
    platform.fine_tuning.validate_waiting()
    claim = platform.writer.write(lambda c: jobs.claim(c, "server", ["fine_tuning", "eval_run"]))
    assert claim is not None
    step = {"step": 1, "total_steps": 1, "train_loss": 1.0}
    for work in (
        lambda c: jobs.beat(c, claim),
        lambda c: jobs.wish_of(c, claim),
        lambda c: fine_tuning.record_start(c, claim, {"hyperparameters": {}}),
        lambda c: fine_tuning.record_steps(c, claim, [step], 1),
        lambda c: fine_tuning.record_message(c, claim, "info", "hi"),
        lambda c: fine_tuning.record_checkpoint(c, claim, job, 1, {"step": 1}, "models/1"),
        lambda c: fine_tuning.finish(
            c, claim, job, blob="models/2", trained_tokens=1, result_file=file.id, price=Price()
        ),
        lambda c: billing.record(c, Entry(project=PROJECT, kind=Kind.ANSWER, model="m"), Price(input=1)),
        lambda c: fold(c, 10**6),
        lambda c: kept.add(c, kept.pack(project=PROJECT, key="a/1", request_hash=b"", body=b"")),
        lambda c: soft_labels.add(c, first, soft_labels.SoftLabels(tokens=1, alternatives=0, body=b"")),
        lambda c: catalog.put_deployment(
            c, PROJECT, "d", model=job.openai_name, state=DeploymentState.CREATING, extra={}
        ),
        lambda c: catalog.set_deployment_state(c, PROJECT, "d", job.openai_name, DeploymentState.SUCCEEDED, None),
        lambda c: jobs.release_all(c, "nobody"),
        lambda c: jobs.Observer(platform.clock).take_over(c),
    ):
        platform.writer.write(work)
    fill_evals(platform)
    fill_bulk_actions(platform)
    sign_in_and_out(platform)
    for period in Period:
        platform.budgets.put(PROJECT, 1, period)


def fill_evals(platform: Platform) -> None:
    """An eval, a run that is carried out, and one that is cancelled."""
    made = platform.evals.create(PROJECT, parse_eval(EVAL))
    platform.evals.change(PROJECT, made.id, {"name": "again", "metadata": {"a": "1"}})
    order = parse_run({"data_source": {"type": "completions", "source": {"type": "stored_completions"}}}, EVAL_CONFIG)
    platform.evals.start(PROJECT, "key", made.id, order)
    claim = platform.writer.write(lambda c: jobs.claim(c, "server", ["fine_tuning", "eval_run"]))
    assert claim is not None
    platform.keys.lend(PROJECT, platform.keys.of_project(PROJECT)[0].id, claim.subject)
    laid = Laid(total=1, trained_on=0, left_out=0, unusable=0)
    result = {"name": "same", "passed": True, "score": 1.0, "problem": None}
    item = {"type": "item", "number": 0, "status": "pass", "item": {}, "sample": {}, "results": [result], "usage": {}}
    for work in (
        lambda c: record.record_start(c, claim, laid),
        lambda c: record.record_items(c, claim, [item, {**item, "number": 1}]),
        lambda c: record.graded_items(c, claim.subject),
        lambda c: record.finish(c, claim),
        lambda c: project_of(c, claim.subject),
    ):
        platform.writer.write(work)
    platform.keys.take_back(claim.subject)
    waiting = platform.evals.start(PROJECT, "key", made.id, order)
    platform.evals.cancel(PROJECT, made.id, waiting.id)


def sign_in_and_out(platform: Platform) -> None:
    """A browser's session, from its beginning to its end."""
    own, *_ = platform.keys.of_project(PROJECT)
    _, secret = platform.sessions.begin(auth.Principal(project=PROJECT, key_id=own.id))
    assert platform.sessions.check(secret).key_name == own.name
    platform.sessions.end(secret)


def fill_bulk_actions(platform: Platform) -> None:
    """A tag and a deletion that are carried out, and one that fails."""
    number = add(platform, system="of its own", tagged="no")
    chosen = Filter(metadata={"tagged": "no"})
    changes = {"tagged": "no", "new": "yes"}
    for order in (
        bulk.Order(action=bulk.Action.TAG, chosen=chosen, changes=changes),
        bulk.Order(action=bulk.Action.DELETE, chosen=Filter(numbers=(number,))),
        bulk.Order(action=bulk.Action.DELETE, chosen=chosen),
    ):
        action = platform.bulk_actions.start(PROJECT, order)
        claim = platform.writer.write(lambda c: jobs.claim(c, "server", [bulk.KIND], [0]))
        assert claim is not None
        platform.writer.write(lambda c, claim=claim: bulk.record_start(c, claim, 1))
        for numbers in bulk.upcoming(platform.database, action):
            platform.writer.write(
                lambda c, claim=claim, action=action, numbers=numbers: bulk.carry_out(c, claim, action, numbers)
            )
        if order.chosen.numbers is not None or order.changes:
            platform.writer.write(lambda c, claim=claim: bulk.finish(c, claim))
        else:
            platform.writer.write(lambda c, claim=claim: bulk.fail(c, claim, StoreUnavailable("so")))
    platform.bulk_actions.start(PROJECT, order)
    platform.bulk_actions.cancel(PROJECT, platform.bulk_actions.page(PROJECT, after=None, limit=1)[0][0].id)


def read_evals(platform: Platform) -> None:
    """Runs every list of evals."""
    first, later = Page(after=None, descending=False, limit=1), Page(after=None, descending=True, limit=1)
    for by_update in (False, True):
        (made,), _more = platform.evals.page(PROJECT, first, by_update=by_update)
        platform.evals.page(PROJECT, replace(later, after=made.id), by_update=by_update)
    for state in (None, State.SUCCEEDED):
        (run,), _more = platform.evals.runs(PROJECT, made.id, first, state=state)
        platform.evals.runs(PROJECT, made.id, replace(later, after=run.id), state=state)
    for outcome in (None, Outcome.PASS):
        (item,), _more = platform.evals.output_items(PROJECT, made.id, run.id, first, outcome=outcome)
        platform.evals.output_items(PROJECT, made.id, run.id, replace(later, after=item.id), outcome=outcome)
    assert len(list(platform.evals.walk(run))) == 2


def read_everything(platform: Platform) -> None:
    """Runs every list and every look-up of one thing."""
    for chosen in (
        Filter(),
        Filter(model="gpt-4o"),
        Filter(metadata={"a": "1", "b": "2"}),
        Filter(metadata={"a": "1"}, model="gpt-4o", created_after=0, created_before=2, status=Status.COMPLETED),
        Filter(numbers=(1, 2, 3)),
        Filter(status=Status.INCOMPLETE),
        Filter(search="hi"),
        Filter(search="hi", metadata={"a": "1"}, model="gpt-4o", created_after=0),
    ):
        with platform.database.read() as connection:
            found = [stored.number for stored in table.walk(connection, PROJECT, chosen)]
            soft_labels.of(connection, found or [1])
            soft_labels.sizes(connection, 1)
            matching.count(connection, PROJECT, chosen)
            facets.facets(connection, PROJECT, chosen)
    for purpose in (None, "fine-tune"):
        (file, *_), _more = platform.files.page(PROJECT, purpose=purpose, after=None, descending=True, limit=2)
    platform.files.page(PROJECT, purpose=None, after=file.id, descending=False, limit=2)
    platform.files.examples_of(PROJECT, [file.id])
    (job,), _more = platform.fine_tuning.page(PROJECT, after=None, limit=2, metadata={"a": "1"}, without_metadata=False)
    platform.fine_tuning.page(PROJECT, after=job.id, limit=2, metadata=None, without_metadata=True)
    events, _more = platform.fine_tuning.events(PROJECT, job.id, after=None, limit=2)
    platform.fine_tuning.events(PROJECT, job.id, after=events[0].id, limit=2)
    (checkpoint,), _more = platform.fine_tuning.checkpoints(PROJECT, job.id, after=None, limit=2)
    platform.fine_tuning.checkpoint(PROJECT, checkpoint.id)
    assert platform.fine_tuning.progress([job])[job.id].step == 1
    assert platform.fine_tuning.curve(PROJECT, job.id, after_step=0).last_step == 1
    assert platform.fine_tuning.count_running(PROJECT) == 0
    assert platform.quotes.made_for(PROJECT, [job])
    assert platform.files.examples_of(PROJECT, [file.id]) == {file.id: 10}
    platform.agreements.newest(PROJECT)
    assert platform.quotes.compare(PROJECT, job.id).actual
    (last, *_), _more = platform.bulk_actions.page(PROJECT, after=None, limit=2)
    assert len(platform.bulk_actions.page(PROJECT, after=last.id, limit=10)[0]) == 3
    platform.keys.of_project(PROJECT)
    read_evals(platform)
    billing.totals(platform.database, PROJECT)
    billing.totals(platform.database, PROJECT, tuple(By), since=1, until=2)
    platform.budgets.get(PROJECT)
    assert platform.kept_answers.find(PROJECT, "a/1")
    with platform.database.read() as connection:
        assert len([model for model in catalog.list_models(connection, PROJECT) if model.job == job.id]) == 2
        catalog.list_deployments(connection, PROJECT)
        price_book(platform.settings, connection, PROJECT)
        platform.speeds.of(connection, PROJECT, "gpt-4o", since=0)
        figures.stored(connection, PROJECT)
        catalog.unfinished_deployments(connection)
        catalog.get_deployment(connection, PROJECT, "d")
        jobs.claimable_from(connection, ["fine_tuning", "eval_run"])
        jobs.claimable_from(connection, [bulk.KIND], bulk.held_back(connection) or [1])
        jobs.validating(connection, fine_tuning.KIND)
        jobs.claimable_from(connection, ["fine_tuning"], only=["nothing"])


def remove_everything(platform: Platform) -> None:
    """Deletes by every way there is."""
    with platform.database.read() as connection:
        numbers = [stored.number for stored in table.walk(connection, PROJECT, Filter())]
        models = catalog.list_models(connection, PROJECT)
    for number in numbers:
        platform.writer.write(lambda c, number=number: table.remove(c, PROJECT, number))
    platform.writer.write(lambda c: catalog.delete_deployment(c, PROJECT, "d"))
    for model in models:
        platform.writer.write(lambda c, name=model.openai_name: catalog.delete_model(c, PROJECT, name))
    files, _more = platform.files.page(PROJECT, purpose=None, after=None, descending=True, limit=100)
    for file in files:
        platform.files.delete(PROJECT, file.id)
    (made,), _more = platform.evals.page(PROJECT, Page(after=None, descending=False, limit=1), by_update=False)
    platform.evals.delete(PROJECT, made.id)
    bulk.BulkActions(platform.database, platform.writer, NextYear(), lambda _project: []).purge_old()
    assert platform.bulk_actions.page(PROJECT, after=None, limit=1) == ([], False)
    platform.kept_answers.purge_old()
    platform.kept_answers.forget(PROJECT, "a/")
    platform.budgets.remove(PROJECT)
    for key in platform.keys.of_project(PROJECT):
        platform.keys.revoke(PROJECT, key.id)


# --- counts ---------------------------------------------------------------------------------------------


def counts_are_right(connection: Connection) -> None:
    """The kept counts are those that counting gives, and the inverted metadata is the displayed one."""
    counted = select(table.completions.c.prefix, func.count()).group_by(table.completions.c.prefix)
    kept = select(table.prefixes.c.id, table.prefixes.c.references)
    assert _mapping(connection, kept) == _mapping(connection, counted)
    index, pairs = table.completion_metadata.c, table.metadata_pairs.c
    counted = select(index.pair, func.count()).group_by(index.pair)
    kept = select(pairs.id, pairs.count)
    assert _mapping(connection, kept) == _mapping(connection, counted)
    inverted = select(index.completion, pairs.key, pairs.value).join(table.metadata_pairs, pairs.id == index.pair)
    shown = {
        (row.number, key, value)
        for row in connection.execute(select(table.completions.c.number, table.completions.c.metadata))
        for key, value in json.loads(row.metadata).items()
    }
    assert {tuple(row) for row in connection.execute(inverted)} == shown


def _mapping(connection: Connection, query: Select[Any]) -> dict[int, int]:
    return {row[0]: row[1] for row in connection.execute(query)}


def test_counts_stay_right_over_three_hundred_random_changes(platform: Platform) -> None:
    choose = random.Random(20)
    alive: list[int] = []
    for _ in range(300):
        pairs = {key: choose.choice("xyz") for key in choose.sample("abcd", choose.randint(0, 3))}
        match choose.choice(["add", "add", "add", "change", "clear", "remove", "tag many", "remove many"]):
            case "change" if alive:
                number = choose.choice(alive)
                platform.writer.write(lambda c, n=number, p=pairs: table.merge_metadata(c, PROJECT, n, p))
            case "clear" if alive:
                platform.writer.write(lambda c, n=choose.choice(alive): table.merge_metadata(c, PROJECT, n, None))
            case "remove" if alive:
                number = alive.pop(choose.randrange(len(alive)))
                assert platform.writer.write(lambda c, n=number: table.remove(c, PROJECT, n))
            case "tag many" if alive:
                some, changes = choose.sample(alive, len(alive) // 2), {**pairs, choose.choice("abcd"): None}
                told = platform.writer.write(lambda c, n=some, p=changes: batch.tag_many(c, PROJECT, [*n, 1], p))
                assert told == batch.Tagged(done=len(some), not_found=1, too_many_pairs=0)
            case "remove many" if len(alive) > 10:
                some = [alive.pop(choose.randrange(len(alive))) for _ in range(3)]
                assert platform.writer.write(lambda c, n=some: batch.remove_many(c, PROJECT, [*n, 1])) == 3
            case _:
                alive.append(add(platform, system=choose.choice("pqr"), **pairs))
    with platform.database.read() as connection:
        counts_are_right(connection)
        stored = select(table.completions.c.number).order_by(table.completions.c.number)
        assert list(connection.execute(stored).scalars()) == alive
    assert len(alive) > 10


def test_prefixes_and_pairs_go_with_their_last_completion(platform: Platform) -> None:
    numbers = [add(platform, text=str(n), a="1", only=str(n)) for n in range(3)]
    for left in (2, 1, 0):
        platform.writer.write(lambda c: table.remove(c, PROJECT, numbers.pop()))
        with platform.database.read() as connection:
            counts_are_right(connection)
            rows = {
                each.name: connection.execute(select(func.count()).select_from(each)).scalar_one()
                for each in (table.completions, table.prefixes, table.metadata_pairs, table.completion_metadata)
            }
        assert rows == {
            "completions": left,
            "prefixes": min(left, 1),
            "metadata_pairs": left + 1 if left else 0,
            "completion_metadata": 2 * left,
        }


def test_a_number_that_is_not_there_is_neither_changed_nor_removed(platform: Platform) -> None:
    number = add(platform, a="1")
    stranger = PROJECT + 1
    for project, wanted in ((PROJECT, number + 1), (stranger, number)):
        assert not platform.writer.write(lambda c, p=project, n=wanted: table.remove(c, p, n))
        assert platform.writer.write(lambda c, p=project, n=wanted: table.merge_metadata(c, p, n, {})) is None
    with platform.database.read() as connection:
        assert table.get(connection, stranger, number) is None
        assert (
            table.page(connection, stranger, Filter(metadata={"a": "1"}), after=None, descending=False, limit=1) == []
        )
        assert table.get(connection, PROJECT, number) is not None


def test_a_fixed_beginning_is_stored_once(platform: Platform) -> None:
    system = "本日の天気に関する長い指示。" * 500
    before = _bytes(platform)
    for n in range(50):
        add(platform, system=system, text=f"question {n}")
    assert _bytes(platform) - before < 50 * len(system.encode()) / 20


def _bytes(platform: Platform) -> int:
    query = "SELECT (SELECT coalesce(sum(length(body)), 0) FROM completions)"
    query += " + (SELECT coalesce(sum(length(body)), 0) FROM prefixes)"
    with platform.database.read() as connection:
        return int(connection.execute(text(query)).scalar_one())
