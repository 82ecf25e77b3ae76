"""HTTP/1.1 connections that cannot be held for nothing: heads come in time, and there are so many at most."""

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from finevote.serving.refusals import Refusal, unavailable

_LINGER_S = 0.5


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, which waits without end for the head of a request, with limits.

    The class is made anew for each server by `bounded`, which sets them.
    """

    head_timeout_s: ClassVar[float] = 10.0
    max_connections: ClassVar[int] = 256

    def connection_made(self, transport: Any) -> None:
        """Take a connection, unless there are too many: then it is told so, and closed."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_refused = len(self.connections) >= self.max_connections
        if self._is_refused:
            self.transport = transport
            too_many = unavailable(f"there are {len(self.connections)} connections already", retry_after_s=2)
            transport.write(_as_bytes(too_many))
            if transport.can_write_eof():
                transport.write_eof()
            self.loop.call_later(_LINGER_S, transport.close)
            return
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the clock runs while a head is not there."""
        if self._is_refused:
            return
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_watching()
        if not self._is_refused:
            super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too large a head, as everything is answered."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            refusal = Refusal(
                int(status),
                f"this is no request that can be read: {error or msg}",
                allowed="HTTP/1.1 with a short head",
                what_to_do="send fewer and shorter headers, or check what sent this",
            )
            self.transport.write(_as_bytes(refusal))
        self.transport.close()

    def _watch_head(self) -> None:
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if is_busy or self.transport.is_closing():
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._end_waiting)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_waiting(self) -> None:
        self._head_timer = None
        is_busy = self.cycle is not None and not self.cycle.response_complete
        if not is_busy and not self.transport.is_closing():
            self.transport.close()


def bounded(*, head_timeout_s: float, max_connections: int) -> type[BoundedProtocol]:
    """Return a protocol with these limits."""
    limits = {"head_timeout_s": head_timeout_s, "max_connections": max_connections}
    return type("BoundedProtocol", (BoundedProtocol,), limits)


def _as_bytes(refusal: Refusal) -> bytes:
    """Return a refusal as a whole answer of HTTP, after which the connection ends."""
    content = json.dumps(refusal.to_dict()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "x-content-type-options": "nosniff",
        **refusal.headers,
        "connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n{head}\r\n".encode("latin-1") + content
