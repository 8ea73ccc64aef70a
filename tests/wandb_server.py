"""A W&B server on loopback that keeps what the real client sends: the few endpoints that wandb 0.31 needs, and ways to misbehave."""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = Literal["answers", "hangs", "fails", "is slow"]
SLOW_S = 0.5


@dataclass
class ReceivedRun:
    """One run as the server has it. `history` and `events` are lines by their offset; a line sent again is in `sent_again`."""

    name: str
    display_name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    sent_again: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    was_preempting: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history in the order of its offsets."""
        return [self.history[offset] for offset in sorted(self.history)]

    def receive(self, message: dict[str, Any]) -> None:
        """Takes one message of the file stream."""
        for name, chunk in message.get("files", {}).items():
            lines = {chunk.get("offset", 0) + number: json.loads(line) for number, line in enumerate(chunk["content"]) if name.endswith(".jsonl")}
            if name == "wandb-history.jsonl":
                self.sent_again += [(offset, line) for offset, line in lines.items() if offset in self.history]
                self.history |= lines
            elif name == "wandb-events.jsonl":
                self.events |= lines
            elif name == "wandb-summary.json":
                self.summary |= json.loads(chunk["content"][-1])
        self.was_preempting |= bool(message.get("preempting"))
        if message.get("complete"):
            self.exit_code = message.get("exitcode")


@dataclass
class WandbServer:
    """Its `behaviour` may change at any time; `requests` are (operation or path) in the order of arrival."""

    url: str = ""
    behaviour: Behaviour = "answers"
    runs: dict[str, ReceivedRun] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    key: str = field(default_factory=lambda: secrets.token_hex(20))  # the shape of a key, and nobody's
    released: threading.Event = field(default_factory=threading.Event)

    def environment(self) -> dict[str, str]:
        """Returns the variables with which the client finds this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.key, "WANDB_ERROR_REPORTING": "false", "no_proxy": "*", "NO_PROXY": "*"}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Returns the data of a GraphQL answer."""
        entity = {"id": "RW50", "name": "tester", "organization": None}
        match operation:
            case "Viewer":
                teams = {"edges": [{"node": {"name": "tester"}}]}
                return {
                    "viewer": {"id": "VQ==", "entity": "tester", "username": "tester", "email": "", "flags": "{}", "admin": False, "teams": teams}
                }
            case "RunResumeStatus":
                run = self.runs.get(variables["name"])
                return {"model": {"id": "UA==", "name": variables.get("project"), "entity": entity, "bucket": run and _resume_status(run)}}
            case "UpsertBucket":
                return {"upsertBucket": self._upsert(variables, entity)}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/storage/{variables['run']}/{name}"} for name in variables["files"]]
                return {"createRunFiles": {"runID": "Ug==", "uploadHeaders": [], "files": files}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "OrganizationCoreWeaveOrganizationID":
                return {"entity": entity}
            case "MarkRunFilesUploaded":
                return {"markRunFilesUploaded": {"success": True}}
            case _:
                return {}

    def _upsert(self, variables: dict[str, Any], entity: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ReceivedRun(name))
        run.display_name = variables.get("displayName") or run.display_name
        run.tags = variables.get("tags") or run.tags
        run.config |= json.loads(variables.get("config") or "{}")
        project = {"id": "UA==", "name": variables.get("project") or "uncategorized", "entity": entity}
        shown = {"id": "Ug==", "name": name, "displayName": run.display_name, "description": "", "config": json.dumps(run.config), "sweepName": None}
        return {"inserted": inserted, "bucket": shown | {"project": project, "historyLineCount": len(run.history)}}


@contextmanager
def serve() -> Iterator[WandbServer]:
    """Serves on a free port of loopback until the block is left."""
    state = WandbServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond(200, b"{}")

        def do_PUT(self) -> None:
            _, _, run, name = self.path.split("/", 3)
            state.runs[run].files[name] = self._body()
            self._respond(200, b"{}")

        def do_POST(self) -> None:
            body = self._body()
            message = json.loads(body or b"{}")
            operation = message.get("operationName") or ("file_stream" if self.path.endswith("/file_stream") else self.path)
            state.requests.append(operation)
            if state.behaviour == "hangs":
                state.released.wait(timeout=120)
            elif state.behaviour == "is slow":
                time.sleep(SLOW_S)
            if state.behaviour in ("fails", "hangs"):
                self._respond(500, b"{}")
            elif operation == "file_stream":
                state.runs[self.path.split("/")[-2]].receive(message)
                self._respond(200, b'{"exitcode": null, "limits": {}}')
            else:
                self._respond(200, json.dumps({"data": state.answer(operation, message.get("variables") or {})}).encode())

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _respond(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, TimeoutError):  # a client that was killed
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()


def _resume_status(run: ReceivedRun) -> dict[str, Any]:
    tail = json.dumps([json.dumps(row) for row in run.rows[-1:]])
    events = json.dumps([json.dumps(run.events[offset]) for offset in sorted(run.events)[-1:]])
    counts = {"logLineCount": 0, "historyLineCount": len(run.history), "eventsLineCount": len(run.events)}
    kept = {
        "summaryMetrics": json.dumps(run.summary),
        "config": json.dumps(run.config),
        "tags": run.tags,
        "notes": "",
        "displayName": run.display_name,
    }
    return {"id": "Ug==", "name": run.name, **counts, **kept, "historyTail": tail, "eventsTail": events, "wandbConfig": json.dumps({"t": 1})}
