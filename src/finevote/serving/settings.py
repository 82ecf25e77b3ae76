"""What a server may be told, as flags or in the environment; every limit has a default that is safe."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from finevote.errors import ArgumentError

PREFIX = "FINEVOTE_SERVE_"
MIB = 2**20


class Settings(BaseModel):
    """What a server may be told; each can be set by an environment variable, FINEVOTE_SERVE_ and its name."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    bundle: Path = Field(description="a run, a bundle folder or an exported .onnx file")
    device: str = Field("cpu", description="cpu, cuda, cuda:1, mps, or auto")
    name: str = Field(
        "", description="what the model is called in answers; the name of its folder or file unless given"
    )
    api_key: str = Field("", repr=False, description="what X-API-Key must be; empty: no key is needed")
    cors_origins: tuple[str, ...] = Field((), description="pages of other origins that may ask; none unless given")

    max_image_bytes: int = Field(20 * MIB, ge=1, description="of one image file")
    max_request_bytes: int = Field(64 * MIB, ge=1, description="of a request's body")
    max_pixels: int = Field(50_000_000, ge=64, le=178_956_970, description="of one image, before it is decoded")
    max_images: int = Field(32, ge=1, description="in one request")
    memory_bytes: int = Field(256 * MIB, ge=1, description="of bodies that are held at once, over all requests")

    batch_size: int = Field(16, ge=1, description="images in one forward pass")
    batch_wait_ms: float = Field(5.0, ge=0, le=1000, description="that an image waits for others on their way")
    queue_images: int = Field(128, ge=1, description="accepted and not yet answered; more are refused with 429")
    decode_threads: int = Field(2, ge=1, le=64, description="that decode photographs")

    upload_timeout_s: float = Field(30.0, gt=0, description="that a body may take to arrive")
    request_timeout_s: float = Field(30.0, gt=0, description="from the whole body to the answer")
    head_timeout_s: float = Field(10.0, gt=0, description="that the head of a request may take to arrive")
    keep_alive_s: int = Field(15, ge=1, description="that an idle connection is kept")
    drain_s: int = Field(30, ge=0, description="that a server which is stopped has to finish what it accepted")
    max_connections: int = Field(256, ge=1, description="open at once; more are answered 503 and closed")
    max_head_bytes: int = Field(32 * 1024, ge=1024, description="of a request's line and headers")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_images > self.queue_images:
            raise ValueError(
                f"max_images={self.max_images} exceeds queue_images={self.queue_images}: a full request must fit"
            )
        if self.memory_bytes < self.max_request_bytes:
            raise ValueError(
                f"max_request_bytes={self.max_request_bytes} exceeds memory_bytes={self.memory_bytes}: "
                "a full request must fit"
            )
        return self


def read_settings(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Return settings from the environment and from what is given, which goes first; None is not given.

    Lists are separated by commas.

    Raises:
        ArgumentError: a setting is unknown, out of range, or does not fit another; the message tells all of them.
    """
    there = os.environ if environment is None else environment
    told = {name.removeprefix(PREFIX).lower(): text for name, text in there.items() if name.startswith(PREFIX)}
    values: dict[str, Any] = {name: _as_list(name, text) for name, text in told.items() if text != ""}
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(item) for item in error.errors(include_url=False, include_input=False))
        raise ArgumentError(f"a server cannot be set so: {problems} (settings: docs/serving.md)") from None


def _describe(item: Any) -> str:
    where = ".".join(map(str, item["loc"]))
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}" if where else message


def _as_list(name: str, text: str) -> Any:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if name == "cors_origins" else text
