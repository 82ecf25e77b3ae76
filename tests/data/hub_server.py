"""A stand-in for the Hugging Face hub: serves a folder as one data set, in the hub's HTTP interface."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_repository(folder: Path, *, name: str, commit: str = COMMIT) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder` as the data set `name`; yield the address and the list of paths asked for."""
    asked: list[str] = []

    class Handler(_Handler):
        repository = _Repository(folder, name, commit)
        log = asked

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Repository:
    """The files of a data set as the hub describes them."""

    def __init__(self, folder: Path, name: str, commit: str) -> None:
        self.folder, self.name, self.commit = folder, name, commit

    def has_revision(self, revision: str) -> bool:
        return revision in ("main", self.commit)

    def entries(self, path: str, *, recursive: bool) -> list[dict[str, Any]] | None:
        folder = self.folder / path
        if not folder.is_dir():
            return None
        return [self.entry(found) for found in sorted(folder.rglob("*") if recursive else folder.iterdir())]

    def entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        oid = hashlib.sha1(name.encode()).hexdigest()
        if path.is_dir():
            return {"type": "directory", "path": name, "size": 0, "oid": oid}
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}

    def info(self) -> dict[str, Any]:
        files = [path.relative_to(self.folder).as_posix() for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return {
            "_id": "1",
            "id": self.name,
            "sha": self.commit,
            "private": False,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [{"rfilename": file} for file in files],
        }


class _Handler(BaseHTTPRequestHandler):
    repository: _Repository
    log: list[str]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_args: Any) -> None:
        """Stay quiet."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.log.append(f"{self.command} {path}")
        api, page = f"/api/datasets/{self.repository.name}", f"/datasets/{self.repository.name}/resolve/"
        if path == api:
            self._json(self.repository.info())
        elif path.startswith(page):
            self._file(*path.removeprefix(page).split("/", 1))
        elif path.startswith(f"{api}/"):
            action, _, rest = path.removeprefix(f"{api}/").partition("/")
            revision, _, inner = rest.partition("/")
            self._describe(action, revision, inner, query=parse_qs(url.query), body=body)
        else:
            self._error(404, "RepoNotFound")

    def _describe(self, action: str, revision: str, path: str, *, query: dict[str, list[str]], body: bytes) -> None:
        repository = self.repository
        if not repository.has_revision(revision):
            self._error(404, "RevisionNotFound")
        elif action == "revision":
            self._json(repository.info())
        elif action == "tree":
            entries = repository.entries(path, recursive=query.get("recursive", ["false"])[0].lower() == "true")
            if entries is None:
                self._error(404, "EntryNotFound")
            else:
                self._json(entries)
        elif action == "paths-info":
            wanted = parse_qs(body.decode()).get("paths") or json.loads(body or b"{}").get("paths", [])
            found = [repository.folder / name for name in wanted]
            self._json([repository.entry(file) for file in found if file.exists()])
        else:
            self._error(404, "EntryNotFound")

    def _file(self, revision: str, name: str) -> None:
        file = self.repository.folder / name
        if not self.repository.has_revision(revision):
            self._error(404, "RevisionNotFound")
        elif not file.is_file():
            self._error(404, "EntryNotFound")
        else:
            content = file.read_bytes()
            headers = {"ETag": f'"{etag(file)}"', "X-Repo-Commit": self.repository.commit, "Accept-Ranges": "bytes"}
            self._send(200, content, headers)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Repo-Commit": self.repository.commit})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
