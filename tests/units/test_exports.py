"""Exports that wait to be fetched: how long, how many, whose."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stillroom.errors import Conflict, NotFound, RateLimited, StillroomError
from stillroom.serving.exports import Export, ExportedFile, Exports, Status

FILES = {"README.md": b"# It\n", "model.gguf": bytes(range(256)) * 5000, "empty": b""}


async def _write(export: Export) -> None:
    export.content.mkdir()
    for name, content in FILES.items():
        (export.content / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        export.files.append(ExportedFile(name=name, bytes=len(content), sha256=digest))


async def _fail(export: Export) -> None:
    (export.folder / "half").write_text("half")
    raise StillroomError("It differs.", code="student_differs")


async def _ended(export: Export) -> None:
    while export.finished_at is None:
        await asyncio.sleep(0.005)


def _run(story: Callable[[Exports], Awaitable[None]], folder: Path, kept_seconds: float = 60.0) -> None:
    async def told() -> None:
        exports = Exports(folder, kept_seconds=kept_seconds)
        await story(exports)
        await exports.close()
        assert list(folder.iterdir()) == []

    asyncio.run(told())


def test_what_was_written_arrives_as_one_tar_file(tmp_path: Path) -> None:
    async def story(exports: Exports) -> None:
        export = exports.begin(1, "ft:a", "gguf", "f16", _write)
        with pytest.raises(Conflict, match="is waiting"):
            exports.archive(1, export.id)
        await _ended(export)
        archive = b"".join(exports.archive(1, export.id))
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            assert {each.name: (opened.extractfile(each) or io.BytesIO()).read() for each in opened} == FILES

    _run(story, tmp_path)


def test_an_export_that_failed_says_why_and_has_no_files(tmp_path: Path) -> None:
    async def story(exports: Exports) -> None:
        export = exports.begin(1, "ft:a", "gguf", "f16", _fail)
        await _ended(export)
        assert export.status is Status.FAILED and export.error is not None and export.error.code == "student_differs"
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(Conflict, match="is failed"):
            exports.archive(1, export.id)

    _run(story, tmp_path)


def test_another_projects_export_is_not_there(tmp_path: Path) -> None:
    async def story(exports: Exports) -> None:
        export = exports.begin(1, "ft:a", "gguf", "f16", _write)
        await _ended(export)
        assert exports.of_project(2) == []
        with pytest.raises(NotFound):
            exports.get(2, export.id)
        with pytest.raises(NotFound):
            exports.archive(2, export.id)
        with pytest.raises(NotFound):
            await exports.delete(2, export.id)

    _run(story, tmp_path)


def test_an_export_nobody_fetches_is_forgotten_and_one_that_is_read_stays(tmp_path: Path) -> None:
    async def story(exports: Exports) -> None:
        left, read = (exports.begin(1, "ft:a", "gguf", "f16", _write) for _ in range(2))
        await _ended(read)
        reading = exports.archive(1, read.id)
        next(reading)
        await asyncio.sleep(0.5)
        assert [each.id for each in exports.of_project(1)] == [read.id]
        assert not left.folder.exists() and read.folder.exists()
        assert len(b"".join(reading)) > 256 * 5000
        await asyncio.sleep(0.5)
        assert exports.of_project(1) == []

    _run(story, tmp_path, kept_seconds=0.2)


def test_one_is_made_at_a_time_and_a_fifth_takes_the_place_of_the_oldest_that_is_over(tmp_path: Path) -> None:
    async def story(exports: Exports) -> None:
        go_on = asyncio.Event()

        async def slowly(export: Export) -> None:
            await go_on.wait()
            await _write(export)

        begun = [exports.begin(1, f"ft:{number}", "gguf", "f16", slowly) for number in range(4)]
        await asyncio.sleep(0.01)
        assert [each.status for each in begun] == [Status.RUNNING, *[Status.WAITING] * 3]
        with pytest.raises(RateLimited):
            exports.begin(1, "ft:5", "gguf", "f16", slowly)
        exports.begin(2, "ft:theirs", "gguf", "f16", slowly)
        go_on.set()
        await _ended(begun[-1])
        fifth = exports.begin(1, "ft:5", "gguf", "f16", slowly)
        assert [each.id for each in exports.of_project(1)] == [fifth.id, *(each.id for each in begun[:0:-1])]
        assert not begun[0].folder.exists()

    _run(story, tmp_path)


def test_deleting_one_that_is_being_made_stops_it(tmp_path: Path) -> None:
    async def story(exports: Exports) -> None:
        stopped = asyncio.Event()

        async def forever(export: Export) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        export = exports.begin(1, "ft:a", "gguf", "f16", forever)
        await asyncio.sleep(0.01)
        await exports.delete(1, export.id)
        assert stopped.is_set() and not export.folder.exists()
        following = exports.begin(1, "ft:b", "gguf", "f16", _write)
        await _ended(following)
        assert following.status is Status.SUCCEEDED

    _run(story, tmp_path)
