"""A tiny backbone with weights in a file, as if it had been trained elsewhere."""

from pathlib import Path

from safetensors.torch import save_file

from finevote.backbones.catalogue import create_vit
from tests.models import NARROW


def write_weights(path: Path, *, image_size: int = 32) -> Path:
    vit = create_vit("vit_tiny_patch16_224", image_size=(image_size, image_size), timm_args=NARROW)
    save_file(vit.state_dict(), path)
    return path
