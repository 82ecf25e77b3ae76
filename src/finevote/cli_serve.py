"""The command `finevote serve`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finevote.errors import ArgumentError, MissingExtraError

if TYPE_CHECKING:
    from finevote.serving.served import Served
    from finevote.serving.settings import Settings

_MIB = 2**20
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", readable=False, help="A run, a bundle folder, or an exported .onnx file."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes, each with the model by itself.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, or auto; cpu unless given.")] = None,
    name: Annotated[str | None, typer.Option(help="What the model is called; as its folder unless given.")] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="A file with the key that requests must bring (or FINEVOTE_SERVE_API_KEY); none unless given.",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Let pages of this origin ask: https://example.org.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images in one forward pass at most; 16.")] = None,
    batch_wait_ms: Annotated[
        float | None, typer.Option(help="Milliseconds that an image waits for others on their way; 5.")
    ] = None,
    queue: Annotated[
        int | None, typer.Option(min=1, help="Images waiting at most, before requests are refused with 429; 128.")
    ] = None,
    max_images: Annotated[int | None, typer.Option(min=1, help="Images in one request at most; 32.")] = None,
    max_image_mib: Annotated[float | None, typer.Option(help="MiB of one image at most; 20.")] = None,
    max_request_mib: Annotated[float | None, typer.Option(help="MiB of one request at most; 64.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=64, help="Pixels of one image at most; 50,000,000.")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds from the whole request to its answer at most; 30.")
    ] = None,
) -> None:
    """Answer over HTTP, with a page at /.

    Every option can also be set in the environment (docs/serving.md).
    """
    settings = _read_settings(
        bundle=bundle,
        device=device,
        name=name,
        api_key=None if api_key_file is None else _read_key(api_key_file),
        cors_origins=tuple(cors) if cors else None,
        batch_size=batch,
        batch_wait_ms=batch_wait_ms,
        queue_images=queue,
        max_images=max_images,
        max_image_bytes=_as_bytes("--max-image-mib", max_image_mib),
        max_request_bytes=_as_bytes("--max-request-mib", max_request_mib),
        max_pixels=max_pixels,
        request_timeout_s=timeout,
    )
    from finevote.serving.server import serve as run

    run(settings, host=host, port=port, workers=workers, announce=_announce)


def _read_settings(**given: Any) -> Settings:
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise MissingExtraError(missing[0], "serve")
    from finevote.serving.settings import read_settings

    return read_settings(**given)


def _as_bytes(option: str, mib: float | None) -> int | None:
    if mib is None:
        return None
    if not isfinite(mib):
        raise ArgumentError(f"{option} {mib} must be a number of MiB, e.g. 20")
    return round(mib * _MIB)


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ArgumentError(f"cannot read the API key in {path}: {reason}") from None
    if not key or not key.isascii() or not key.isprintable():
        raise ArgumentError(f"{path} holds no API key: write one line of letters and digits into it")
    return key


def _announce(address: str, served: Served) -> None:
    reference, num_classes = served.reference, len(served.predictor.class_names)
    typer.echo(
        f"serving {reference.name} ({num_classes:,} classes, {reference.sha256[:12]}) at {address}\n"
        f"page {address}/  requests {address}/docs  Ctrl-C stops",
    )
