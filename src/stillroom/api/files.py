"""Files: upload, list, retrieve, content, delete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from stillroom.api.wire import PIECE, Call, Dialect, Reply, listing, stream_body, whole_number
from stillroom.datasets.files import EXPIRY_SECONDS, File
from stillroom.errors import InvalidRequest, TooLarge

PAGE, LARGEST_PAGE = 10_000, 10_000
FORM_OVERHEAD = 1024 * 1024  # bytes a form may have besides its file


async def create(call: Call) -> Reply:
    """Upload a file (multipart form: file, purpose, expires_after[anchor], expires_after[seconds])."""
    form = await _form(call)
    try:
        upload, purpose = form.get("file"), form.get("purpose")
        if not isinstance(upload, UploadFile):
            raise InvalidRequest("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
        if not isinstance(purpose, str):
            raise InvalidRequest(
                "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
            )
        most = call.platform.settings.gateway.file_bytes
        if (upload.size or 0) > most:
            raise TooLarge(f"The file is larger than the {most} bytes allowed.", param="file")
        file = await asyncio.to_thread(
            call.platform.files.create,
            call.project,
            upload.filename or "upload",
            purpose,
            _pieces(upload),
            expires_after_seconds=_expiry(form),
        )
    finally:
        await form.close()
    return Reply(body=shown(file), status=201 if call.dialect is Dialect.AZURE else 200)


def list_files(call: Call) -> Reply:
    """List files, newest first unless told otherwise."""
    found, more = call.platform.files.page(
        call.project,
        purpose=call.query.get("purpose"),
        after=call.query.get("after"),
        descending=call.descending("desc"),
        limit=call.limit(PAGE, LARGEST_PAGE),
    )
    data = [shown(file) for file in found]
    return Reply(body=listing(data, more))


def retrieve(call: Call) -> Reply:
    """Retrieve a file's description."""
    return Reply(body=shown(call.platform.files.get(call.project, call.parameters["id"])))


def content(call: Call) -> Reply:
    """Download a file's content."""
    file = call.platform.files.get(call.project, call.parameters["id"])
    name = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_" for letter in file.filename
    )
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Reply(file=call.platform.files.path(call.project, file.id), headers=headers)


def delete(call: Call) -> Reply:
    """Delete a file."""
    call.platform.files.delete(call.project, call.parameters["id"])
    return Reply(body={"id": call.parameters["id"], "object": "file", "deleted": True})


def shown(file: File) -> dict[str, Any]:
    """A file as the API gives it."""
    body = {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status.value,
    }
    # These two are left out rather than null: OpenAI's schema has no null for them.
    optional = {"status_details": file.status_details, "expires_at": file.expires_at}
    return {**body, **{name: value for name, value in optional.items() if value is not None}}


async def _form(call: Call) -> FormData:
    if not call.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest(
            "Send the file as multipart/form-data, with the fields 'file' and 'purpose'.", param="file"
        )
    most = call.platform.settings.gateway.file_bytes + FORM_OVERHEAD
    stream: AsyncGenerator[bytes, None] = stream_body(call.receive, call.headers, most)
    try:
        return await MultiPartParser(Headers(dict(call.headers)), stream, max_files=1, max_fields=20).parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The multipart form cannot be read: {error}", param="file") from error


def _pieces(upload: UploadFile) -> Iterator[bytes]:
    while piece := upload.file.read(PIECE):
        yield piece


def _expiry(form: FormData) -> int | None:
    text = form.get("expires_after[seconds]")
    if text is None:
        return None
    least, most = EXPIRY_SECONDS
    if form.get("expires_after[anchor]", "created_at") != "created_at":
        raise InvalidRequest("'expires_after[anchor]' must be 'created_at'.", param="expires_after[anchor]")
    seconds = whole_number(text) if isinstance(text, str) else None
    if seconds is None or not least <= seconds <= most:
        raise InvalidRequest(
            f"'expires_after[seconds]' must be a whole number from {least} to {most}.", param="expires_after[seconds]"
        )
    return seconds
