"""The scripted teacher's server, in a thread and event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypedDict

import msgspec
from aiohttp import web

from stillroom.teachers import triage
from stillroom.teachers.scripted.faults import Fault, Reply, ResetByScript
from stillroom.teachers.scripted.objects import (
    JsonObject,
    body_parts,
    completion_of,
    embedding_list,
    is_azure,
    model_list,
    parsed,
    refusal,
    resource_of,
    stream_events,
    text_of,
    wrong_parameter,
)

Answer = Callable[[JsonObject], "str | JsonObject"]
"""From the request's body to the answer's text, or to an assistant message (`content`, `tool_calls`, ...)."""

JSON = "application/json"
SHUTDOWN_SECONDS = 0.1


def triage_expert(body: JsonObject) -> str:
    """The triage of the last user message, by the rules of `stillroom.teachers.triage`."""
    return triage.triage(echo(body))


def echo(body: JsonObject) -> str:
    """The text of the last user message; empty when there is none."""
    return next((text_of(m.get("content")) for m in reversed(body["messages"]) if m.get("role") == "user"), "")


class ReceivedRequest(TypedDict):
    """A request as it arrived: header names in lower case; the body parsed, None when it is not JSON."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, kw_only=True)
class _Running:
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


class ScriptedTeacher:
    """An OpenAI-shaped and Azure-shaped model server in a thread of its own, from `with` or `start` on.

    `answer` is called in the server's thread and must not block. An answer takes `first_token_seconds` and
    then `token_seconds` for every chunk, streamed or not. Answers carry the name `model`, whatever name the
    request has. With an `api_key` a request must bring it: as a bearer token, on Azure's paths as `api-key`.
    Without `record` the requests are counted but not kept. Asked for logprobs, it tells them (see `weighing`);
    without `logprobs` it takes no notice, as some servers do.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        first_token_seconds: float = 0.0,
        token_seconds: float = 0.0,
        model: str = "scripted-triage",
        api_key: str | None = None,
        record: bool = True,
        logprobs: bool = True,
    ) -> None:
        self._answer = answer
        self._logprobs = logprobs
        self._host = host
        self._port = port
        self._first_token_seconds = first_token_seconds
        self._token_seconds = token_seconds
        self._model = model
        self._api_key = api_key
        self._record = record
        self._lock = threading.Lock()
        self._requests: list[ReceivedRequest] = []
        self._calls = 0
        self._cancelled = 0
        self._faults: deque[Fault | None] = deque()
        self._lasting: Fault | None = None
        self._running: _Running | None = None

    def start(self) -> Self:
        """Accept connections from now on; starting twice does nothing. OSError when the port is taken."""
        if self._running is not None:
            return self
        listener = socket.create_server((self._host, self._port), backlog=1_024)
        self._port = listener.getsockname()[1]
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(
            target=loop.run_until_complete,
            args=(self._serve(listener, stop),),
            name="scripted-teacher",
            daemon=True,
        )
        self._running = _Running(thread=thread, loop=loop, stop=stop)
        thread.start()
        return self

    def close(self) -> None:
        """Stop; answers on their way are broken off. Closing twice does nothing."""
        if self._running is not None:
            running, self._running = self._running, None
            running.loop.call_soon_threadsafe(running.stop.set)
            running.thread.join()
            running.loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The `base_url` of OpenAI clients."""
        return f"{self.azure_endpoint}/v1"

    @property
    def azure_endpoint(self) -> str:
        """The `azure_endpoint` of Azure OpenAI clients; any deployment name and api-version will do."""
        return f"http://{self._host}:{self._port}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The chat and embedding requests so far, oldest first."""
        with self._lock:
            return list(self._requests)

    @property
    def calls(self) -> int:
        """How many chat and embedding requests arrived, refused and failed ones included."""
        return self._calls

    @property
    def cancelled(self) -> int:
        """How many answers, streamed or not, were not finished because the client left."""
        return self._cancelled

    def script(self, *faults: Fault | None) -> None:
        """One fault for each of the next chat or embedding requests, in order; None is a right answer."""
        with self._lock:
            self._faults.extend(faults)

    def script_lasting(self, fault: Fault | None) -> None:
        """This fault for every request for which `script` has none left; None ends it."""
        with self._lock:
            self._lasting = fault

    async def _serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        # Without handler_cancellation a hanging answer would not notice that its client has left.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await stop.wait()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._respond(request)
        except ResetByScript:
            raise
        except (asyncio.CancelledError, ConnectionError):
            if self._running is not None:
                self._cancelled += 1
            raise

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        resource = resource_of(request)
        if resource is None:
            return refusal(request, 404, f"Invalid URL ({request.method} {request.path})")
        if resource == "models":
            return web.Response(body=msgspec.json.encode(model_list(self._model)), content_type=JSON)
        # `content` has no size limit, unlike `request.read()`: images make long requests.
        body = parsed(await request.content.read())
        number = self._note(request, body)
        if not self._admits(request):
            return refusal(request, 401, "Incorrect API key provided.", code="invalid_api_key")
        if (wrong := wrong_parameter(resource, body)) is not None:
            return refusal(request, 400, f"Missing or invalid parameter: '{wrong}'.", param=wrong)
        fault = self._next_fault()
        reply = await self._reply(request, resource, body, number)
        return await (reply.send() if fault is None else fault.send(reply))

    def _note(self, request: web.BaseRequest, body: Any) -> int:
        """Record the request; its number, from 1."""
        with self._lock:
            self._calls += 1
            if self._record:
                headers = {name.lower(): value for name, value in request.headers.items()}
                self._requests.append(
                    {"path": request.path, "query": dict(request.query), "headers": headers, "body": body}
                )
            return self._calls

    def _admits(self, request: web.BaseRequest) -> bool:
        if self._api_key is None:
            return True
        if is_azure(request):
            return request.headers.get("api-key") == self._api_key
        return request.headers.get("authorization") == f"Bearer {self._api_key}"

    def _next_fault(self) -> Fault | None:
        with self._lock:
            return self._faults.popleft() if self._faults else self._lasting

    async def _reply(self, request: web.BaseRequest, resource: str, body: JsonObject, number: int) -> Reply:
        if self._first_token_seconds:
            await asyncio.sleep(self._first_token_seconds)
        if resource == "embeddings":
            vectors = embedding_list(body, model=self._model)
            return Reply(request=request, question=body, number=number, pieces=body_parts(vectors))
        said = self._answer(body)
        completion = completion_of(body, said, model=self._model, number=number, logprobs=self._logprobs)
        if body.get("stream") is not True:
            if self._token_seconds:
                await asyncio.sleep(self._token_seconds * len(stream_events(body, completion)))
            return Reply(request=request, question=body, number=number, pieces=body_parts(completion))
        return Reply(
            request=request,
            question=body,
            number=number,
            pieces=stream_events(body, completion),
            streamed=True,
            pause_seconds=self._token_seconds,
        )
