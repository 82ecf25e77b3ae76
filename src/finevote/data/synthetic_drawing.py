"""Draws one synthetic bird: a scene is everything that tells nothing of the species, and it is drawn first.

Species of one genus drawn in the same scene differ inside the boxes of their parts and nowhere else.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from finevote.data.synthetic_shapes import PART_RADIUS, PATTERNS, SUBJECT_RADIUS, Genus, Layer, Points, disc
from finevote.types import Box

Colour = tuple[int, int, int]

SUPERSAMPLING = 3  # pixels drawn for a pixel kept, along each side
MAX_TURN = math.radians(25)
SCALES = (0.8, 1.1)
CLEARANCE = 0.03  # image widths between a distractor and the body
INK: Colour = (34, 30, 44)
PAPER: Colour = (247, 240, 224)
_LEAF = np.array([(-1, 0), (-0.5, -0.28), (0, -0.36), (0.5, -0.26), (1, 0), (0.5, 0.26), (0, 0.36), (-0.5, 0.28)])


class Pose(NamedTuple):
    """Maps a point p of a layout to image fractions: p @ matrix + offset."""

    matrix: Points  # (2, 2)
    offset: Points  # (2,)
    scale: float

    def apply(self, points: Points) -> Points:
        """Return the points (n, 2) in image fractions."""
        return points @ self.matrix + self.offset

    def at(self, centre: tuple[float, float], *, scale: float) -> Pose:
        """Return the pose of a smaller layout that is centred on a point of this one."""
        return Pose(self.matrix * scale, self.apply(np.array(centre)), self.scale * scale)


class Distractor(NamedTuple):
    """A pattern of some species' part that lies off the body, in faded colours."""

    pattern: str
    pose: Pose
    colours: Mapping[str, Colour]


class Scene(NamedTuple):
    """All that varies from image to image and is independent of the species."""

    pose: Pose
    colours: Mapping[str, Colour]  # of the bird's layers
    ground: tuple[Colour, Colour]
    leaves: tuple[tuple[Pose, Colour], ...]
    distractors: tuple[Distractor, ...]
    brightness: float
    gradient: tuple[float, float]  # relative change of light across the image, along x and y
    noise: float  # largest change of a value, of 255
    texture_seed: int


def compose(genus: Genus, generator: np.random.Generator) -> Scene:
    """Draw a scene by lot. Only uniform numbers are used: their stream is the same on every machine."""
    pose = draw_pose(generator)
    ground_hue = generator.random()
    first, second = (
        _colour(generator, hue=ground_hue + shift, saturation=(0.10, 0.55), value=(0.35, 0.95)) for shift in (0.0, 0.1)
    )
    return Scene(
        pose=pose,
        colours=_plumage(generator),
        ground=(first, second),
        leaves=tuple(_leaf(generator, second) for _ in range(4)),
        distractors=tuple(_distractors(generator, genus, pose, first)),
        brightness=_between(generator, 0.78, 1.12),
        gradient=(_between(generator, -0.2, 0.2), _between(generator, -0.2, 0.2)),
        noise=_between(generator, 2.0, 9.0),
        texture_seed=int(generator.random() * 2**31),
    )


def draw_pose(generator: np.random.Generator) -> Pose:
    """Turn, mirror, scale and place the subject by lot, all of it within the image: the first draw of a scene."""
    scale = _between(generator, *SCALES)
    freedom = max(0.5 - SUBJECT_RADIUS * scale, 0.0)
    offset = 0.5 + freedom * np.array([_between(generator, -1, 1), _between(generator, -1, 1)])
    mirror = -1.0 if generator.random() < 0.5 else 1.0
    return Pose(_rotation(_between(generator, -MAX_TURN, MAX_TURN), mirror=mirror) * scale, offset, scale)


def part_box(genus: Genus, part: str, pose: Pose) -> Box:
    """Return the box of a part's disc; a disc keeps its box under rotation, so only scale and place count."""
    x, y = pose.apply(np.array(genus.parts[part])).tolist()
    radius = PART_RADIUS * pose.scale
    return Box(part, x - radius, y - radius, x + radius, y + radius)


def draw(genus: Genus, patterns: Mapping[str, str], scene: Scene, *, image_size: int) -> Image.Image:
    """Draw a bird whose `patterns` (part -> pattern) make it a species; RGB, image_size x image_size px."""
    side = image_size * SUPERSAMPLING
    generator = np.random.default_rng(scene.texture_seed)
    canvas = _ground(generator, scene.ground, image_size).resize((side, side), Image.Resampling.NEAREST)
    brush = ImageDraw.Draw(canvas)
    for pose, colour in scene.leaves:
        _fill(brush, [Layer("leaf", _LEAF)], pose, {"leaf": colour}, side)
    for distractor in scene.distractors:
        _fill(brush, PATTERNS[distractor.pattern], distractor.pose, distractor.colours, side)
    _bird(brush, genus, patterns, scene, side)
    return _light(canvas.reduce(SUPERSAMPLING), scene, generator)


