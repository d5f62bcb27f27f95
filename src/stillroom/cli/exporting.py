"""`stillroom models export`: a fine-tuned model as files in a folder, made by the server and fetched from it."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from stillroom.cli.client import Client, NoServer, ServerError, connect, segment
from stillroom.cli.options import Data, Json
from stillroom.cli.output import as_json, err, note, say
from stillroom.errors import StillroomError

EXPORTS = "/v1/stillroom/exports"
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.05, 0.5
PIECE = 1 << 20


class ExportFailed(StillroomError):
    """The server could not make the export, or it did not arrive whole."""

    code = "export_failed"


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A fine-tuned model or a checkpoint.")],
    format_: Annotated[
        str, typer.Option("--format", help="safetensors (transformers), adapter (peft) or gguf (llama.cpp).")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder to make.")],
    precision: Annotated[
        str | None, typer.Option("--precision", help="f32, bf16, f16; gguf also q8_0. Default: f32, gguf: f16.")
    ] = None,
    json: Json = False,
    data: Data = None,
) -> None:
    """Write a fine-tuned model as files for other programs; what does not behave as trained is refused."""
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise typer.BadParameter(f"{to} is there already; name a new folder.", param_hint="--to")
    to = to.resolve()  # "." has a name, too
    reached = connect(data)
    with _draft_beside(to) as draft:
        order = {"format": format_, **({"precision": precision} if precision else {})}
        made = reached.post(f"/v1/stillroom/models/{segment(model)}/exports", order)
        path = f"{EXPORTS}/{made['id']}"
        try:
            made = _followed(reached, path)
            _fetch(reached, path, made, draft, to)
        finally:
            # Also when it was interrupted; a server that is gone has forgotten it.
            with suppress(ServerError, NoServer):
                reached.delete(path)
    _tell(made, to, json=json)


def _tell(made: dict[str, Any], to: Path, *, json: bool) -> None:
    if json:
        as_json({**made, "folder": str(to.resolve())})
        return
    agreement = made["agreement"]
    note(
        f"Compared with the model in training: {agreement['conversations']} conversations, the same token ids, "
        f"{agreement['agreement']:.1%} of {agreement['tokens']} tokens the same, KL {agreement['divergence']:.2g} nats."
    )
    note(f"{to / 'README.md'} says how to load it.")
    say(str(to))


def _followed(reached: Client, path: str) -> dict[str, Any]:
    """The export once it is made. Raises ExportFailed when it cannot be."""
    look = FIRST_LOOK_SECONDS
    with Progress(TextColumn("{task.description}"), BarColumn(), console=err, transient=True) as progress:
        bar = progress.add_task("waiting", total=None)
        while (made := reached.patiently(path))["status"] in ("waiting", "running"):
            if made["progress"]:
                doing = made["progress"]
                total = doing["total"] if doing["done"] else None  # a stage that tells nothing moves to and fro
                progress.update(bar, description=doing["stage"], completed=doing["done"], total=total)
            time.sleep(look)
            look = min(look * 2, LOOK_SECONDS)
    if made["status"] == "failed":
        raise ExportFailed(made["error"]["message"])
    return made


@contextmanager
def _draft_beside(to: Path) -> Iterator[Path]:
    """A folder for the files until all of them are there; made before anything is exported for it."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    except OSError as error:
        raise typer.BadParameter(f"{to} cannot be made: {error.strerror}.", param_hint="--to") from error
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _fetch(reached: Client, path: str, made: dict[str, Any], draft: Path, to: Path) -> None:
    try:
        with Progress(TextColumn("fetching"), BarColumn(), DownloadColumn(), console=err, transient=True) as progress:
            bar = progress.add_task("fetching", total=made["bytes"])
            pieces = reached.content(f"{path}/content")
            found = dict(_unpacked(pieces, draft, lambda size: progress.advance(bar, size)))
        if found != {file["name"]: file["sha256"] for file in made["files"]}:
            raise ExportFailed("The files did not arrive as the server wrote them. Try again.")
        to.mkdir(exist_ok=True)
        for file in sorted(draft.iterdir()):
            file.rename(to / file.name)
    except OSError as error:
        raise ExportFailed(f"{to} cannot be written: {error.strerror}.") from error


def _unpacked(pieces: Iterator[bytes], folder: Path, took: Any) -> Iterator[tuple[str, str]]:
    """Each file's name and sum, as it is written."""
    try:
        with tarfile.open(fileobj=_Reader(pieces, took), mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None or Path(member.name).name != member.name:
                    raise ExportFailed(f"The server sent something that is no plain file: {member.name!r}.")
                yield member.name, _copied(content, folder / member.name)
    except tarfile.TarError as error:
        raise ExportFailed(f"The files did not arrive whole ({error}). Try again.") from error


def _copied(content: Any, path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while piece := content.read(PIECE):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


class _Reader(io.RawIOBase):
    """Pieces as a file that is read once."""

    def __init__(self, pieces: Iterator[bytes], took: Any) -> None:
        self._pieces = pieces
        self._took = took
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or next(self._pieces, b"")
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        self._took(size)
        return size
