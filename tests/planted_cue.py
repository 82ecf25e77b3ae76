"""Images whose class is told by one small coloured square and by nothing else, and a model that has learnt it."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from finevote.model import FineGrainedClassifier
from tests.models import tiny_model

PATCH_PX, SIDE = 8, 6  # patches of a side
COLORS = ((1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0), (1.0, 1.0, -1.0))
STRENGTH = 2.0


def draw_images(num_images: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return noise with a square of the class's colour on one patch: images (n, 3, h, w), labels (n,), patches (n,)."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(COLORS), num_images)
    places = generator.integers(0, SIDE**2, num_images)
    images = generator.normal(0, 0.5, (num_images, 3, SIDE * PATCH_PX, SIDE * PATCH_PX)).astype(np.float32)
    for image, label, place in zip(images, labels, places, strict=True):
        top, left = (PATCH_PX * number for number in divmod(place, SIDE))
        image[:, top : top + PATCH_PX, left : left + PATCH_PX] += STRENGTH * np.array(COLORS[label])[:, None, None]
    return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(places)


def train_model(*, num_steps: int, batch_size: int = 32) -> FineGrainedClassifier:
    """Return a voting classifier fitted to such images, fresh ones in every step."""
    model = tiny_model(
        num_classes=len(COLORS),
        data__image_size=SIDE * PATCH_PX,
        data__resize=SIDE * PATCH_PX,
        model__voting__num_votes_per_head=3,
        model__voting__num_selected=12,
        model__voting__num_key_tokens=4,
        model__voting__smoothing="none",
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(num_steps):
        images, labels, _ = draw_images(batch_size, seed=1_000 + step)
        output = model(images)
        loss = F.cross_entropy(output.logits, labels) + F.cross_entropy(output.complement, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
