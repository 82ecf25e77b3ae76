"""What every request passes first: key, headers, errors as JSON, a log line; and bodies nobody reads are cut off."""

import asyncio
import json
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finevote.serving.lifecycle import Lifecycle
from finevote.serving.logs import log
from finevote.serving.metrics import Metrics
from finevote.serving.refusals import Refusal, unavailable
from finevote.serving.security import HEADERS, is_key
from finevote.serving.settings import Settings

_ERROR = 40
_LINGER_S = 2.0  # a body that nobody wants is read on for so long, that the answer arrives before the connection ends
_LEFT = 499  # in the log: the client left before its answer
_GUARDED = ("/v1/", "/metrics")  # what takes the key


class Edge:
    """The outermost layer of the application.

    Args:
        app: what answers.
        settings: the key.
        lifecycle: whether new work is taken.
        metrics: where requests are counted.
        paths: those that there are; others are counted and logged as one.
    """

    def __init__(
        self, app: ASGIApp, *, settings: Settings, lifecycle: Lifecycle, metrics: Metrics, paths: Collection[str]
    ) -> None:
        self._app = app
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        is_work = scope["path"].startswith("/v1/")
        with self._lifecycle.answering() if is_work and not self._lifecycle.is_stopping else nullcontext():
            try:
                _check_framing(scope)
                self._check(scope, is_work=is_work)
                await self._app(scope, exchange.receive, exchange.send)
            except Refusal as refusal:
                self._metrics.count_refusal(refusal.kind)
                await exchange.refuse(refusal)
            except ClientDisconnect:
                exchange.status = _LEFT
            except Exception:  # noqa: BLE001  # whatever it is, the server goes on
                log("failed", level=_ERROR, trace=True, id=exchange.id)
                await exchange.refuse(_failed(exchange.id))
        self._record(scope, exchange)

    def _check(self, scope: Scope, *, is_work: bool) -> None:
        num_bytes = len(scope.get("raw_path") or b"") + len(scope["query_string"]) + sum(map(len, _flat(scope)))
        if num_bytes > self._settings.max_head_bytes:  # where it came in one piece, the parser lets it pass
            raise Refusal(
                431,
                f"the head of the request has {num_bytes:,} bytes",
                allowed=f"up to {self._settings.max_head_bytes:,} bytes",
                what_to_do="send fewer and shorter headers",
                kind="too_large",
            )
        if is_work and self._lifecycle.is_stopping:
            raise unavailable("the server is stopping", kind="stopping")
        key = self._settings.api_key
        if key and scope["path"].startswith(_GUARDED):
            given = dict(scope["headers"]).get(b"x-api-key", b"").decode("latin-1")
            if not is_key(given, key.encode().decode("latin-1")):
                raise Refusal(
                    401,
                    "the API key is wrong" if given else "an API key is needed",
                    allowed="the server's key in the header X-API-Key",
                    what_to_do="ask whoever runs the server for it",
                    kind="wrong_key",
                    headers={"www-authenticate": 'ApiKey realm="finevote"'},
                )

    def _record(self, scope: Scope, exchange: "_Exchange") -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        seconds = time.monotonic() - exchange.start
        self._metrics.count_request(method=method, path=path, status=exchange.status, seconds=seconds)
        log(
            "request",
            id=exchange.id,
            method=method,
            path=path,
            status=exchange.status,
            milliseconds=round(seconds * 1000, 1),
            bytes=exchange.num_bytes,
        )


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        self.id = uuid.uuid4().hex
        self.start = time.monotonic()
        self.status = 500
        self.num_bytes = 0
        self._receive, self._send = receive, send
        self._has_started = False
        self._was_asked = False
        self._has_more = bool(names & {b"content-length", b"transfer-encoding"}) and not _is_empty(scope)
        self._waits_for_100 = b"expect" in names

    async def receive(self) -> Message:
        """Return the next piece of the body."""
        self._was_asked = True
        message = await self._receive()
        if message["type"] != "http.request":
            self._has_more = False
            return message
        self.num_bytes += len(message.get("body", b""))
        self._has_more = message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send on a piece of the answer, with the headers that all have."""
        if message["type"] == "http.response.start":
            self._has_started = True
            self.status = message["status"]
            message = {**message, "headers": self._with_headers(message.get("headers", []))}
        elif message["type"] == "http.response.body" and not message.get("more_body") and self._has_more:
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal; if an answer has begun there is nothing to be said any more."""
        if self._has_started:
            return
        content = json.dumps(refusal.to_dict(), ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content)), **refusal.headers}
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": _encoded(headers)})
        await self.send({"type": "http.response.body", "body": content, "more_body": False})

    def _with_headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = {name for name, _ in headers}
        wanted = {**HEADERS, "x-request-id": self.id} | ({"connection": "close"} if self._has_more else {})
        return [*headers, *(pair for pair in _encoded(wanted) if pair[0] not in given)]

    async def _drain(self) -> None:
        """Read on what is left of the body: to close at once would make the system throw the answer away."""
        if self._waits_for_100 and not self._was_asked:
            return
        try:
            async with asyncio.timeout(_LINGER_S):
                while self._has_more:
                    await self.receive()
        except TimeoutError:
            pass


def _check_framing(scope: Scope) -> None:
    """Refuse a body whose end is told twice: what passed it on may have believed the other (RFC 9112, 6.1)."""
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
        raise Refusal(
            400,
            "the request has both Content-Length and Transfer-Encoding",
            allowed="one of them",
            what_to_do="check what sent this, or a proxy between",
            headers={"connection": "close"},
        )


def _is_empty(scope: Scope) -> bool:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return lengths == [b"0"]


def _flat(scope: Scope) -> Iterator[bytes]:
    return (text for pair in scope["headers"] for text in pair)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _failed(request_id: str) -> Refusal:
    return Refusal(
        500,
        "the server failed at this request",
        what_to_do=f"tell whoever runs it the number {request_id}, under which its log says more",
        kind="failed",
    )


def refusal_answer(refusal: Refusal) -> dict[str, Any]:
    """Return what a web framework needs to answer with a refusal."""
    return {"status_code": refusal.status, "content": refusal.to_dict(), "headers": refusal.headers or None}