def _bird(brush: ImageDraw.ImageDraw, genus: Genus, patterns: Mapping[str, str], scene: Scene, side: int) -> None:
    """Paint rim, crest, body, marks, in this order: a crest grows from behind the head."""
    crests = {part: pattern for part, pattern in patterns.items() if part == "crest"}
    marks = {part: pattern for part, pattern in patterns.items() if part != "crest"}
    _fill(brush, genus.rim, scene.pose, scene.colours, side)
    for part, pattern in crests.items():
        _fill(brush, PATTERNS[pattern], scene.pose.at(genus.parts[part], scale=PART_RADIUS), scene.colours, side)
    _fill(brush, genus.body, scene.pose, scene.colours, side)
    for part, pattern in marks.items():
        _fill(brush, PATTERNS[pattern], scene.pose.at(genus.parts[part], scale=PART_RADIUS), scene.colours, side)


def _fill(
    brush: ImageDraw.ImageDraw, layers: Iterable[Layer], pose: Pose, colours: Mapping[str, Colour], side: int
) -> None:
    for layer in layers:
        pixels = np.round(pose.apply(layer.points) * side, 2)  # rounding hides the last digits of cos and sin
        brush.polygon(pixels.ravel().tolist(), fill=colours[layer.colour])


def _ground(generator: np.random.Generator, colours: tuple[Colour, Colour], image_size: int) -> Image.Image:
    """Return soft blotches between two colours."""
    blend = generator.random((9, 9, 1))
    mixed = np.array(colours[0]) * blend + np.array(colours[1]) * (1 - blend)
    return Image.fromarray(mixed.astype(np.uint8)).resize((image_size, image_size), Image.Resampling.BICUBIC)


def _light(image: Image.Image, scene: Scene, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)  # (h, w, 3)
    ramp = np.linspace(-1, 1, pixels.shape[0], dtype=np.float32)
    light = scene.brightness * (1 + scene.gradient[0] * ramp[None, :] + scene.gradient[1] * ramp[:, None])
    noise = (generator.random(pixels.shape, dtype=np.float32) * 2 - 1) * scene.noise
    return Image.fromarray((pixels * light[:, :, None] + noise).clip(0, 255).astype(np.uint8))


def _rotation(angle: float, *, mirror: float = 1.0) -> Points:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[mirror * cos, mirror * sin], [-sin, cos]])


def _plumage(generator: np.random.Generator) -> dict[str, Colour]:
    hue = generator.random()
    body = _colour(generator, hue=hue, saturation=(0.35, 0.80), value=(0.42, 0.85))
    wing = _colour(generator, hue=hue + _between(generator, -0.18, 0.18), saturation=(0.35, 0.80), value=(0.30, 0.75))
    limb = _colour(generator, hue=generator.random(), saturation=(0.5, 0.85), value=(0.5, 0.9))
    return {
        "body": body,
        "wing": wing,
        "tail": wing,
        "limb": limb,
        "belly": _mixed(body, PAPER, 0.45),
        "feather": _mixed(wing, PAPER, 0.35),
        "ink": INK,
        "paper": PAPER,
    }


def _leaf(generator: np.random.Generator, ground: Colour) -> tuple[Pose, Colour]:
    length = _between(generator, 0.08, 0.2)
    turn = _rotation(_between(generator, 0, 2 * math.pi))
    place = np.array([generator.random(), generator.random()])
    shade = _colour(generator, hue=generator.random(), saturation=(0.1, 0.5), value=(0.3, 0.95))
    return Pose(turn * length, place, length), _mixed(ground, shade, 0.35)


def _distractors(generator: np.random.Generator, genus: Genus, pose: Pose, ground: Colour) -> Iterable[Distractor]:
    """Yield up to three patterns that touch neither the body nor each other; some places tried are taken."""
    num_wanted = 1 + int(generator.random() * 3)
    taken = pose.apply(genus.traces)
    for _ in range(20):
        place = np.array([generator.random(), generator.random()])
        radius = _between(generator, 0.05, 0.085)
        if num_wanted == 0 or np.hypot(*(taken - place).T).min() < radius + CLEARANCE:
            continue
        num_wanted -= 1
        fade = _between(generator, 0.25, 0.6)
        colours = {"ink": _mixed(INK, ground, fade), "paper": _mixed(PAPER, ground, fade)}
        turned = Pose(_rotation(_between(generator, 0, 2 * math.pi)) * radius, place, radius)
        taken = np.concatenate([taken, turned.apply(disc(0, 0, 1))])
        yield Distractor(list(PATTERNS)[int(generator.random() * len(PATTERNS))], turned, colours)


def _between(generator: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(generator.random())


def _colour(
    generator: np.random.Generator, *, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    rgb = colorsys.hsv_to_rgb(hue % 1.0, _between(generator, *saturation), _between(generator, *value))
    return _rounded(255 * channel for channel in rgb)


def _mixed(first: Sequence[int], second: Sequence[int], share: float) -> Colour:
    """Return the first colour with a share of the second in it."""
    return _rounded(a + (b - a) * share for a, b in zip(first, second, strict=True))


def _rounded(channels: Iterable[float]) -> Colour:
    red, green, blue = (round(channel) for channel in channels)
    return red, green, blue
