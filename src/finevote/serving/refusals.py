"""Why a request is not answered, as every refusal is told: what was wrong, what is allowed, what to do."""

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):  # noqa: N818  # most are no errors of the server's
    """A request, or one of its images, that is not answered.

    Args:
        status: of HTTP, 400 or more.
        reason: what was wrong, and what was got.
        allowed: what would have been right; empty where there is no such thing.
        what_to_do: by whoever sent it.
        kind: one word for the metrics.
        headers: of the answer, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        allowed: str = "",
        what_to_do: str = "",
        kind: str = "invalid",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.allowed = allowed
        self.what_to_do = what_to_do
        self.kind = kind
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Return the body of the answer."""
        told = {
            "status": self.status,
            "reason": self.reason,
            "allowed": self.allowed,
            "what_to_do": self.what_to_do,
        }
        return {"error": told}


def busy(reason: str, *, retry_after_s: int, kind: str = "queue_full") -> Refusal:
    """Return the refusal of what would have to wait too long (429)."""
    return Refusal(
        429,
        reason,
        what_to_do=f"send it again after {retry_after_s} s, as Retry-After says",
        kind=kind,
        headers={"retry-after": str(retry_after_s)},
    )


def unavailable(reason: str, *, retry_after_s: int = 5, kind: str = "unavailable") -> Refusal:
    """Return the refusal of a server that is stopping, or cannot answer now (503)."""
    return Refusal(
        503,
        reason,
        what_to_do="send it again later, or to another server",
        kind=kind,
        headers={"retry-after": str(retry_after_s), "connection": "close"},
    )
