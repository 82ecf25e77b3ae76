"""The outlines of the synthetic birds and the patterns of their telling parts, as smooth polygons.

A bird is laid out in image widths around its centre, x to the right, y down, and stays within `SUBJECT_RADIUS`, its
rim included. A part is a disc of `PART_RADIUS`; its patterns are laid out on the unit disc and never leave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2) x, y

SUBJECT_RADIUS = 0.45  # image widths; at the largest scale the bird just fits
PART_RADIUS = 0.086  # image widths; at the largest scale the box covers 3.6% of the image
RIM = 0.011  # image widths; the pale rim around the whole bird


class Layer(NamedTuple):
    """A filled polygon and the name of the colour it takes."""

    colour: str
    points: Points


class Genus(NamedTuple):
    """One body plan: layers from back to front, the rim behind them, the parts' centres."""

    name: str
    rim: tuple[Layer, ...]
    body: tuple[Layer, ...]
    parts: Mapping[str, tuple[float, float]]
    traces: Points  # (n, 2) points on all outlines and on the rims of the parts


def smooth(points: Sequence[tuple[float, float]], *, steps: int = 6) -> Points:
    """Return the closed Catmull-Rom curve through the points, `steps` points to a piece."""
    p1 = np.array(points)  # (n, 2)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(steps) / steps)[:, None, None]
    cubic = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    curve: Points = (cubic / 2).transpose(1, 0, 2).reshape(-1, 2)
    return curve


def disc(x: float, y: float, radius: float, *, num_points: int = 20) -> Points:
    """Return a circle as a polygon."""
    angles = np.arange(num_points) * (2 * np.pi / num_points)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def band(start: tuple[float, float], end: tuple[float, float], *, width: float, end_width: float) -> Points:
    """Return a straight stroke that tapers from `width` to `end_width`."""
    a, b = np.array(start), np.array(end)
    along = (b - a) / np.hypot(*(b - a))
    across = np.array([-along[1], along[0]]) / 2
    return np.array([a + across * width, b + across * end_width, b - across * end_width, a - across * width])


def grown(points: Points, by: float) -> Points:
    """Return the polygon with every point moved outwards by `by`, corners cut at twice that."""
    edges = np.roll(points, -1, 0) - points
    x, y = points.T
    turn = np.sign(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))  # +1: outward is to the right of an edge
    normals = turn * np.stack([edges[:, 1], -edges[:, 0]], 1) / np.maximum(np.hypot(*edges.T), 1e-9)[:, None]
    mean = normals + np.roll(normals, 1, 0)
    length = np.maximum(np.hypot(*mean.T), 1.0)[:, None]
    moved: Points = points + by * 2 * mean / length**2
    return moved


def _genus(
    name: str,
    *,
    body: Sequence[tuple[str, Points]],
    parts: Mapping[str, tuple[float, float]],
) -> Genus:
    layers = tuple(Layer(colour, points) for colour, points in body)
    rim = tuple(Layer("paper", grown(layer.points, RIM)) for layer in layers if layer.colour not in _INNER)
    discs = (disc(x, y, PART_RADIUS) for x, y in parts.values())
    return Genus(name, rim, layers, parts, np.concatenate([*(layer.points for layer in (*rim, *layers)), *discs]))


_INNER = ("belly", "feather", "paper", "ink", "wing")  # drawn within the outline: they need no rim of their own


def _eye(x: float, y: float, radius: float) -> list[tuple[str, Points]]:
    glint = disc(x + radius * 0.3, y - radius * 0.35, radius * 0.3, num_points=8)
    return [("paper", disc(x, y, radius * 1.45)), ("ink", disc(x, y, radius)), ("paper", glint)]


