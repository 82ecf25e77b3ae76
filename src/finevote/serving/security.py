"""Who may ask, and what a browser may do with the answers."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping

NOTHING = "default-src 'none'; frame-ancestors 'none'"
_BLOCK = re.compile(r"<(script|style)\b[^>]*>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)

HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
    "content-security-policy": NOTHING,
}


def page_policy(html: str) -> str:
    """Return the Content-Security-Policy of a page of one file: its own inline blocks, by hash, and this server."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _BLOCK.findall(html):
        digest = base64.b64encode(hashlib.sha256(_as_parsed(text)).digest()).decode()
        hashes[kind.lower()].append(f"'sha256-{digest}'")
    scripts, styles = (" ".join(dict.fromkeys(found)) or "'none'" for found in hashes.values())
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src {scripts}",
            f"style-src {styles}",
            "img-src 'self' data: blob:",
            "media-src 'self' blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )


def is_key(given: str, key: str) -> bool:
    """Tell whether a key is the right one, in a time that does not depend on how much of it is right."""
    return hmac.compare_digest(_digest(given), _digest(key))


def _as_parsed(text: str) -> bytes:
    """Return the text of a block as a browser hashes it: line ends are line feeds."""
    return text.replace("\r\n", "\n").replace("\r", "\n").encode()


def _digest(text: str) -> bytes:
    """Return a hash, so that keys of any length and script compare in the same time."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
