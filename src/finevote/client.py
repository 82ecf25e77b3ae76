"""Asking a server of `finevote serve` from Python, with nothing but the standard library."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from finevote.errors import ArgumentError, DataError, ServingError
from finevote.serving.schemas import ExplainAnswer, ImageAnswer, ModelAnswer, PredictAnswer

Photograph = Path | str | bytes | Image.Image | np.ndarray
_BUSY = (429, 503)
_LONGEST_WAIT_S = 30.0


class Client:
    """Asks a server what is in photographs; answers are those of its HTTP interface (docs/serving.md), typed.

    Args:
        url: where it is, such as "http://127.0.0.1:8000".
        api_key: what the server wants in X-API-Key, if it wants one.
        timeout_s: to wait for an answer.
        retries: how often a request is sent again that a busy server put off (429 or 503), after as long as it says.

    Raises:
        ArgumentError: `url` is no address of HTTP.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 60.0, retries: int = 2) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ArgumentError(f"url={url!r} is no address of a server: give one such as http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        self._headers = {} if api_key is None else {"X-API-Key": api_key}
        self._timeout_s = timeout_s
        self._retries = retries

    def predict(self, image: Photograph, **query: Any) -> ImageAnswer:
        """Return what is said of one photograph: a path, the bytes of a file, a PIL image, or a uint8 array.

        `query` is as of POST /v1/predict: top, coverage, false_alarms, max_error, sure, explain, evidence.

        Raises:
            ArgumentError: it is none of these.
            DataError: a file cannot be read.
            ServingError: the server cannot be reached, or refused; its `status` tells.
        """
        return self.predict_all([image], **query)[0]

    def predict_all(self, images: Sequence[Photograph], **query: Any) -> list[ImageAnswer]:
        """Return what is said of each photograph, in one request; one that cannot be read has its `error`.

        Raises as `predict` does.
        """
        content = self._post("/v1/predict", images, query)
        return PredictAnswer.model_validate_json(content).results

    def explain(self, image: Photograph, **query: Any) -> ExplainAnswer:
        """Return why a photograph is named as it is.

        `query` is as of POST /v1/explain: top, coverage, false_alarms, contrast. Raises as `predict` does.
        """
        return ExplainAnswer.model_validate_json(self._post("/v1/explain", [image], {**query, "format": "json"}))

    def vote_map(self, image: Photograph, **query: Any) -> Image.Image:
        """Return the votes laid over a photograph: the final ones, of a `layer`, of a `head`, or a `contrast`.

        Raises as `predict` does.
        """
        picture = Image.open(io.BytesIO(self._post("/v1/explain", [image], {**query, "format": "png"})))
        picture.load()
        return picture

    def model(self) -> ModelAnswer:
        """Return what the server says of its model. Raises as `predict` does."""
        return ModelAnswer.model_validate_json(self._ask(Request(f"{self._url}/v1/model", headers=self._headers)))  # noqa: S310

    def _post(self, path: str, images: Sequence[Photograph], query: Mapping[str, Any]) -> bytes:
        boundary = uuid.uuid4().hex
        body = _form([_as_file(image, number) for number, image in enumerate(images, 1)], boundary)
        headers = {**self._headers, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        asked = urlencode([pair for name, value in query.items() for pair in _as_pairs(name, value)])
        return self._ask(Request(f"{self._url}{path}?{asked}", body, headers))  # noqa: S310  # the scheme is checked

    def _ask(self, request: Request) -> bytes:
        for tries_left in range(self._retries, -1, -1):
            try:
                with urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310  # as above
                    content: bytes = answer.read()
                    return content
            except HTTPError as error:
                refusal, wait_s = _as_error(error), error.headers.get("Retry-After", "")
                if error.code not in _BUSY or not tries_left or not wait_s.isdecimal():
                    raise refusal from None
                time.sleep(min(float(wait_s), _LONGEST_WAIT_S))
            except (URLError, OSError, HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                raise ServingError(
                    f"no answer from {self._url} ({reason}): is `finevote serve` running there?"
                ) from None
        raise ServingError("retries must be 0 or more")


def _as_error(error: HTTPError) -> ServingError:
    """Return a refusal as the server told it."""
    content = error.read()
    try:
        told = json.loads(content)["error"]
        parts = [told["reason"], told.get("allowed") and f"allowed: {told['allowed']}", told.get("what_to_do")]
        message = "; ".join(part for part in parts if part)
    except (ValueError, KeyError, TypeError):
        message = f"{error.reason}: is it a server of `finevote serve`?"
    refusal = ServingError(f"the server refused ({error.code}): {message}")
    refusal.status = error.code
    return refusal


def _as_file(image: Photograph, number: int) -> tuple[str, bytes]:
    """Return the name and the bytes of a photograph's file; pixels become a PNG, which loses nothing."""
    if isinstance(image, bytes):
        return f"image {number}", image
    if isinstance(image, (str, Path)):
        try:
            return Path(image).name, Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read the image {image}: {error.strerror}") from None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ArgumentError(
            f"an image must be a path, bytes, a PIL image or a uint8 array (rows, columns, 3), but got {got}"
        )
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return f"image {number}", file.getvalue()


def _form(uploads: Sequence[tuple[str, bytes]], boundary: str) -> bytes:
    parts = []
    for name, content in uploads:
        shown = name.replace("\\", "_").replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{shown}"\r\n\r\n'
        parts += [head.encode("utf-8", "surrogateescape"), content, b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _as_pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [(name, str(value).lower())]
    if isinstance(value, (list, tuple)):
        return [(name, str(item)) for item in value] or [(name, "")]
    return [(name, str(value))]