def _songbird() -> Genus:
    trunk = [(0.16, -0.29), (0.26, -0.24), (0.29, -0.15), (0.28, -0.04), (0.30, 0.08), (0.22, 0.22), (0.06, 0.28)]
    trunk += [(-0.10, 0.24), (-0.22, 0.14), (-0.26, 0.04), (-0.16, -0.04), (-0.03, -0.12), (0.05, -0.22)]
    belly = [(0.27, -0.02), (0.28, 0.09), (0.20, 0.20), (0.06, 0.25), (-0.06, 0.22), (0.06, 0.16), (0.14, 0.02)]
    wing = [(0.07, -0.07), (0.11, 0.03), (0.06, 0.13), (-0.08, 0.17), (-0.29, 0.14), (-0.16, 0.02), (-0.04, -0.08)]
    tail = [(-0.18, 0.00), (-0.30, -0.05), (-0.41, -0.12), (-0.41, -0.01), (-0.30, 0.10), (-0.18, 0.16)]
    return _genus(
        "Corvella",
        body=[
            ("limb", band((0.03, 0.25), (0.04, 0.39), width=0.022, end_width=0.018)),
            ("limb", band((0.12, 0.24), (0.13, 0.38), width=0.022, end_width=0.018)),
            ("limb", band((0.00, 0.39), (0.10, 0.39), width=0.018, end_width=0.014)),
            ("limb", band((0.09, 0.38), (0.19, 0.38), width=0.018, end_width=0.014)),
            ("tail", smooth(tail)),
            ("limb", np.array([(0.26, -0.23), (0.39, -0.16), (0.27, -0.13)])),
            ("body", smooth(trunk)),
            ("belly", smooth(belly)),
            ("wing", smooth(wing)),
            ("feather", band((-0.02, 0.13), (-0.22, 0.12), width=0.012, end_width=0.004)),
            *_eye(0.20, -0.20, 0.024),
        ],
        parts={"crest": (0.12, -0.315), "breast": (0.195, 0.075), "wing": (0.00, 0.045)},
    )


def _wader() -> Genus:
    trunk = [(0.10, -0.33), (0.18, -0.31), (0.20, -0.25), (0.14, -0.19), (0.10, -0.12), (0.13, -0.02), (0.12, 0.08)]
    trunk += [(0.02, 0.16), (-0.14, 0.17), (-0.28, 0.15), (-0.40, 0.155), (-0.32, 0.06), (-0.20, -0.04), (-0.07, -0.07)]
    trunk += [(0.01, -0.11), (0.04, -0.20), (0.05, -0.29)]
    belly = [(0.09, -0.09), (0.12, 0.00), (0.10, 0.08), (0.01, 0.14), (-0.10, 0.15), (0.02, 0.09), (0.06, 0.00)]
    wing = [(0.03, -0.03), (0.05, 0.05), (-0.04, 0.12), (-0.20, 0.14), (-0.37, 0.155), (-0.24, 0.03), (-0.10, -0.05)]
    return _genus(
        "Ibidella",
        body=[
            ("limb", band((-0.10, 0.14), (-0.13, 0.28), width=0.022, end_width=0.016)),
            ("limb", band((-0.13, 0.28), (-0.09, 0.40), width=0.018, end_width=0.016)),
            ("limb", band((-0.02, 0.14), (0.00, 0.40), width=0.022, end_width=0.016)),
            ("limb", band((-0.11, 0.40), (-0.03, 0.40), width=0.016, end_width=0.012)),
            ("limb", band((-0.02, 0.40), (0.08, 0.40), width=0.016, end_width=0.012)),
            ("limb", smooth([(0.16, -0.31), (0.28, -0.27), (0.38, -0.17), (0.27, -0.23), (0.16, -0.24)])),
            ("body", smooth(trunk)),
            ("belly", smooth(belly)),
            ("wing", smooth(wing)),
            ("feather", band((-0.14, 0.115), (-0.32, 0.135), width=0.012, end_width=0.004)),
            *_eye(0.135, -0.27, 0.020),
        ],
        parts={"crest": (0.035, -0.33), "wing": (-0.085, 0.035)},
    )


def _duck() -> Genus:
    trunk = [(0.17, -0.26), (0.27, -0.23), (0.30, -0.13), (0.25, -0.05), (0.27, 0.06), (0.24, 0.18), (0.10, 0.26)]
    trunk += [(-0.10, 0.27), (-0.28, 0.20), (-0.41, 0.00), (-0.28, 0.03), (-0.10, 0.02), (0.05, 0.02), (0.12, -0.05)]
    trunk += [(0.09, -0.15)]
    belly = [(0.24, 0.00), (0.26, 0.07), (0.22, 0.17), (0.08, 0.24), (-0.10, 0.25), (0.04, 0.19), (0.10, 0.06)]
    bill = [(0.27, -0.17), (0.34, -0.14), (0.415, -0.12), (0.405, -0.07), (0.33, -0.07), (0.27, -0.08)]
    wing = [(0.04, 0.05), (0.06, 0.13), (-0.02, 0.20), (-0.16, 0.20), (-0.34, 0.07), (-0.20, 0.05), (-0.06, 0.03)]
    return _genus(
        "Anatella",
        body=[
            ("limb", smooth(bill)),
            ("tail", smooth([(-0.26, 0.06), (-0.36, -0.03), (-0.42, -0.08), (-0.42, 0.02), (-0.36, 0.13)])),
            ("body", smooth(trunk)),
            ("belly", smooth(belly)),
            ("wing", smooth(wing)),
            ("feather", band((-0.14, 0.175), (-0.29, 0.095), width=0.012, end_width=0.004)),
            *_eye(0.215, -0.15, 0.023),
        ],
        parts={"crest": (0.11, -0.275), "breast": (0.165, 0.105), "wing": (-0.045, 0.115)},
    )


