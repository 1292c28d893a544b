"""Scenes: a subject in a style, maybe several times, recoloured or on a background; drawn and named.

A `Scene` says what a caption says. All else (mirrored or not, which quiet background) is drawn by chance,
so that one caption has many pictures.

canvas: (size, size, 3) uint8, RGB.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image

from .phrasing import countable, is_plain, phrase
from .pictures import PIXELS, SIDE, STYLES, Pictures
from .recolour import COLOURS, Dominant, dominant, recolour

BACKGROUNDS = {
    "white": (255, 255, 255),
    "grey": (168, 172, 178),
    "black": (22, 22, 26),
    "yellow": (255, 226, 92),
    "orange": (255, 168, 76),
    "red": (232, 72, 72),
    "pink": (255, 170, 205),
    "purple": (168, 124, 226),
    "blue": (104, 164, 248),
    "green": (112, 200, 124),
}
# How often a scene has what makes it special.
STYLE_SHARES = {"3d": 0.70, "flat": 0.10, "line": 0.10, "pixel": 0.10}
COLOUR_SHARE = 0.25  # of the scenes whose subject can be recoloured
BACKGROUND_SHARE = 0.12
TWO_SHARE, THREE_SHARE = 0.06, 0.04  # of the scenes whose subject can be counted
WHITE_SHARE, TINT_SHARE = 0.15, 0.35  # of the backgrounds that nobody asked for; the rest are gradients
# The subject stands in the middle. Each further place would be one more picture of it to learn, and a small
# model learns few (docs/EXPERIMENTS.md, 9); grounds and mirroring are what makes seeds differ.
MARGIN = 1 / 16
_CONTRAST = 100  # distance in RGB between a subject and a named background

# A whole scene, a body part, a landscape or a sign in another colour is nothing a person asks for.
_RECOLOURED = frozenset({"animals", "plants", "food", "vehicles", "activities", "clothing", "objects"})
# Pictures whose sense a mirror changes: letters, digits, hands of a clock, directions.
_UNFLIPPED = re.compile(
    r"\b(?:left|right|clock|watch|stopwatch|calendar|newspaper|book|8|sign|card|keyboard|banknotes?|money|ok"
    r"|hospital|hotel|school|store|bank|ambulance|police|slot|stop|dollar|thermometer|chart|receipt|music"
    r"|earth|map|ticket|taxi|bus|fuel|stadium|price|abacus|radio|television|floppy|x-ray|identification"
    r"|sleeping|sleepy|bronze|ruler|accordion)\b"
)
# Left and top of several copies, each half as wide as the canvas.
_LAYOUTS = {2: [(0.0, 0.25), (0.5, 0.25)], 3: [(0.0, 0.5), (0.5, 0.5), (0.25, 0.0)]}


@dataclass(frozen=True)
class Scene:
    """What a caption says; `subject` is an index into the pictures' subjects."""

    subject: int
    style: str
    count: int = 1  # 1 to 3
    colour: str | None = None  # one of recolour.COLOURS; None: its own
    background: str | None = None  # one of BACKGROUNDS; None: any quiet light one

    def __post_init__(self) -> None:
        if self.style not in STYLES or self.count not in (1, 2, 3):
            raise ValueError(f"style {self.style!r} is one of {STYLES}, count {self.count} is 1, 2 or 3")
        if self.colour is not None and (self.style == "line" or self.colour not in COLOURS):
            raise ValueError(f"colour {self.colour!r} is one of {list(COLOURS)}; a line drawing has none")
        if self.background is not None and self.background not in BACKGROUNDS:
            raise ValueError(f"background {self.background!r} is one of {list(BACKGROUNDS)}")


def sample_scene(
    pictures: Pictures,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
    styles: Sequence[str] | None = None,
) -> Scene:
    """A scene by chance; `weights` (N,) say how often each subject is meant, `styles` which are allowed."""
    probabilities = None if weights is None else np.asarray(weights, float) / np.sum(weights)
    index = int(rng.choice(len(pictures.subjects), p=probabilities))
    allowed = list(styles or STYLES)
    shares = np.array([STYLE_SHARES[style] for style in allowed])
    style = allowed[int(rng.choice(len(allowed), p=shares / shares.sum()))]
    colour = background = None
    if style != "line" and rng.random() < COLOUR_SHARE and recolourable(pictures, index, style):
        colour = str(rng.choice(list(COLOURS)))
    if rng.random() < BACKGROUND_SHARE:
        background = fitting_background(pictures, index, style, colour, rng)
    chance = rng.random()
    count = 1 + (chance < TWO_SHARE + THREE_SHARE) + (chance < THREE_SHARE)
    if not countable(pictures.subjects[index]):
        count = 1
    return Scene(index, style, count, colour, background)


def recolourable(pictures: Pictures, index: int, style: str) -> bool:
    """Whether the subject has one dominant colour that could as well be another."""
    subject = pictures.subjects[index]
    if style == "line" or subject.category not in _RECOLOURED or not is_plain(subject.name):
        return False
    return dominant_colour(pictures, index, style) is not None


