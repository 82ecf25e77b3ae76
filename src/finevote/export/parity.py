"""Does an exported program answer as the bundle does? Logits side by side, and what smaller numbers cost."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finevote.errors import ExportError
from finevote.evaluation.metrics import Labels, Logits
from finevote.export.choices import Precision

TOLERANCE = 1e-4  # of logits, in float32


@dataclass(frozen=True)
class Parity:
    """How far an exported program's logits lie from the bundle's, over `num_images` photographs.

    `largest_difference` is of single logits, `agreement` the share of images of which both name the same class,
    `top_1` and `top_1_exported` the shares that each names right.
    """

    num_images: int
    largest_difference: float
    agreement: float
    top_1: float
    top_1_exported: float

    @property
    def drop(self) -> float:
        """How much accuracy the exported program loses, as a share of the images."""
        return self.top_1 - self.top_1_exported

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        return asdict(self)


def compare_logits(logits: Logits, exported: Logits, labels: Labels) -> Parity:
    """Return how logits (n, C) and those of an exported program differ, with the labels (n,)."""
    ours, theirs = logits.argmax(axis=1), exported.argmax(axis=1)
    return Parity(
        num_images=len(labels),
        largest_difference=float(np.abs(logits - exported).max()),
        agreement=float((ours == theirs).mean()),
        top_1=float((ours == labels).mean()),
        top_1_exported=float((theirs == labels).mean()),
    )


def check_parity(parity: Parity, *, precision: Precision, max_drop: float, min_agreement: float) -> None:
    """Raise ExportError unless an exported program may stand in for the bundle.

    In float32 every logit must lie within `TOLERANCE` and every class be the same; with smaller numbers the accuracy
    may fall by `max_drop` at most, and `min_agreement` of the images must keep their class, both shares of the images.
    """
    if precision is Precision.FP32:
        if parity.largest_difference > TOLERANCE or parity.agreement < 1:
            raise ExportError(
                f"the exported program does not answer as the bundle: its logits differ by up to "
                f"{parity.largest_difference:.2g} (allowed: {TOLERANCE:g}), and of {parity.num_images:,} images "
                f"{1 - parity.agreement:.1%} get another class; nothing was written"
            )
    elif not parity.drop <= max_drop:  # a limit that is no number limits nothing, and is not met
        raise ExportError(
            f"{precision} names {parity.top_1_exported:.2%} of {parity.num_images:,} validation images right, the "
            f"bundle {parity.top_1:.2%}: a drop of {parity.drop * 100:.2f} points, allowed are {max_drop * 100:.2f}; "
            "nothing was written: export another --precision, or allow more by --max-drop"
        )
    elif not parity.agreement >= min_agreement:
        raise ExportError(
            f"{precision} gives {parity.agreement:.2%} of {parity.num_images:,} validation images the class that the "
            f"bundle gives them, and {min_agreement:.2%} are asked for; nothing was written: export another "
            "--precision, or ask for less by --min-agreement"
        )
