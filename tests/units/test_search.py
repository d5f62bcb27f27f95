"""What is searched for is found, and nothing else: words, phrases, unspaced letters, hostile text."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy import text as sql

from stillroom import ids
from stillroom.assembly import Platform, open_platform
from stillroom.completions import matching, search, table
from stillroom.completions.conversations import texts_of
from stillroom.completions.indexing import PART, Indexer
from stillroom.completions.search import DOCUMENT_LETTERS, SEARCH_LETTERS
from stillroom.completions.table import Filter
from stillroom.config import Settings
from stillroom.errors import InvalidRequest, StoreUnavailable
from stillroom.store.database import Database, _alembic

PROJECT = 1
numbers = ids.OrderedNumbers()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that tests share which mind nothing but what they stored themselves."""
    opened = open_platform(Settings(data=str(tmp_path_factory.mktemp("shared") / "data")))
    yield opened
    opened.close()


def store(platform: Platform, question: Any, answer: Any = "", *, system: str = "be brief", **more: Any) -> int:
    """One completion; it is found as soon as somebody indexes."""
    message = more.pop("message", {"role": "assistant", "content": answer})
    new = table.NewCompletion(
        number=more.pop("number", None) or numbers.mint(),
        project=PROJECT,
        created_at=int(time.time()),
        model="gpt-4o",
        status=table.Status.COMPLETED,
        metadata=more.pop("metadata", {}),
        request={"messages": [{"role": "system", "content": system}, {"role": "user", "content": question}], **more},
        response={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]},
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=0,
        latency_ms=0,
    )
    packed = table.pack(new.request, new.response)
    platform.writer.write(lambda connection: table.add(connection, new, packed))
    return new.number


def index(platform: Platform) -> None:
    while platform.indexer.step():
        pass


def found(platform: Platform, wanted: str, **more: Any) -> list[int]:
    """The numbers that match, newest first."""
    with platform.database.read() as connection:
        chosen = Filter(search=wanted, **more)
        return table.numbers(connection, PROJECT, chosen, descending=True, limit=100)


def is_found(platform: Platform, said: str, wanted: str) -> bool:
    """Whether the search finds a completion in which just that was said."""
    number = store(platform, said)
    index(platform)
    return number in found(platform, wanted)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("東京都に行きました", "東京"),
        ("東京都に行きました", "京都"),  # any part of a run, be it a word or not
        ("東京都に行きました", "行きました"),
        ("東京都に行きました", "京"),
        ("東京都に行きました", "た"),
        ("東", "東"),
        ("ﾊﾟｽﾜｰﾄﾞを忘れました", "パスワード"),
        ("パスワードを忘れました", "ﾊﾟｽﾜｰﾄﾞ"),
        ("ＡＢＣ１２３", "abc123"),
        ("The QUICK brown fox", "quick FOX"),
        ("Straße", "STRASSE"),
        ("İstanbul'da", "istanbul"),
        ("istanbul", "İSTANBUL"),
        ("AIモデルを作る", "AIモデル"),
        ("AIモデルを作る", "モデル"),
        ("モデルAIを作る", "モデルAI"),
        ("モデルAIを作る", "ルAI"),
        ("5月の予定", "5月"),
        ("第5回", "5回"),
        ("배송이 늦습니다", "배송"),
        ("배송이 늦습니다", "늦"),
        ("我想要退款", "退款"),
        ("write to a.person@example.org", "a.person@example.org"),
        ("the gpt-4o model", "gpt-4o"),
        ("one two three", '"two three"'),
        ("one two three", 'three "one two"'),
        ("東京タワーに登る", '"東京タワー"'),
        ("東京タワー に登る", "東京　登る"),
        ("snake_case_name", "snake_case_name"),
        ("naïve café", "CAFÉ"),
        ("unclosed", '"unclosed'),
    ],
)
def test_it_is_found(shared: Platform, said: str, wanted: str) -> None:
    assert is_found(shared, said, wanted)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("one two three", '"one three"'),
        ("one two three", '"two one"'),
        ("one two three", "one four"),
        ("one two three", "tw"),  # words are whole
        ("京と東", "東京"),
        ("東京の都", "京都"),
        ("東京都", "京東"),
        ("モデル、AI", "デモ"),
        ("model gpt and 4o", "gpt-4o"),
        ("東京", "大"),
    ],
)
def test_it_is_not_found(shared: Platform, said: str, wanted: str) -> None:
    assert not is_found(shared, said, wanted)


