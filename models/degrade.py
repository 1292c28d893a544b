"""Faults and tricks: what makes a picture worse, for training the scorers and for testing them.

A picture is uint8 (H, W, 3). `level` runs from 0 (hardly visible) to 1 (ruined). FAULTS_A and FAULTS_B
hold one fault each of the same six families (blur, noise, compression, few colours, framing, uneven
surfaces), so that a scorer that learned one half can be tested on the other. TRICKS are cheap ways to
please a careless scorer. Promises: same picture, level and random numbers, same result. Does not know
how a diffusion model fails beyond the uneven surfaces that too few steps leave: for that, renders are
needed.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Fault = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def _blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur((0.5 + 4.5 * level) * image.width / 128))


def _noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    noise = rng.normal(scale=6 + 64 * level, size=(image.height, image.width, 3))
    return _clipped(np.asarray(image) + noise)


def _jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return _compressed(image, "JPEG", round(40 - 38 * level))


def _posterise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(image, max(1, round(3.4 - 2.4 * level)))


def _crop(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    side = round(image.width * (0.75 - 0.5 * level))
    x, y = rng.integers(0, [image.width - side + 1, image.height - side + 1])
    return image.crop((x, y, x + side, y + side)).resize(image.size, Image.Resampling.BICUBIC)


def _mottle(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Soft stains, and more contrast, as of a picture whose denoising stopped too early."""
    cells = 128 // int(rng.integers(4, 12))
    stains = _field(rng.normal(scale=8 + 34 * level, size=(cells, cells, 3)), image.size)
    return _clipped((np.asarray(image) - 128.0) * (1 + 0.7 * level) + 128 + stains)


def _rescale(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    side = max(4, round(image.width * 0.45 * (1 - 0.8 * level)))
    down = image.resize((side, side), Image.Resampling.BOX)
    return down.resize(
        image.size, Image.Resampling.BILINEAR if rng.random() < 0.7 else Image.Resampling.NEAREST
    )


def _speckle(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    coarse = rng.normal(scale=8 + 70 * level, size=(image.height // 2 + 1, image.width // 2 + 1, 3))
    grain = np.kron(coarse, np.ones((2, 2, 1)))[: image.height, : image.width]
    salt = rng.random(pixels.shape[:2])[..., None] < 0.12 * level
    return _clipped(np.where(salt, rng.integers(0, 2) * 255, pixels + grain))


def _recompress(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """WebP, or JPEG of another size, whose blocks end up 4 to 7 or 9 to 13 px wide instead of 8."""
    if rng.random() < 0.3:
        form, scale, quality = "WEBP", 1 - 0.5 * level, round(20 * (1 - level))
    elif rng.random() < 0.5:
        form, scale, quality = "JPEG", rng.uniform(1.2, 2.0), round(24 - 22 * level)
    else:
        form, scale, quality = "JPEG", rng.uniform(0.6, 0.9), round(40 - 38 * level)
    side = max(8, round(image.width * scale))
    other = image.resize((side, side), Image.Resampling.BILINEAR)
    return _compressed(other, form, quality).resize(image.size, Image.Resampling.BICUBIC)


def _palette(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    colours = max(2, round(14 * (1 - level)))
    return image.quantize(colours, dither=Image.Dither.NONE).convert("RGB")


def _shift(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Enlarged and partly out of the frame, on the side that chance picks."""
    scale = 1.25 + 0.75 * level
    x, y = rng.choice([-1, 1], size=2) * image.width * (0.12 + 0.25 * level) + image.width / 2
    half = image.width / scale / 2
    return image.transform(
        image.size, Image.Transform.EXTENT, (x - half, y - half, x + half, y + half), fillcolor=_corner(image)
    )


def _patches(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Square patches on a grid whose colour and contrast do not fit each other, and more contrast in all."""
    image = ImageEnhance.Contrast(image).enhance(1 + 0.6 * level)
    side = round(image.width / 128 * int(rng.integers(4, 14)))
    down, across = -(-image.height // side), -(-image.width // side)

    def spread(values: np.ndarray) -> np.ndarray:
        return np.kron(values, np.ones((side, side, 1)))[: image.height, : image.width]

    flat = np.asarray(image.resize((across, down), Image.Resampling.BOX)).astype(np.float64)
    kept = spread(rng.uniform(1 - 0.9 * level, 1 + 0.5 * level, (down, across, 1)))
    offset = spread(rng.normal(scale=2 + 20 * level, size=(down, across, 3)))
    return _clipped(spread(flat) + (np.asarray(image) - spread(flat)) * kept + offset)


def _saturate(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1.6 + 3 * level)


def _sharpen(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(1.5 * image.width / 128, round(120 + 400 * level), 0))


def _tile(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    times = 2 if level < 0.5 else 3
    side = image.width // times
    tile = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
    tiled = Image.fromarray(np.tile(tile, (times, times, 1)))
    return tiled if tiled.size == image.size else tiled.resize(image.size, Image.Resampling.NEAREST)


def _plain(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    mean = np.asarray(image).mean((0, 1)) if level < 0.5 else rng.integers(0, 256, 3)
    return Image.new("RGB", image.size, tuple(int(c) for c in mean))


FAULTS_A: dict[str, Fault] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "posterise": _posterise,
    "crop": _crop,
    "mottle": _mottle,
}
FAULTS_B: dict[str, Fault] = {
    "rescale": _rescale,
    "speckle": _speckle,
    "recompress": _recompress,
    "palette": _palette,
    "shift": _shift,
    "patches": _patches,
}
TRICKS: dict[str, Fault] = {"saturate": _saturate, "sharpen": _sharpen, "tile": _tile, "plain": _plain}
ALL = FAULTS_A | FAULTS_B | TRICKS


def degrade(picture: np.ndarray, kind: str, level: float, rng: np.random.Generator) -> np.ndarray:
    """The picture with the fault or trick called `kind`; KeyError where there is none of that name."""
    return np.asarray(ALL[kind](Image.fromarray(picture), level, rng))


def with_text(picture: np.ndarray, text: str, rng: np.random.Generator) -> np.ndarray:
    """The picture with `text` written across it, as large as fits in lines of about 14 letters."""
    image = Image.fromarray(picture)
    lines = textwrap.wrap(text, 14) or [""]
    size = min(image.height // (len(lines) + 1), round(image.width / max(map(len, lines)) * 1.7))
    font = ImageFont.load_default(max(6, size))
    light = np.asarray(image.convert("L")).mean() > 128
    ink = tuple(int(c) for c in (rng.integers(0, 90, 3) if light else rng.integers(165, 256, 3)))
    place = (image.width * float(rng.uniform(0, 0.1)), image.height * float(rng.uniform(0, 0.4)))
    ImageDraw.Draw(image).multiline_text(place, "\n".join(lines), fill=ink, font=font, spacing=1)
    return np.asarray(image)


def _clipped(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _field(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Numbers of a coarse grid (h, w, 3) as a smooth field of the picture's `size` (width, height)."""
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(values, -1, 0)]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BICUBIC)) for plane in planes], -1)


def _compressed(image: Image.Image, form: str, quality: int) -> Image.Image:
    memory = io.BytesIO()
    image.save(memory, form, quality=max(1, quality))
    return Image.open(memory).convert("RGB")


def _corner(image: Image.Image) -> tuple[int, ...]:
    return tuple(int(c) for c in np.asarray(image)[0, 0])
