"""A model hub on the loopback: enough of its protocol for the real client to download from."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_let_me_in"


def first_byte(asked_range: str | None) -> int:
    """Where "bytes=N-" starts; 0 without it."""
    return int((asked_range or "bytes=0-").removeprefix("bytes=")[:-1])


def part_of(file: Path, start: int) -> tuple[bytes, dict[str, str]]:
    """A file from that byte on, and its headers."""
    data = file.read_bytes()
    headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    return data[start:], headers


@contextmanager
def serve(repos: dict[str, Path], gated: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as repositories; gives the endpoint and the list of the paths asked for.

    A part of a file (a request with a Range) is listed with where it starts.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self) -> None:
            body = self.command == "GET"
            path = self.path.partition("?")[0]
            asked.append(f"{self.command} {path}")
            repo = next((name for name in repos if f"/{name}/" in f"{path}/"), None)
            if repo is None:
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            if repo in gated and self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
            if path.startswith("/api/"):
                return self.reply(200, self.listing(repo, "/tree/" in path), {}, body)
            file = repos[repo] / path.partition(f"/resolve/{COMMIT}/")[2]
            if not file.is_file():
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            start = first_byte(self.headers.get("range"))
            asked[-1] += f" from {start}" if start else ""
            return self.reply(206 if start else 200, *part_of(file, start), body)

        do_GET = do_HEAD = answer

        def listing(self, repo: str, tree: bool) -> bytes:
            files = [p for p in sorted(repos[repo].rglob("*")) if p.is_file()]
            names = [p.relative_to(repos[repo]).as_posix() for p in files]
            if tree:
                rows = zip(names, files, strict=True)
                oid = "0" * 40
                entries = [
                    {"type": "file", "path": n, "size": p.stat().st_size, "oid": oid}
                    for n, p in rows
                ]
                return json.dumps(entries).encode()
            siblings = [{"rfilename": name} for name in names]
            return json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode()

        def reply(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
