"""The student host: `python -m stillroom.student.serving.host --socket PATH [--threads N]`.

Speaks chat completions as a teacher does, on a unix socket:

    GET  /health                  200 when ready
    GET  /stats                   the engine's counters per student
    POST /attach {name, path}     opens a folder that a fine-tuning job left, once its student has proven to be
                                  the one that was trained; gives tokens (compared, or null) and seconds
    POST /attach {name, base}     opens a base model as it is: {name, path (folder or hub id), revision}
    POST /detach {name}
    POST /v1/chat/completions     `model` is an attached name

Ends when its standard input does: the parent is gone. Owns this HTTP and nothing of how tokens are made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from transformers.utils import logging as transformers_logging

from stillroom.errors import (
    BaseModelUnusable,
    Conflict,
    InvalidRequest,
    NotFound,
    StillroomError,
    StudentUnavailable,
)
from stillroom.student.bases.base_models import open_artefact, open_untuned
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.template import TOOL_CALL_OPENS, parse_answer
from stillroom.student.child import end_with_parent
from stillroom.student.serving.chat_request import ChatRequest, read_chat_request
from stillroom.student.serving.engine import Engine, FinishReason, GenerateRequest, TokenEvent, describe_token
from stillroom.student.serving.proving import attach_proven
from stillroom.student.serving.text_stream import Holdback

LARGEST_BODY_BYTES = 64 * 1024 * 1024

ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)

_STATUS: dict[type[StillroomError], int] = {
    InvalidRequest: 400,
    BaseModelUnusable: 400,
    NotFound: 404,
    Conflict: 409,
    StudentUnavailable: 503,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(engine: Engine) -> web.Application:
    app = web.Application(client_max_size=LARGEST_BODY_BYTES, middlewares=[_errors_as_json])
    app[ENGINE] = engine
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/stats", stats),
            web.post("/attach", attach),
            web.post("/detach", detach),
            web.post("/v1/chat/completions", chat_completions),
        ]
    )
    return app


async def health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def stats(request: web.Request) -> web.Response:
    return web.json_response({"students": request.app[ENGINE].stats()})


async def attach(request: web.Request) -> web.Response:
    body = await _json(request)
    if isinstance(body, dict) and "base" in body:
        (name,) = await _strings(request, "name")
        reference = _reference(body["base"])
        student, path = await asyncio.to_thread(open_untuned, reference), reference.path or ""
    else:
        name, path = await _strings(request, "name", "path")
        student = await asyncio.to_thread(open_artefact, Path(path))
    proof = await attach_proven(request.app[ENGINE], name, student, Path(path).expanduser())
    compared = proof.agreement.tokens if proof.agreement else None
    return web.json_response({"name": name, "path": path, "tokens": compared, "seconds": proof.seconds})


async def detach(request: web.Request) -> web.Response:
    (name,) = await _strings(request, "name")
    await request.app[ENGINE].detach(name)
    return web.json_response({"name": name})


async def chat_completions(request: web.Request) -> web.StreamResponse:
    engine = request.app[ENGINE]
    wanted = read_chat_request(await _json(request))
    template = engine.student(wanted.model).template
    # Long chats take a while to encode; the loop has other answers to stream.
    prompt_ids = await asyncio.to_thread(template.encode_prompt, wanted.messages, wanted.tools)
    answer = _Answer(engine, wanted, prompt_ids)
    if wanted.stream:
        return await _stream(request, answer)
    return web.json_response(await answer.whole())


class _Answer:
    """One completion object with its n choices."""

    def __init__(self, engine: Engine, wanted: ChatRequest, prompt_ids: list[int]) -> None:
        self.wanted = wanted
        self._student = engine.student(wanted.model)
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": wanted.model,
            "system_fingerprint": "fp_stillroom",
        }
        self._num_prompt = len(prompt_ids)
        self._num_completion = 0
        requests = [_generate_request(wanted, prompt_ids, index) for index in range(wanted.num_choices)]
        # All are asked before the first answer: what is wrong with the request is known before any byte is sent.
        self._choices = [engine.generate(each) for each in requests]

    async def whole(self) -> dict[str, Any]:
        choices = [_Choice(index=index, tools=bool(self.wanted.tools)) for index in range(self.wanted.num_choices)]
        async with aclosing(_merged(self._choices)) as events:
            async for index, event in events:
                self._num_completion += 1
                choices[index].take(event)
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [self._finished(choice) for choice in choices],
            "usage": self.usage(),
            "service_tier": "default",
        }

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        choices = [_Choice(index=index, tools=bool(self.wanted.tools)) for index in range(self.wanted.num_choices)]
        for choice in choices:
            yield self._chunk(choice.index, {"role": "assistant", "content": "", "refusal": None})
        async with aclosing(_merged(self._choices)) as events:
            async for index, event in events:
                self._num_completion += 1
                text = choices[index].take(event)
                logprobs = self._logprobs([event])
                if text or logprobs:
                    yield self._chunk(index, {"content": text}, logprobs=logprobs)
                if event.finish is not None:
                    for last in self._last_chunks(choices[index]):
                        yield last
        if self.wanted.include_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self._num_prompt,
            "completion_tokens": self._num_completion,
            "total_tokens": self._num_prompt + self._num_completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def _finished(self, choice: _Choice) -> dict[str, Any]:
        content, calls = choice.answer()
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content,
            "refusal": None,
            "annotations": [],
        }
        if calls:
            message["tool_calls"] = calls
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(choice.events),
            "finish_reason": choice.finish_reason(calls),
        }

    def _last_chunks(self, choice: _Choice) -> list[dict[str, Any]]:
        """What the stream held back because it might have been a call, the calls, the reason of the end."""
        content, calls = choice.held_back()
        chunks = [self._chunk(choice.index, {"content": content})] if content else []
        if calls:
            indexed = [{"index": index, **call} for index, call in enumerate(calls)]
            chunks.append(self._chunk(choice.index, {"tool_calls": indexed}))
        return [*chunks, self._chunk(choice.index, {}, finish_reason=choice.finish_reason(calls))]

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self.wanted.include_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage}

    def _logprobs(self, events: list[TokenEvent]) -> dict[str, Any] | None:
        if self.wanted.sampling.top_logprobs is None:
            return None
        content = [
            {
                **describe_token(self._student, event.token_id),
                "logprob": event.logprob,
                "top_logprobs": [
                    {**describe_token(self._student, token_id), "logprob": logprob} for token_id, logprob in event.top
                ],
            }
            for event in events
            if event.token_id not in self._student.template.end_ids
        ]
        return {"content": content, "refusal": None} if content else None


@dataclass(kw_only=True)
class _Choice:
    """One choice while it grows: content that can be shown, and what may turn out to be tool calls."""

    index: int
    tools: bool
    events: list[TokenEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._holdback = Holdback([TOOL_CALL_OPENS] if self.tools else [])
        self._shown = ""

    def take(self, event: TokenEvent) -> str:
        """The event's text, as far as it is no tool call."""
        self.events.append(event)
        text = self._holdback.push(event.text)
        if event.finish is not None and not self._holdback.found:
            text += self._holdback.finish()
        self._shown += text
        return text

    def answer(self) -> tuple[str | None, list[dict[str, Any]]]:
        return parse_answer(self._text()) if self.tools else (self._text(), [])

    def held_back(self) -> tuple[str, list[dict[str, Any]]]:
        content, calls = parse_answer(self._text()[len(self._shown) :])
        return (content or ""), calls

    def finish_reason(self, calls: list[dict[str, Any]]) -> str:
        reason = self.events[-1].finish
        assert reason is not None
        return "tool_calls" if calls and reason is FinishReason.STOP else reason.value

    def _text(self) -> str:
        return "".join(event.text for event in self.events)