def _owl() -> Genus:
    trunk = [(0.00, -0.25), (0.10, -0.24), (0.19, -0.30), (0.21, -0.18), (0.20, -0.06), (0.24, 0.08), (0.20, 0.24)]
    trunk += [(0.08, 0.34), (0.00, 0.35)]
    right = [(0.20, -0.03), (0.27, 0.09), (0.26, 0.22), (0.18, 0.33), (0.15, 0.18), (0.16, 0.05)]
    belly = [(0.00, -0.03), (0.11, 0.01), (0.14, 0.12), (0.11, 0.25), (0.00, 0.32)]
    face = [(0.00, -0.17), (0.07, -0.215), (0.16, -0.19), (0.175, -0.10), (0.10, -0.03), (0.00, -0.05)]
    return _genus(
        "Strigella",
        body=[
            ("tail", smooth([(-0.07, 0.28), (-0.09, 0.38), (0.00, 0.42), (0.09, 0.38), (0.07, 0.28)])),
            ("body", smooth([*trunk, *_mirrored(trunk)])),
            ("belly", smooth([*belly, *_mirrored(belly)])),
            ("tail", smooth(right)),
            ("tail", smooth([(-x, y) for x, y in right])),
            ("feather", smooth([*face, *_mirrored(face)])),
            *_eye(0.09, -0.12, 0.036),
            *_eye(-0.09, -0.12, 0.036),
            ("limb", np.array([(-0.03, -0.10), (0.03, -0.10), (0.0, -0.02)])),
        ],
        parts={"crest": (0.0, -0.315), "breast": (0.0, 0.125)},
    )


def _mirrored(half: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the other half of a symmetric outline whose first and last points lie on the axis."""
    return [(-x, y) for x, y in half[-2:0:-1]]


GENERA: Mapping[str, Genus] = {genus.name: genus for genus in (_songbird(), _wader(), _duck(), _owl())}


def _crest(*plumes: Points) -> tuple[Layer, ...]:
    """Return plumes with a rim of their own: they stand off the body."""
    rims = (Layer("paper", grown(plume, RIM / PART_RADIUS)) for plume in plumes)
    return (*rims, *(Layer("ink", plume) for plume in plumes))


def _mark(*ink: Points) -> tuple[Layer, ...]:
    """Return a pale disc with a pattern in ink: it stands out on any plumage."""
    return (Layer("paper", disc(0, 0, 0.99, num_points=32)), *(Layer("ink", points) for points in ink))


def _square(left: float, top: float, side: float) -> Points:
    return np.array([(left, top), (left + side, top), (left + side, top + side), (left, top + side)])


def _plume(side: int) -> Points:
    outline = [(0.02, 0.75), (0.22, -0.05), (0.50, -0.62), (0.76, -0.28), (0.50, 0.15)]
    return smooth([(side * x, y) for x, y in outline])


def _chevron(top: float) -> Points:
    tip, foot = top + 0.42, top + 0.34
    return np.array([(-0.62, top), (0, tip), (0.62, top), (0.62, foot), (0, tip + 0.34), (-0.62, foot)])


def _bar(y: float, *, half_length: float, width: float) -> Points:
    return band((-half_length, y), (half_length, y), width=width, end_width=width)


_SPIKES = np.array([(-0.45, 0.5), (-0.74, -0.3), (-0.1, 0.1), (0, -0.84), (0.1, 0.1), (0.74, -0.3), (0.45, 0.5)])

PATTERNS: Mapping[str, tuple[Layer, ...]] = {
    "round": _crest(disc(0, -0.05, 0.70, num_points=28)),
    "spiky": _crest(_SPIKES),
    "forked": _crest(_plume(-1), _plume(1)),
    "single-barred": _mark(_bar(0, half_length=0.80, width=0.46)),
    "double-barred": _mark(*(_bar(y, half_length=0.74, width=0.34) for y in (-0.36, 0.36))),
    "checked": _mark(_square(-0.62, -0.62, 0.62), _square(0, 0, 0.62)),
    "spotted": _mark(*(disc(x, y, 0.25, num_points=14) for x, y in ((0, -0.5), (-0.46, 0.3), (0.46, 0.3)))),
    "ringed": (*_mark(disc(0, 0, 0.76, num_points=28)), Layer("paper", disc(0, 0, 0.38))),
    "chevroned": _mark(_chevron(-0.74), _chevron(-0.04)),
}
