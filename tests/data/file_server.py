"""A small HTTP server of files with faults to switch on, in a thread of the test."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Request(NamedTuple):
    path: str
    range: str | None
    if_range: str | None


class FileServer:
    """Serves `files` by path. Every switch can be turned at any time; `requests` lists what was asked."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.requests: list[Request] = []
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}  # answered, one a request, before the file is
        self.cut_after: list[int] = []  # bytes of the body after which the connection is closed, one a request
        self.has_ranges = True
        self.has_versions = True
        self.has_lengths = True
        self.extra_length = 0  # what Content-Length says too much
        self.seconds_per_chunk = 0.0
        self.chunk_bytes = 2**14

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    @property
    def ranges(self) -> list[str | None]:
        return [request.range for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    files: FileServer

    def do_GET(self) -> None:
        served = self.files
        path = self.path.removeprefix("http://").partition("/")[2]  # a proxy is asked with the host
        served.requests.append(Request(path, self.headers["Range"], self.headers["If-Range"]))
        if path in served.redirects:
            self.send_response(302)
            self.send_header("Location", served.redirects[path])
            self.end_headers()
        elif served.statuses.get(path):
            self.send_error(served.statuses[path].pop(0))
        elif path not in served.files:
            self.send_error(404)
        else:
            self._send(served.files[path])

    def _send(self, content: bytes) -> None:
        version = f'"{hashlib.sha256(content).hexdigest()}"'
        start = self._start(len(content), version)
        if start is None:
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.files.has_versions:
            self.send_header("ETag", version)
        if self.files.has_lengths:
            self.send_header("Content-Length", str(len(content) - start + self.files.extra_length))
        self.end_headers()
        self._send_body(content[start:])

    def _start(self, total: int, version: str) -> int | None:
        asked, wanted = self.headers["Range"], self.headers["If-Range"]
        if not asked or not self.files.has_ranges or wanted not in {None, version}:
            return 0
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= total:
            self.send_error(416)
            return None
        return start

    def _send_body(self, body: bytes) -> None:
        end = self.files.cut_after.pop(0) if self.files.cut_after else len(body)
        for start in range(0, min(end, len(body)), self.files.chunk_bytes):
            try:
                self.wfile.write(body[start : min(end, start + self.files.chunk_bytes)])
            except OSError:  # the client was killed
                return
            time.sleep(self.files.seconds_per_chunk)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_files() -> Iterator[FileServer]:
    """Yield a server on a free port of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {})) as server:
        files = FileServer(server)
        server.RequestHandlerClass.files = files
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
