"""Serves the portal: the files that building `portal/` left in this package, from memory.

Its pages have addresses of their own (`/completions`, `/jobs/ID`) that are all the one document; a browser is given
it at every path that is no part of the API. Whoever does not ask for HTML, such as a client with a mistyped base
URL, is told that the path is unknown, as before. Only names found at the start are served, so no path leads elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stillroom.api.wire import Reply, takes_gzip

FOLDER = Path(__file__).parents[1] / "portal"
DOCUMENT = "index.html"
HASHED = "assets/"  # below it, every name says its content

HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
# Not left to the machine: what it calls .js differs, and browsers run no module of another type.
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": HTML,
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": TEXT,
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
GUARDS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
FOREVER = "public, max-age=31536000, immutable"
A_DAY = "public, max-age=86400"
ASK_FIRST = "no-cache"

WELCOME = """stillroom is running.

The API is at /v1 (OpenAI) and /openai (Azure OpenAI). `stillroom env --shell` prints what to export.

The portal, its web interface, is not built in this installation. In a checkout, `make portal` builds it; an
installed package is installed again, with STILLROOM_PORTAL unset. Both need Node.js 20.19 or newer, or fetch
it through pip, and download the portal's packages. Then start the server again.
"""
WELCOME_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>stillroom</title></head>
<body><h1>stillroom is running</h1>
<p>The API is at <code>/v1</code> (OpenAI) and <code>/openai</code> (Azure OpenAI).
<code>stillroom env --shell</code> prints what to export.</p>
<h2>The portal is not built in this installation</h2>
<p>In a checkout, build it, then start the server again:</p>
<pre>make portal</pre>
<p>An installed package is installed again, from the folder that it came from:</p>
<pre>env -u STILLROOM_PORTAL pip install --force-reinstall --no-deps .</pre>
<p>Both need Node.js 20.19 or newer, or fetch it through pip, and download the portal's packages.</p></body></html>
"""


@dataclass(frozen=True)
class _File:
    """A file as it is sent."""

    name: str
    content: bytes

    @cached_property
    def packed(self) -> bytes | None:
        """The content as gzip; None when that is hardly smaller."""
        # Compressed when first asked for: a server that no browser visits starts the sooner.
        packed = gzip.compress(self.content, mtime=0)
        return packed if len(packed) < 0.9 * len(self.content) else None

    @cached_property
    def tag(self) -> str:
        return f'W/"{hashlib.sha256(self.content).hexdigest()[:20]}"'

    @cached_property
    def headers(self) -> dict[str, str]:
        is_hashed = self.name.startswith(HASHED)
        return {
            **GUARDS,
            "content-type": _type(self.name),
            "cache-control": FOREVER if is_hashed else ASK_FIRST if self.name == DOCUMENT else A_DAY,
            "etag": self.tag,
            "vary": "accept-encoding" if is_hashed else "accept, accept-encoding",
        }


class Portal:
    """The built portal's files by name; none where it was not built."""

    def __init__(self, folder: Path = FOLDER) -> None:
        found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        files = [_File(path.relative_to(folder).as_posix(), path.read_bytes()) for path in found]
        self._files = {file.name: file for file in files}

    @property
    def is_built(self) -> bool:
        return DOCUMENT in self._files

    def page(self, method: str, segments: tuple[str, ...], headers: Mapping[str, str]) -> Reply | None:
        """What a browser is shown at the path; None when there is nothing."""
        if method not in ("GET", "HEAD"):
            return None
        name = "/".join(segments)
        wants_page = "text/html" in headers.get("accept", "") and not name.startswith(HASHED)
        if not self.is_built:
            return _welcome(is_root=not name, as_html=wants_page)
        file = self._files.get(name or DOCUMENT) or (self._files[DOCUMENT] if wants_page else None)
        return None if file is None else _sent(file, headers)


def _sent(file: _File, headers: Mapping[str, str]) -> Reply:
    known = headers.get("if-none-match", "")
    if file.tag in known or known.strip() == "*":
        return Reply(status=304, headers=file.headers)
    if takes_gzip(headers) and file.packed is not None:
        return Reply(body=file.packed, headers={**file.headers, "content-encoding": "gzip"})
    return Reply(body=file.content, headers=file.headers)


def _welcome(*, is_root: bool, as_html: bool) -> Reply | None:
    if not is_root and not as_html:
        return None
    text, kind = (WELCOME_PAGE, HTML) if as_html else (WELCOME, TEXT)
    headers = {**GUARDS, "content-type": kind, "cache-control": "no-store"}
    return Reply(status=200 if is_root else 404, body=text.encode(), headers=headers)


def _type(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