def _generate_request(wanted: ChatRequest, prompt_ids: list[int], index: int) -> GenerateRequest:
    seed = wanted.sampling.seed
    return GenerateRequest(
        model=wanted.model,
        prompt_ids=prompt_ids,
        max_tokens=wanted.max_tokens,
        # Choices of one seed must differ from each other, and be the same next time.
        sampling=wanted.sampling if seed is None else replace(wanted.sampling, seed=seed + index),
        stop=wanted.stop,
    )


async def _merged(choices: list[AsyncGenerator[TokenEvent]]) -> AsyncGenerator[tuple[int, TokenEvent]]:
    """Events of all choices as they come, each with its choice's index. Closing it closes them all."""
    events: asyncio.Queue[tuple[int, TokenEvent] | StillroomError | None] = asyncio.Queue()

    async def forward(index: int, choice: AsyncGenerator[TokenEvent]) -> None:
        try:
            async with aclosing(choice):
                async for event in choice:
                    events.put_nowait((index, event))
            events.put_nowait(None)
        except StillroomError as error:
            events.put_nowait(error)

    tasks = [asyncio.create_task(forward(index, choice)) for index, choice in enumerate(choices)]
    try:
        left = len(tasks)
        while left:
            event = await events.get()
            if isinstance(event, StillroomError):
                raise event
            if event is None:
                left -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(request: web.Request, answer: _Answer) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    await response.prepare(request)
    try:
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                await response.write(_sse(json.dumps(chunk, ensure_ascii=False)))
        await response.write(_sse("[DONE]"))
    except StillroomError as error:
        # The status has gone out already; a stream without [DONE] tells clients that it broke.
        await response.write(_sse(json.dumps(_error_body(error), ensure_ascii=False)))
    with suppress(ConnectionResetError):
        await response.write_eof()
    return response


def _sse(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except StillroomError as error:
        return web.json_response(_error_body(error), status=_status_of(error))


def _status_of(error: StillroomError) -> int:
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def _error_body(error: StillroomError) -> dict[str, Any]:
    kind = "invalid_request_error" if _status_of(error) < 500 else "server_error"
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code or None}}


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from error


async def _strings(request: web.Request, *names: str) -> list[str]:
    body = await _json(request)
    for name in names:
        if not (isinstance(body, dict) and isinstance(body.get(name), str)):
            raise InvalidRequest(f"'{name}' must be a string.", param=name)
    return [body[name] for name in names]


def _reference(value: Any) -> BaseReference:
    try:
        return BaseReference(**value)
    except TypeError as error:
        raise InvalidRequest("'base' must be an object with name, path and revision.", param="base") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="stillroom.student.serving.host")
    parser.add_argument("--socket", required=True, help="path of the unix socket to listen on")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()
    end_with_parent()
    # Only its owner may talk to it: there are no keys on this socket.
    os.umask(0o077)
    Path(options.socket).unlink(missing_ok=True)
    web.run_app(
        make_app(Engine()),
        path=options.socket,
        print=lambda _: None,
        handler_cancellation=True,
        access_log=None,
    )


if __name__ == "__main__":
    main()
