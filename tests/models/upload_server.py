"""A model hub on the loopback that takes uploads: enough of its protocol for the real client."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

WRITER, READER = "hf_may_write", "hf_may_read"


@dataclass
class Hub:
    """What has arrived: repositories with their visibility, files by repository and name."""

    endpoint: str = ""
    repos: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in (WRITER, READER):
            return self.reply(401, {"error": "Invalid credentials"})
        if token == READER:
            return self.reply(403, {"error": "You don't have the rights"})
        path = self.path.partition("?")[0]
        repo = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            return self.reply(200, {"files": [modes(row) for row in json.loads(body)["files"]]})
        if path.endswith("/objects/batch"):
            return self.reply(200, {"transfer": "basic", "objects": self.places(body)})
        assert "/commit/" in path, path
        return self.commit(repo, body)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.objects[hashlib.sha256(data).hexdigest()] = data
        self.reply(200, {})

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        status = 409 if repo in self.hub.repos else 200
        self.hub.repos.setdefault(repo, asked.get("visibility", "public"))
        self.reply(status, {"url": f"{self.hub.endpoint}/{repo}"})

    def places(self, body: bytes) -> list[dict[str, Any]]:
        upload = {"href": f"{self.hub.endpoint}/put", "header": {}}
        rows = json.loads(body)["objects"]
        return [{**row, "actions": {"upload": upload}} for row in rows]

    def commit(self, repo: str, body: bytes) -> None:
        files = self.hub.files.setdefault(repo, {})
        for row in map(json.loads, body.splitlines()):
            if row["key"] == "file":
                files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            elif row["key"] == "lfsFile":
                files[row["value"]["path"]] = self.hub.objects[row["value"]["oid"]]
        url = f"{self.hub.endpoint}/{repo}/commit/{'0' * 40}"
        self.reply(200, {"commitUrl": url, "commitOid": "0" * 40, "success": True})

    def reply(self, status: int, values: dict[str, Any]) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def modes(row: dict[str, Any]) -> dict[str, Any]:
    """Weights and pictures go to large file storage, text into the repository itself."""
    large = row["path"].endswith((".safetensors", ".jpg"))
    return {"path": row["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
