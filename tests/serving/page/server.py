"""A server with a tiny model for the tests of its page, run by a thread of this process."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import uvicorn
from PIL import Image

from finevote.bundle.write import save_bundle
from finevote.evaluation.calibrator import calibrate
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.unknown import class_means
from finevote.serving.app import create_app
from finevote.serving.server import make_config
from finevote.serving.settings import Settings
from finevote.types import Predictions, Taxonomy
from tests.tiny import make_config as make_run_config
from tests.tiny import make_model

MARKUP = "<img src=x onerror=alert(1)>"
CLASSES = (MARKUP, "green, the second", "red_admiral")
SIDE_PX = 240


def write_served_bundle(folder: Path) -> Path:
    """Write an untrained voting classifier with all that a bundle can have: calibration, taxonomy, gallery."""
    config = make_run_config()
    model, preprocessing = make_model(config)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        images = torch.from_numpy(rng.normal(size=(60, 3, *preprocessing.image_size)).astype(np.float32))
        embeddings = model(images).embedding.numpy()
    labels = rng.integers(0, 3, 60)
    logits = rng.normal(0, 3, (60, 3)).astype(np.float32)
    predictions = Predictions(tuple(map(str, range(60))), labels, logits, embeddings=embeddings)
    gallery = Gallery(
        embeddings=embeddings[:6],
        labels=np.arange(6) % 3,
        image_ids=tuple(f"train/{number}.png" for number in range(6)),
        paths=(None,) * 6,
        thumbnails=tuple(jpeg(number, side_px=16) for number in range(6)),
        thumbnail_px=24,
    )
    return save_bundle(
        folder,
        model,
        config=config,
        class_names=CLASSES,
        preprocessing=preprocessing,
        details={"data": "colours", "val_top1": 0.9, "val_num_images": 60},
        calibration=calibrate(predictions, class_means=class_means(embeddings, labels, num_classes=3)),
        taxonomy=Taxonomy(("species", "genus"), tuple((name, "Colora") for name in CLASSES)),
        gallery=gallery,
    )


def photograph(seed: int, *, side_px: int = SIDE_PX) -> Image.Image:
    """Return noise in large squares, another for each seed, as wide as it is high and half more."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side_px * 3 // 2, side_px), Image.Resampling.NEAREST)


def png(seed: int) -> bytes:
    file = io.BytesIO()
    photograph(seed).save(file, "PNG")
    return file.getvalue()


def jpeg(seed: int, *, side_px: int = SIDE_PX) -> bytes:
    file = io.BytesIO()
    photograph(seed, side_px=side_px).save(file, "JPEG")
    return file.getvalue()


@contextmanager
def serving(bundle: Path, *, port: int = 0, **settings: object) -> Iterator[str]:
    """Yield the address of a server that runs while the block does."""
    known = Settings.model_validate({"bundle": bundle, "name": "colours", **settings})
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        server = uvicorn.Server(make_config(create_app(known), known))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
