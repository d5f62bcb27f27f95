"""The running server, as the commands see it: the public API over HTTP, standard library only."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from stillroom import config
from stillroom.errors import StillroomError

TIMEOUT_SECONDS = 600.0
RESTART_SECONDS = 60.0  # how long a server may be away while something is watched
LOOK_SECONDS = 0.5
ACCOUNT = "/subscriptions/local/resourceGroups/local/providers/Microsoft.CognitiveServices/accounts/local/deployments"
ARM_VERSION = {"api-version": "2025-09-01"}
PAGE = 100
# The server is on this machine or named by the user: no proxy of the environment shall see the key.
_opener = build_opener(ProxyHandler({}))


class ServerError(StillroomError):
    """The server refused the request; the message is its own."""

    code = "server_error"


class NoServer(StillroomError):
    """No running server could be found or reached."""

    code = "no_server"


class Client:
    """One server and one key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self.key = key

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("GET", path, query)

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        return self._call("POST", path, body={} if body is None else body)

    def put(self, path: str, body: Any, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("PUT", path, query, body)

    def delete(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("DELETE", path, query)

    def pages(self, path: str, query: Mapping[str, Any], limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page, up to `limit`."""
        left, after = limit, None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self.get(path, {**query, "limit": size, **({"after": after} if after else {})})
            yield from page["data"]
            if not page.get("has_more"):
                return
            left = None if left is None else left - size
            after = page["data"][-1]["id"]

    def patiently(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As `get`; while the server is being restarted, this waits for it."""
        until = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return self.get(path, query)
            except NoServer as error:
                if time.monotonic() > until:
                    raise NoServer(f"{error.message} What is watched goes on with it.") from None
                time.sleep(LOOK_SECONDS)

    def content(self, path: str) -> Iterator[bytes]:
        """A file's bytes, as they come."""
        yield from self._pieces(self._request("GET", path))

    def download(self, path: str, body: Any) -> Iterator[bytes]:
        """The bytes that are asked for by a body, as they come."""
        yield from self._pieces(self._request("POST", path, body=body))

    def lines(self, path: str, body: Any) -> Iterator[str]:
        """The lines of a streamed answer."""
        with self._open(self._request("POST", path, body=body)) as answer:
            for line in answer:
                yield line.decode().rstrip("\r\n")

    def _pieces(self, request: Request) -> Iterator[bytes]:
        with self._open(request) as answer:
            try:
                while piece := answer.read(1 << 20):
                    yield piece
            except (ConnectionError, HTTPException) as error:
                raise NoServer(f"The server at {self.url} broke off before the end ({error}).") from None

    def _call(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> dict[str, Any]:
        with self._open(self._request(method, path, query, body)) as answer:
            data = answer.read()
        return dict(json.loads(data)) if data else {}

    def _request(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Request:
        tail = f"?{urlencode(query)}" if query else ""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        return Request(f"{self.url}{path}{tail}", data=data, headers=headers, method=method)  # noqa: S310

    def _open(self, request: Request) -> Any:
        try:
            return _opener.open(request, timeout=TIMEOUT_SECONDS)
        except HTTPError as error:
            raise ServerError(_reason(error)) from None
        except (URLError, ConnectionError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise NoServer(f"No server answers at {self.url} ({reason}). Start one with `stillroom serve`.") from None


def connect(data: str | None) -> Client:
    """The server of the data folder when one is given, else the one that the environment names, else
    the one of the folder that the configuration names. Raises NoServer when there is none."""
    url, key = os.environ.get("STILLROOM_URL"), os.environ.get("STILLROOM_API_KEY")
    if data or not (url and key):
        folder = data_folder(data)
        url = (None if data else url) or _from_folder(folder)
        key = (None if data else key) or _admin_key(folder) or key
    if not key:
        raise NoServer(f"No API key: set STILLROOM_API_KEY, or run this where {folder}/admin-key can be read.")
    return Client(url.removesuffix("/").removesuffix("/v1"), key)


def data_folder(data: str | None) -> Path:
    """The folder given, else the configuration's."""
    return Path(data).expanduser().resolve() if data else config.data_folder()


def _admin_key(folder: Path) -> str | None:
    path = folder / "admin-key"
    return path.read_text().strip() if path.exists() else None


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return quote(text, safe="")


def _from_folder(folder: Path) -> str:
    known = config.running_server(folder)
    if not known:
        raise NoServer(
            f"No server runs on the data folder {folder}. Start one with `stillroom serve --data {folder}`, "
            "or set STILLROOM_URL."
        )
    return str(known["url"])


def _reason(error: HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {error.code}: {text[:200]}"
