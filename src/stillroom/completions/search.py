"""Full-text search over stored completions: how text becomes words, and where these are kept.

Letters are folded by case and width. Languages that put no spaces between words are searched by
pairs of letters: a run of Chinese, Japanese or Korean letters is kept as its overlapping pairs and
its last letter, and each letter once more by itself, so that any part of a run is found, even one
letter of it. Other words are found whole.

The words of what was just stored or deleted follow in the background (`indexing.py`); until then the
completion stands in `search_pending`, or what was deleted in `search_removals`. Whoever searches also
looks at the completion's own row, so what was deleted is never found, even before its words are gone.

Owns these two tables and the index itself, which is SQLite's FTS5: another database needs this
module written for it, and nothing else of the search.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Insert,
    LargeBinary,
    Select,
    Table,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    table,
)

from stillroom.completions.schema import completions
from stillroom.errors import InvalidRequest
from stillroom.store.tables import RowId, metadata

TABLE = "completion_search"  # made in a migration: SQLAlchemy has no words for it
WORD_LETTERS = 64  # of a longer word, only the beginning counts
DOCUMENT_LETTERS = 50_000  # of a longer conversation, the rest is not found: its words would keep the writer too long
SEARCH_LETTERS = 1000
SEPARATOR = "\ue000"  # stands between two texts, so that no phrase reaches from one into the other

_UNSPACED = (
    "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3100-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(r"[^\W_]+")
_RUNS = re.compile(f"([{_UNSPACED}]+)")
_PHRASE = re.compile(r'"([^"]*)"|([^\s"]+)')

search_pending = Table(
    "search_pending",
    metadata,
    Column("number", RowId, primary_key=True, autoincrement=False),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Index("ix_search_pending_project", "project"),
)

search_removals = Table(
    "search_removals",
    metadata,
    Column("number", RowId, primary_key=True, autoincrement=False),
    Column("project", ForeignKey("projects.id"), nullable=False),
    # The deleted completion's, out of which its words are made once more.
    Column("body", LargeBinary, nullable=False),
)

_index = table(TABLE, column("rowid"), column("body"), column("letters"), column(TABLE))
_number: ColumnElement[int] = _index.c.rowid

_ENQUEUE = insert(search_pending)
_TAKE_PENDING = (
    delete(search_pending)
    .where(search_pending.c.number.in_(bindparam("these", expanding=True)))
    .returning(search_pending.c.number)
)
_KEEP_BODIES = insert(search_removals).from_select(
    ["number", "project", "body"],
    select(completions.c.number, completions.c.project, completions.c.body).where(
        completions.c.project == bindparam("of"), completions.c.number.in_(bindparam("these", expanding=True))
    ),
)
_TAKE_REMOVALS = (
    delete(search_removals)
    .where(search_removals.c.number.in_(bindparam("these", expanding=True)))
    .returning(search_removals.c.number)
)
_ADD_WORDS = insert(_index).values(rowid=bindparam("number"), body=bindparam("body"), letters=bindparam("letters"))
_DELETE_WORDS = insert(_index).values(
    {
        TABLE: literal_column("'delete'"),
        "rowid": bindparam("number"),
        "body": bindparam("body"),
        "letters": bindparam("letters"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """What is kept of a text: its words in order, and each of its unspaced letters."""

    body: str
    letters: str


# --- what is stored and deleted -----------------------------------------------------------------------------


def enqueue(connection: Connection, project: int, number: int) -> None:
    """The completion shall be found from soon on."""
    connection.execute(_ENQUEUE, {"number": number, "project": project})


def forget_many(connection: Connection, project: int, numbers: Sequence[int]) -> None:
    """The project's completions, which are about to be deleted, shall not be found any more."""
    waiting = set(connection.execute(_TAKE_PENDING, {"these": numbers}).scalars())
    indexed = [number for number in numbers if number not in waiting]
    if indexed:
        connection.execute(_KEEP_BODIES, {"of": project, "these": indexed})


def pending_count(connection: Connection, project: int) -> int:
    """How many completions cannot be found yet."""
    row = search_pending.c
    query = select(func.count()).select_from(search_pending).where(row.project == project)
    return connection.execute(query).scalar_one()


def is_behind(connection: Connection, project: int, up_to: int) -> bool:
    """Whether a completion up to that number cannot be found yet."""
    row = search_pending.c
    query = select(row.number).where(row.project == project, row.number <= up_to).limit(1)
    return connection.execute(query).first() is not None


def newest_pending(connection: Connection, limit: int) -> list[int]:
    """The next completions to index, newest first: what was just stored does not wait for a long past."""
    row = search_pending.c
    return list(connection.execute(select(row.number).order_by(row.number.desc()).limit(limit)).scalars())


