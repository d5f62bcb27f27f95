"""A server that speaks as much of Weights & Biases' protocol as wandb needs to show a run, and keeps what it is sent."""

from __future__ import annotations

import gzip
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """wandb drops connections when it ends."""


class WandbServer:
    """Runs by their id: what they were made with, and the lines of their history."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.keys: set[str] = set()
        self.requests: list[str] = []
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def steps(self, run: str) -> list[int]:
        """The steps in a run's history, in the order they came."""
        return [line["_step"] for line in self.runs[run]["history"]]

    def __enter__(self) -> WandbServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    # --- what it answers ------------------------------------------------------------------------------

    def answer(self, path: str, body: bytes) -> Any:
        self.requests.append(body.decode(errors="replace"))
        if path != "/graphql":
            return self._streamed(path.split("/")[-2], json.loads(body)) if path.endswith("/file_stream") else {}
        asked = json.loads(body)
        operation = OPERATION.search(asked["query"])
        known = {"RunResumeStatus": self._status, "UpsertBucket": self._made, "CreateRunFiles": self._files}
        if operation is None or operation[1] not in known:
            return {"errors": [{"message": f"unknown operation {asked['query'][:80]}"}]}
        return {"data": known[operation[1]](asked["variables"])}

    def _status(self, asked: dict[str, Any]) -> Any:
        found = self.runs.get(asked["name"])
        if found is None:
            return {"model": None}
        history = [json.dumps(line) for line in found["history"]]
        bucket = {
            **{
                "id": "b",
                "name": asked["name"],
                "displayName": found["displayName"],
                "tags": found["tags"],
                "notes": "",
            },
            **{"logLineCount": 0, "historyLineCount": len(history), "eventsLineCount": 0, "eventsTail": "[]"},
            **{
                "historyTail": json.dumps(history[-1:]),
                "summaryMetrics": "{}",
                "config": "{}",
                "wandbConfig": '{"t":{}}',
            },
        }
        entity = {"id": "e", "name": found["entity"]}
        return {"model": {"id": "p", "name": asked["project"], "entity": entity, "bucket": bucket}}

    def _made(self, asked: dict[str, Any]) -> Any:
        entity = asked["entity"] or "somebody"
        given = {name: asked[name] for name in ("project", "displayName", "tags", "config", "host") if asked.get(name)}
        run = self.runs.setdefault(asked["name"], {"history": [], "entity": entity, "tags": [], "displayName": None})
        run.update(given)
        project = {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": entity}}
        bucket = {
            "id": "b",
            "name": asked["name"],
            "displayName": run["displayName"],
            "config": "{}",
            "project": project,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _files(self, asked: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in asked["files"]]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}

    def _streamed(self, run: str, sent: dict[str, Any]) -> Any:
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history:
            lines = self.runs[run]["history"]
            assert history["offset"] == len(lines)
            lines += map(json.loads, history["content"])
        return {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                if "authorization" in self.headers:  # uploads go to a storage of someone else's
                    server.keys.add(self.headers["authorization"])
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                answer = json.dumps(server.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """The test says what was wrong."""

        return Handler