@pytest.mark.parametrize("wanted", ["", " ", '"', '""', "*", "-", "😀", "\0", "　", "( ) : ^ + {}"])
def test_a_search_without_a_letter_or_digit_finds_nothing(shared: Platform, wanted: str) -> None:
    assert not is_found(shared, 'anything " * - 😀', wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        '" OR NEAR( *',
        "x OR 1",
        "NOT x",
        'letters : "a"',
        "body:x",
        "x*",
        "^x",
        "x AND (",
        "NEAR(a b, 2)",
        "{body letters} : x",
        "'; DROP TABLE completions; --",
        "x' OR '1'='1",
        "a" * SEARCH_LETTERS,
        "a " * (SEARCH_LETTERS // 2),
        "京" * SEARCH_LETTERS,
        " ".join(f"w{n}" for n in range(200)),
        " ".join(chr(0x4E00 + n) for n in range(SEARCH_LETTERS // 2)),
    ],
)
def test_what_looks_like_a_query_language_is_text(shared: Platform, wanted: str) -> None:
    innocent = store(shared, "innocent")
    number = store(shared, wanted)
    index(shared)
    assert number in found(shared, wanted)
    assert innocent not in found(shared, wanted)


@given(said=st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_is_found_by_itself(shared: Platform, said: str) -> None:
    number = store(shared, said)
    index(shared)
    assert (number in found(shared, f'"{said}"')) == (search.expression_of(said) is not None)


@given(
    before=st.text("東京都あいうアイウ漢字한국어", max_size=8),
    wanted=st.text("東京都あいうアイウ漢字한국어", min_size=1, max_size=6),
    after=st.text("東京都あいうアイウ漢字한국어", max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_every_part_of_an_unspaced_run_is_found(shared: Platform, before: str, wanted: str, after: str) -> None:
    assert is_found(shared, before + wanted + after, wanted)


def test_a_search_that_is_too_long_is_refused(shared: Platform) -> None:
    with pytest.raises(InvalidRequest, match="'search' has 1001 letters; it can have 1000"):
        found(shared, "a" * (SEARCH_LETTERS + 1))


def test_all_that_was_said_is_searched_but_not_what_is_shared(platform: Platform) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "ocelot"}'}}
    number = store(
        platform,
        [{"type": "text", "text": "What is in this picture, heron?"}, {"type": "image_url", "image_url": {"url": "x"}}],
        message={"role": "assistant", "content": None, "refusal": "never badger", "tool_calls": [call]},
        system="You are a marmot.",
        tools=[{"type": "function", "function": {"name": "walrus", "parameters": {}}}],
    )
    index(platform)
    for word in ("heron", "badger", "ocelot", "look_up", "look"):
        assert found(platform, word) == [number], word
    for word in ("marmot", "walrus", "image_url"):
        assert found(platform, word) == [], word


def test_a_phrase_does_not_reach_from_one_message_into_the_next(platform: Platform) -> None:
    number = store(platform, "the question", "the answer")
    index(platform)
    assert found(platform, '"question the"') == []
    assert found(platform, "question answer") == [number]


@pytest.mark.parametrize(
    "body",
    [
        {"request": {}, "response": {}},
        {"request": {"messages": None}, "response": {"choices": None}},
        {"request": {"messages": [{"content": 1}, "x", None]}, "response": {"choices": [{}, {"message": None}, 3]}},
        {
            "request": {"messages": [{"content": [None, {"text": 1}, "x"], "tool_calls": {}}]},
            "response": {"choices": {}},
        },
        {"request": {"messages": [{"tool_calls": [{"function": "x"}], "function_call": "x"}]}, "response": {}},
    ],
)
def test_what_is_no_conversation_has_no_text(body: dict[str, Any]) -> None:
    assert list(texts_of(body)) == []


def test_of_a_very_long_conversation_the_answer_and_the_beginning_are_found(platform: Platform) -> None:
    number = store(platform, "beginning " + "x " * DOCUMENT_LETTERS + " ending", "answer")
    index(platform)
    for word, where in (("beginning", [number]), ("answer", [number]), ("ending", [])):
        assert found(platform, word) == where, word


def test_long_texts_are_indexed_one_in_a_transaction(platform: Platform) -> None:
    for n in range(3):
        store(platform, f"long{n} " + "京" * DOCUMENT_LETTERS)
    for left in (2, 1, 0):
        assert platform.indexer.step()
        assert pending(platform) == left


def pending(platform: Platform) -> int:
    with platform.database.read() as connection:
        return search.pending_count(connection, PROJECT)


def test_indexing_ends_with_the_transaction_that_is_under_way(platform: Platform) -> None:
    for n in range(12):
        store(platform, f"long{n} " + "京都" * DOCUMENT_LETTERS)

    async def begin_and_cancel() -> None:
        indexing = asyncio.create_task(platform.indexer.tend())
        while pending(platform) == 12:
            await asyncio.sleep(0.001)
        indexing.cancel()

    asyncio.run(begin_and_cancel())  # returns when no thread is at work any more
    assert 0 < pending(platform) < 12


def test_a_damaged_completion_does_not_keep_others_from_being_found(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    before, unpackable, undecodable, bottomless, after = (store(platform, f"heron {n}") for n in range(5))
    damage = sql("UPDATE completions SET body = :body WHERE number = :number")
    damaged = {
        unpackable: b"nonsense",
        undecodable: zstandard.compress(b"nonsense"),
        bottomless: zstandard.compress(b"[" * 100_000),
    }
    for number, body in damaged.items():
        platform.writer.write(lambda c, values={"number": number, "body": body}: c.execute(damage, values))
    index(platform)
    assert found(platform, "heron") == [after, before]
    assert pending(platform) == 0
    for number in damaged:
        assert ids.completion_id(number) in caplog.text
        platform.writer.write(lambda c, number=number: table.remove(c, PROJECT, number))
    index(platform)
    platform.writer.write(
        lambda c: c.execute(sql("INSERT INTO completion_search(completion_search) VALUES('integrity-check')"))
    )


class Failing(Database):
    """A database that cannot be read for some times."""

    def __init__(self, path: Path, *errors: Exception) -> None:
        super().__init__(path)
        self.errors = list(errors)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        if self.errors:
            raise self.errors.pop(0)
        with super().read() as connection:
            yield connection


def test_indexing_goes_on_after_an_error_that_nobody_expected(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    number = store(platform, "heron")
    database = Failing(platform.database.path, sqlite3.OperationalError("disk I/O error"), StoreUnavailable("busy"))

    async def tend_until_found() -> None:
        tending = asyncio.create_task(Indexer(database, platform.writer).tend())
        while pending(platform) and not tending.done():
            await asyncio.sleep(0.01)
        assert tending.cancel()

    asyncio.run(asyncio.wait_for(tend_until_found(), 30))
    database.close()
    assert found(platform, "heron") == [number]
    assert "disk I/O error" in caplog.text
    assert "busy" in caplog.text


def test_what_was_deleted_is_not_found_and_its_words_leave_the_index(platform: Platform) -> None:
    kept, gone, early = (store(platform, f"東京 {word} 同じ", "same answer") for word in ("kept", "gone", "early"))
    platform.writer.write(lambda c: table.remove(c, PROJECT, early))  # before it was ever indexed
    index(platform)
    assert found(platform, "東京") == [gone, kept]
    platform.writer.write(lambda c: table.remove(c, PROJECT, gone))
    assert found(platform, "東京") == [kept]
    index(platform)
    with platform.database.read() as connection:
        for word in ("gone", "早", "early", "同"):
            expression = search.expression_of(word)
            assert expression is not None
            left = list(connection.execute(search.numbers_of(expression)[0]).scalars())
            assert left == ([kept] if word == "同" else []), word
        assert connection.execute(sql("SELECT count(*) FROM search_removals")).scalar() == 0
    platform.writer.write(
        lambda c: c.execute(sql("INSERT INTO completion_search(completion_search) VALUES('integrity-check')"))
    )


def test_new_ones_are_indexed_before_a_long_past_is(platform: Platform) -> None:
    for n in range(PART + 10):
        store(platform, f"past {n}")
    newest = store(platform, "present")
    assert platform.indexer.step()
    assert found(platform, "present") == [newest]
    with platform.database.read() as connection:
        assert search.pending_count(connection, PROJECT) == 11
    index(platform)
    assert len(found(platform, "past")) == PART + 10
    assert not platform.indexer.step()


def test_one_that_is_deleted_while_it_is_indexed_is_not_found(platform: Platform) -> None:
    number = store(platform, "heron")
    with platform.database.read() as connection:
        bodies = dict(table.bodies(connection, search.newest_pending(connection, 10)))
    documents = {number: search.document(texts_of(table.unpacked(body))) for number, body in bodies.items()}
    platform.writer.write(lambda c: table.remove(c, PROJECT, number))
    platform.writer.write(lambda c: search.index(c, documents))
    expression = search.expression_of("heron")
    assert expression is not None
    with platform.database.read() as connection:
        assert list(connection.execute(search.numbers_of(expression)[0]).scalars()) == []


def test_a_search_is_one_condition_of_several(platform: Platform) -> None:
    mine = [store(platform, "heron", metadata={"of": "mine"}) for _ in range(3)]
    store(platform, "heron", metadata={"of": "others"})
    store(platform, "ocelot", metadata={"of": "mine"})
    index(platform)
    assert found(platform, "heron", metadata={"of": "mine"}) == mine[::-1]
    assert found(platform, "heron", metadata={"of": "nobody"}) == []
    assert found(platform, "heron", numbers=tuple(mine[:1])) == mine[:1]
    assert found(platform, "heron", model="gpt-4") == []
    with platform.database.read() as connection:
        assert matching.count(connection, PROJECT, Filter(search="heron")).number == 4
        page = table.numbers(connection, PROJECT, Filter(search="heron"), after=mine[2], descending=True, limit=2)
        assert page == [mine[1], mine[0]]


def test_another_projects_completions_are_not_found(platform: Platform) -> None:
    store(platform, "heron")
    index(platform)
    with platform.database.read() as connection:
        assert table.numbers(connection, PROJECT + 1, Filter(search="heron"), limit=1) == []


def test_what_was_stored_before_there_was_a_search_is_found_after_the_upgrade(tmp_path: Path) -> None:
    platform = open_platform(Settings(data=str(tmp_path / "data")))
    numbers = [store(platform, f"heron {n}") for n in range(3)]
    index(platform)
    with platform.database.writing.connect() as connection:
        command.downgrade(_alembic(connection), "0002")
        connection.commit()
    platform.close()
    upgraded = open_platform(Settings(data=str(tmp_path / "data")))
    assert found(upgraded, "heron") == []
    index(upgraded)
    assert found(upgraded, "heron") == numbers[::-1]
    upgraded.close()