def removals(connection: Connection, limit: int) -> Iterator[tuple[int, bytes]]:
    """Deleted completions that are still in the index, with their bodies, each read when it is asked for."""
    row = search_removals.c
    found = connection.execute(select(row.number, row.body).order_by(row.number).limit(limit))
    return ((number, body) for number, body in found)


def index(connection: Connection, documents: Mapping[int, Document]) -> None:
    """Makes these found, but for those that were deleted since they were read."""
    _change(connection, _ADD_WORDS, connection.execute(_TAKE_PENDING, {"these": list(documents)}).scalars(), documents)


def unindex(connection: Connection, documents: Mapping[int, Document]) -> None:
    """Takes the words of deleted completions out of the index."""
    gone = connection.execute(_TAKE_REMOVALS, {"these": list(documents)}).scalars()
    _change(connection, _DELETE_WORDS, gone, documents)


def _change(
    connection: Connection, statement: Insert, numbers: Iterable[int], documents: Mapping[int, Document]
) -> None:
    # In order, because FTS5 begins a new part of its index whenever a number is below the last.
    rows = [
        {"number": number, "body": documents[number].body, "letters": documents[number].letters}
        for number in sorted(numbers)
    ]
    if rows:
        connection.execute(statement, rows)


# --- what is searched for -----------------------------------------------------------------------------------


def numbers_of(expression: str) -> tuple[Select[int], ColumnElement[int]]:
    """The query for the numbers that match, and the column it is about."""
    return select(_number).where(_matches(expression)), _number


def at_most(connection: Connection, expression: str, most: int) -> bool:
    """Whether no more than so many completions match, in whatever project."""
    found = select(_number).where(_matches(expression)).limit(most + 1)
    return connection.execute(select(func.count()).select_from(found.subquery())).scalar_one() <= most


def is_found(number: ColumnElement[int], expression: str) -> ColumnElement[bool]:
    """Whether the completion of that number matches."""
    return exists().where(_matches(expression), _number == number)


def _matches(expression: str) -> ColumnElement[bool]:
    return literal_column(TABLE).op("MATCH")(expression)


def expression_of(text: str) -> str | None:
    """What is asked of the index for a search: words and "phrases", of which all must be there.

    None when the text has no letter and no digit: nothing matches that. Every word of the result is
    quoted, so that the caller's text is never read as FTS5's query language. Raises InvalidRequest for
    a text that is too long.
    """
    if len(text) > SEARCH_LETTERS:
        raise InvalidRequest(
            f"'search' has {len(text)} letters; it can have {SEARCH_LETTERS}. Search for a part of it.", param="search"
        )
    found = [_asked(phrase or word) for phrase, word in _PHRASE.findall(_folded(text))]
    asked = list(dict.fromkeys(each for each in found if each is not None))
    return " AND ".join(asked) or None


def _asked(phrase: str) -> str | None:
    pieces = _pieces(phrase)
    if not pieces:
        return None
    *before, last = pieces
    if not before and len(last) == 1 and _RUNS.fullmatch(last):
        return f'letters : "{last}"'
    words = [word for piece in before for word in _words_of(piece)]
    if not _RUNS.fullmatch(last):
        return f'body : "{" ".join([*words, last])}"'
    # The run may go on in the text, so what is said of its end, its last letter alone, is not asked for.
    pairs = [last] if len(last) == 1 else _pairs(last)
    return f'body : "{" ".join([*words, *pairs])}"' + (" *" if len(last) == 1 else "")


# --- words --------------------------------------------------------------------------------------------------


def document(texts: Iterable[str]) -> Document:
    """What the index keeps of a conversation's texts."""
    words: list[str] = []
    letters: set[str] = set()
    left = DOCUMENT_LETTERS
    for text in texts:
        pieces = _pieces(_folded(text[:left]))
        left -= len(text[:left])
        for piece in pieces:
            words += _words_of(piece)
            if not piece.isascii() and _RUNS.fullmatch(piece):
                letters.update(piece)
        words.append(SEPARATOR)
        if left <= 0:
            break
    return Document(body=" ".join(words), letters=" ".join(sorted(letters)))


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Folding case can undo what normalising has done, and makes two characters of the Turkish İ.
    folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")
    return unicodedata.normalize("NFKC", folded)


def _pieces(folded: str) -> list[str]:
    """Words, and runs of unspaced letters, in order."""
    found: list[str] = []
    for word in _WORD.findall(folded):
        if word.isascii():
            found.append(word[:WORD_LETTERS])
        else:
            found += [piece if _RUNS.match(piece) else piece[:WORD_LETTERS] for piece in _RUNS.split(word) if piece]
    return found


def _words_of(piece: str) -> list[str]:
    if piece.isascii() or not _RUNS.match(piece):
        return [piece]
    return [*_pairs(piece), piece[-1]]


def _pairs(run: str) -> list[str]:
    return [run[start : start + 2] for start in range(len(run) - 1)]
