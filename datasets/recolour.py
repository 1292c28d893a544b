"""Gives a picture's dominant colour another hue and keeps its shading.

Only the saturated pixels near the dominant hue change: the leaf of a red apple stays green. What
has no dominant hue (a zebra, a world map) is told apart by `dominant`, which returns None.

image: (H, W, 4) uint8, RGBA with straight alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Hue in degrees, saturation and value of each colour as people name it.
COLOURS = {
    "red": (356, 0.80, 0.92),
    "orange": (24, 0.85, 0.98),
    "yellow": (49, 0.80, 0.99),
    "green": (128, 0.72, 0.76),
    "blue": (216, 0.76, 0.94),
    "purple": (274, 0.66, 0.80),
    "pink": (332, 0.52, 0.99),
    "black": (0, 0.0, 0.17),
    "white": (0, 0.0, 0.97),
}
_BINS = 36
_NEAR = 42  # degrees: what shading does to the hue of one surface
_SHARE = 0.5  # of the opaque pixels that must lie near the dominant hue
_SATURATED = 70  # of 255; paler pixels keep their colour
_DARK = 46  # of 255; darker pixels have no hue worth the name
_DULL = 0.4  # a darker surface turns to noise when it is lifted to a light colour
_WHITE_SHADE = 0.6  # how much of the shading a white surface shows


@dataclass(frozen=True)
class Dominant:
    """The hue (degrees) of most of a picture, and the median saturation and value there (0 to 1)."""

    hue: float
    saturation: float
    value: float


def dominant(image: np.ndarray) -> Dominant | None:
    """The colour that most of a picture has; None where it has no single one."""
    hue, saturation, value = _hsv(image)
    opaque = image[..., 3] > 128
    saturated = opaque & (saturation > _SATURATED) & (value > _DARK)
    if saturated.sum() < _SHARE * max(opaque.sum(), 1):
        return None
    counts, _ = np.histogram(hue[saturated], bins=_BINS, range=(0, 360))
    smooth = counts + np.roll(counts, 1) + np.roll(counts, -1)
    peak = (int(smooth.argmax()) + 0.5) * 360 / _BINS
    near = saturated & (np.abs(_turn(hue - peak)) < _NEAR)
    if near.sum() < _SHARE * opaque.sum():
        return None
    centre = (peak + float(np.median(_turn(hue[near] - peak)))) % 360
    median_value = float(np.median(value[near])) / 255
    if median_value < _DULL:
        return None
    return Dominant(centre, float(np.median(saturation[near])) / 255, median_value)


def recolour(image: np.ndarray, source: Dominant, colour: str) -> np.ndarray:
    """`image` with what has the colour `source` in the named `colour` (one of COLOURS)."""
    target_hue, target_saturation, target_value = COLOURS[colour]
    hue, saturation, value = _hsv(image)
    offset = _turn(hue - source.hue)
    # Soft at both borders, so that no fringe shows where the surface ends.
    weight = np.clip((_NEAR + 12 - np.abs(offset)) / 12, 0, 1) * np.clip((saturation - 40) / 40, 0, 1)
    shade = value / 255 / source.value
    if colour == "white":
        shade = 1 - _WHITE_SHADE * (1 - np.minimum(shade, 1))
    new = np.stack(
        [
            (target_hue + 0.35 * offset) % 360 * (255 / 360),
            np.clip(saturation * (target_saturation / source.saturation), 0, 255),
            np.clip(shade * target_value * 255, 0, 255),
        ],
        axis=-1,
    )
    changed = np.array(Image.fromarray(new.astype(np.uint8), "HSV").convert("RGB"))
    out = image.copy()
    out[..., :3] = (
        image[..., :3] + weight[..., None] * (changed.astype(np.float32) - image[..., :3])
    ).round()
    return out


def _hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in degrees; saturation and value from 0 to 255; all float32."""
    hsv = np.array(Image.fromarray(image[..., :3]).convert("HSV")).astype(np.float32)
    return hsv[..., 0] * (360 / 255), hsv[..., 1], hsv[..., 2]


def _turn(degrees: np.ndarray) -> np.ndarray:
    """The same angle between -180 and 180."""
    return (degrees + 180) % 360 - 180