def fitting_background(
    pictures: Pictures, index: int, style: str, colour: str | None, rng: np.random.Generator
) -> str | None:
    """A named background by chance on which the subject shows; None if there is no such."""
    picture = _small(pictures, index, style)
    source = dominant_colour(pictures, index, style)
    if colour is not None and source is not None:
        picture = recolour(picture, source, colour)
    opaque = picture[picture[..., 3] > 128]
    mean = opaque[:, :3].mean(axis=0) if len(opaque) else np.zeros(3)
    fitting = [name for name, rgb in BACKGROUNDS.items() if np.linalg.norm(mean - rgb) > _CONTRAST]
    return str(rng.choice(fitting)) if fitting else None


def caption(pictures: Pictures, scene: Scene, rng: np.random.Generator) -> str:
    """One of the natural ways to ask for the scene."""
    subject = pictures.subjects[scene.subject]
    return phrase(
        subject,
        rng,
        style=scene.style,
        count=scene.count,
        colour=scene.colour,
        background=scene.background,
    )


def in_any_style(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene under a style by chance, as often as each is drawn: to name pictures that keep theirs."""
    style = str(rng.choice(list(STYLE_SHARES), p=list(STYLE_SHARES.values())))
    return replace(scene, style=style, colour=None if style == "line" else scene.colour)


def draw(pictures: Pictures, scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """The scene on a square canvas, (size, size, 3) uint8; another one for each state of `rng`."""
    canvas = _background(scene, size, rng)
    picture = pictures.rgba(scene.subject, scene.style)
    if rng.random() < 0.5 and _may_flip(pictures.subjects[scene.subject].name):
        picture = picture[:, ::-1]
    for side, left, top in _places(scene, size):
        copy = _resized(picture, side, scene.style)
        if scene.colour is not None:
            source = dominant_colour(pictures, scene.subject, scene.style)
            copy = copy if source is None else recolour(copy, source, scene.colour)
        _paste(canvas, copy, left, top)
    return canvas


@cache
def dominant_colour(pictures: Pictures, index: int, style: str) -> Dominant | None:
    """The dominant colour of a subject's picture, remembered."""
    return dominant(_small(pictures, index, style))


def _small(pictures: Pictures, index: int, style: str) -> np.ndarray:
    return _resized(pictures.rgba(index, style), 64, style)


def _resized(picture: np.ndarray, side: int, style: str) -> np.ndarray:
    """An RGBA picture at another size: filtered by area, or square by square for pixel art."""
    if style == "pixel":
        step = SIDE // PIXELS
        cell = max(side // PIXELS, 1)
        return picture[step // 2 :: step, step // 2 :: step].repeat(cell, axis=0).repeat(cell, axis=1)
    # Premultiplied, so that the colour of transparent pixels does not bleed in.
    image = Image.fromarray(picture).convert("RGBa").resize((side, side), Image.Resampling.BILINEAR)
    return np.array(image.convert("RGBA"))


def _places(scene: Scene, size: int) -> list[tuple[int, int, int]]:
    """Side, left and top of each copy, in pixels, inside the canvas."""
    if scene.count == 1:
        side = _side(scene.style, (1 - 2 * MARGIN) * size)
        return [(side, (size - side) // 2, (size - side) // 2)]
    side = _side(scene.style, size / 2)
    return [(side, round(left * size), round(top * size)) for left, top in _LAYOUTS[scene.count]]


def _side(style: str, side: float) -> int:
    """Pixel art keeps its squares whole: the side is a multiple of theirs."""
    return max(int(side / PIXELS + 0.25), 1) * PIXELS if style == "pixel" else round(side)


def _paste(canvas: np.ndarray, picture: np.ndarray, left: int, top: int) -> None:
    part = canvas[top : top + picture.shape[0], left : left + picture.shape[1]]
    alpha = picture[..., 3:].astype(np.uint16)
    part[:] = (picture[..., :3] * alpha + part * (255 - alpha) + 127) // 255


def _may_flip(name: str) -> bool:
    return _UNFLIPPED.search(name) is None


def _background(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    if scene.background is not None:
        jitter = 0 if scene.background == "white" else rng.integers(-8, 9, 3)
        colour = np.clip(np.array(BACKGROUNDS[scene.background]) + jitter, 0, 255)
        return np.broadcast_to(colour, (size, size, 3)).astype(np.uint8)
    chance = rng.random()
    if chance < WHITE_SHARE and scene.colour != "white":
        return np.full((size, size, 3), 255, np.uint8)
    first = _pale(rng)
    if chance < WHITE_SHARE + TINT_SHARE:
        return np.broadcast_to(first, (size, size, 3)).astype(np.uint8)
    return _gradient(first, _pale(rng), size, rng)


def _pale(rng: np.random.Generator) -> np.ndarray:
    """A light colour, (3,) float."""
    return 255 - rng.uniform(20, 140) * rng.dirichlet([1.0, 1.0, 1.0])


def _gradient(first: np.ndarray, second: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    steps = np.linspace(0, 1, size, dtype=np.float32)
    if rng.random() < 0.5:
        mix = np.broadcast_to(steps[:, None], (size, size))
    else:
        squares = (steps - 0.5) ** 2
        mix = np.sqrt(squares[:, None] + squares[None]) / 0.71
    return (first + mix[..., None] * (second - first)).astype(np.uint8)
