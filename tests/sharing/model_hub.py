"""A stand-in for the Hugging Face hub that repositories of models can be made in, written to and read from.

It speaks the parts of the hub's HTTP interface that uploading in one commit and downloading take: who am I, create,
information, upload modes, large files (Git LFS, which is stored apart and committed by its hash), commits, files by
revision. Faults are switched on by its fields.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_a_test"


@dataclass
class Repository:
    """Its versions, the oldest first: {commit: {path: content}}."""

    private: bool = False
    versions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")

    @property
    def head(self) -> str:
        return list(self.versions)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.versions[self.head]

    def commit(self, files: dict[str, bytes], *, message: str = "by hand") -> str:
        sha = hashlib.sha1(f"{len(self.versions)} {sorted(files)}".encode()).hexdigest()
        self.versions[sha] = dict(files)
        self.messages.append(message)
        return sha

    def find(self, revision: str) -> str | None:
        return self.head if revision == "main" else revision if revision in self.versions else None


@dataclass
class ModelHub:
    """All repositories by name, and what goes wrong."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large_files: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    asked: list[str] = field(default_factory=list)
    token: str = TOKEN
    owner: str = "me"  # who may write, to names of its own
    cut_after: dict[str, int] = field(default_factory=dict)  # bytes of a file after which the connection breaks
    statuses: dict[str, int] = field(default_factory=dict)  # answered for a path that contains this
    sizes: dict[str, int] = field(default_factory=dict)  # what is said of a file, in place of its size


@contextmanager
def serve_hub() -> Iterator[ModelHub]:
    """Yield a hub on a free port of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {})) as server:
        hub = ModelHub(f"http://127.0.0.1:{server.server_port}")
        server.RequestHandlerClass.hub = hub
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def _answer(self) -> None:
        self.body = self._read_body()
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.query = parse_qs(url.query)
        self.hub.asked.append(f"{self.command} {path}")
        status = next((status for part, status in self.hub.statuses.items() if part in path), None)
        if status is None:
            self._serve(path)
        else:
            self._error(status)

    def _serve(self, path: str) -> None:
        if path == "/api/whoami-v2":
            self._json({"name": self.hub.owner, "type": "user", "orgs": []}) if self._is_known() else self._error(401)
        elif path == "/api/repos/create":
            self._create(json.loads(self.body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path.startswith("/api/models/"):
            self._model(path.removeprefix("/api/models/").split("/"))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._offer_large(json.loads(self.body)["objects"])
        elif path.startswith("/large/"):
            self._keep_large(path.removeprefix("/large/"))
        elif "/resolve/" in path:
            name, _, rest = path.lstrip("/").partition("/resolve/")
            self._file(name, *rest.split("/", 1))
        else:
            self._error(404, "EntryNotFound")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _may_write(self, name: str) -> bool:
        return self._is_known() and name.partition("/")[0] == self.hub.owner

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self._may_write(name):
            self._error(403)
        elif name in self.hub.repositories:
            self._error(409)
        else:
            is_private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private=is_private)
            self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": "1"})

    def _find(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        return None if found is None or (found.private and not self._is_known()) else found

    def _model(self, parts: list[str]) -> None:
        name, action, rest = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "", "/".join(parts[3:])
        repository = self._find(name)
        if repository is None:
            self._error(404 if self._is_known() else 401, "RepoNotFound")
        elif action in ("", "revision"):
            sha = repository.find(rest or "main")
            self._error(404, "RevisionNotFound") if sha is None else self._json(self._info(name, repository, sha))
        elif not self._may_write(name):
            self._error(403)
        elif action == "preupload":
            modes = [self._mode(file) for file in json.loads(self.body)["files"]]
            self._json({"files": modes})
        elif action == "commit":
            self._commit(name, repository)
        else:
            self._error(404, "EntryNotFound")

    def _info(self, name: str, repository: Repository, sha: str) -> dict[str, Any]:
        siblings = []
        for path, content in sorted(repository.versions[sha].items()):
            sizes = {"size": self.hub.sizes.get(path, len(content)), "blobId": _blob_id(content)}
            siblings.append({"rfilename": path, **(sizes if "blobs" in self.query else {})})
        return {
            "_id": "1",
            "id": name,
            "sha": sha,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        is_large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}

    def _offer_large(self, objects: list[dict[str, Any]]) -> None:
        offered = []
        for wanted in objects:
            upload = {"upload": {"href": f"{self.hub.address}/large/{wanted['oid']}"}}
            known = wanted["oid"] in self.hub.large_files
            offered.append({"oid": wanted["oid"], "size": wanted["size"], **({} if known else {"actions": upload})})
        self._json({"transfer": "basic", "objects": offered})

    def _keep_large(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._error(400)
            return
        self.hub.large_files[oid] = self.body
        self._json({})

    def _commit(self, name: str, repository: Repository) -> None:
        files, message, parent = dict(repository.files), "", None
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message, parent = value["summary"], value.get("parentCommit")
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        if parent not in (None, repository.head):
            self._error(412)
            return
        sha = repository.commit(files, message=message)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}"})

    def _file(self, name: str, revision: str, path: str) -> None:
        repository = self._find(name)
        sha = None if repository is None else repository.find(revision)
        if repository is None:
            self._error(404 if self._is_known() else 401, "RepoNotFound")
        elif sha is None:
            self._error(404, "RevisionNotFound")
        elif path not in repository.versions[sha]:
            self._error(404, "EntryNotFound")
        else:
            content = repository.versions[sha][path]
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {"ETag": f'"{_blob_id(content)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(206 if start else 200, content[start:], headers, cut=self.hub.cut_after.get(path))

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
            if cut is not None:
                self.close_connection = True


def _blob_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
