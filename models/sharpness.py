"""Sharpness without a reference: crisp is good, but not noise, unrest, halos, burnt or few colours, or tiles.

Crispness is Crete's perceptual blur as scikit-image has it (`blur_effect`), of the picture shown
256 px wide, so that enlarging adds nothing. What would please it cheaply is taken off again, by
measures that lie near 0 for the studio's real pictures in all four styles. Promises: 0 to 1; three
real pictures in four lose less than a quarter to the six penalties. Does not see compression or a
cut-off subject, and reads no prompt.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.measure import blur_effect

SHOWN = 256  # px of the longer side
BLUR_WORST, BLUR_BEST = 0.95, 0.50  # a sigma 3 blur; real pictures; what is crisper is clutter
NOISE_FREE, NOISE_SCALE = 0.01, 0.03  # sigma of grey values in [0, 1]
UNREST_FREE, UNREST_SCALE = 0.0009, 0.0020  # grey values between two Gaussians
HALO_FREE, HALO_SCALE = 0.03, 0.06  # of the contrast of the edge
BURNT_FREE, BURNT_SCALE = 0.002, 0.10  # share of the pixels
LEVELS_FREE, LEVELS_SCALE = 8, 3  # values of a channel; the plainest pixel art has nine
REPEATED = (0.60, 0.85)  # autocorrelation of real pictures stays below, that of tiles above


def sharpness(image: Image.Image) -> float:
    """The score of a picture of any size, in [0, 1]."""
    colour = image.convert("RGB")
    shown, half = grey(colour, SHOWN), grey(colour, SHOWN // 2)
    crisp = np.clip((BLUR_WORST - float(blur_effect(shown))) / (BLUR_WORST - BLUR_BEST), 0, 1)  # type: ignore[arg-type]
    losses = [
        (noise_sigma(half) - NOISE_FREE) / NOISE_SCALE,
        (unrest(half) - UNREST_FREE) / UNREST_SCALE,
        (halo(shown) - HALO_FREE) / HALO_SCALE,
        (burnt_share(colour) - BURNT_FREE) / BURNT_SCALE,
        (LEVELS_FREE - levels(colour)) / LEVELS_SCALE,
    ]
    kept = np.exp(-sum(max(0.0, loss) for loss in losses))
    once = np.clip((REPEATED[1] - repetition(half)) / (REPEATED[1] - REPEATED[0]), 0, 1)
    return float(crisp * kept * once)


def grey(image: Image.Image, longer_side: int) -> np.ndarray:
    """Grey values at the given longer side (px): float (H, W) in [0, 1]."""
    scale = longer_side / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    return np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / 255


def noise_sigma(grey_HW: np.ndarray) -> float:
    """Standard deviation of pixel noise (after Immerkaer 1996), over what is darker than background.

    The median makes edges not count, as long as they are few.
    """
    rows = grey_HW[:-2] - 2 * grey_HW[1:-1] + grey_HW[2:]
    response = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    content = response[grey_HW[1:-1, 1:-1] < 0.98]
    return float(np.median(content)) / (6 * 0.6745) if content.size else 0.0


def unrest(grey_HW: np.ndarray) -> float:
    """How uneven surfaces are at the scale of a few pixels: what too few steps leave behind.

    A quantile of the difference of two Gaussians (0.5 and 1.5 px), away from edges.
    """
    edges = ndimage.maximum_filter(grey_HW, 3) - ndimage.minimum_filter(grey_HW, 3) > 0.3
    fine, coarse = (ndimage.gaussian_filter(grey_HW, sigma)[~edges] for sigma in (0.5, 1.5))
    return float(np.quantile(np.abs(fine - coarse), 0.6)) if fine.size else 0.0


def halo(grey_HW: np.ndarray, points: int = 800) -> float:
    """How far edges overshoot, as a share of their contrast: what a sharpening filter leaves behind.

    On both sides of the strongest edges, the extreme 2 to 5 px away is compared with 8 px away.
    """
    smooth = ndimage.gaussian_filter(grey_HW.astype(np.float32), 1.0)
    rise = np.stack([np.gradient(smooth, axis=0), np.gradient(smooth, axis=1)])
    steep = np.hypot(*rise)
    places = np.flatnonzero(steep > max(0.03, float(np.percentile(steep[::2, ::2], 96))))
    if len(places) < 50:
        return 0.0
    places = places[:: max(1, len(places) // points)]
    across = (rise.reshape(2, -1) / np.maximum(steep.ravel(), 1e-6))[:, places]  # towards the bright side
    start = np.stack(np.unravel_index(places, steep.shape)).astype(float)

    def at(*distances: int) -> np.ndarray:
        return np.stack([ndimage.map_coordinates(grey_HW, start + d * across, order=1) for d in distances])

    bright, dark = at(2, 3, 4, 5).max(0), at(-2, -3, -4, -5).min(0)
    contrast = bright - dark
    over = np.stack([bright - at(8)[0], at(-8)[0] - dark]) / np.maximum(contrast, 1e-3)
    plateau = (np.abs(over) < 0.5) & (contrast > 0.1)  # else something else stands there
    sides = [np.median(side[flat]) for side, flat in zip(over, plateau, strict=True) if flat.sum() > 30]
    return max(0.0, float(np.mean(sides))) if sides else 0.0


def burnt_share(image: Image.Image) -> float:
    """Share of the pixels whose colour is as strong as numbers allow: some channel full, some empty."""
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.NEAREST))
    return float((np.ptp(pixels, axis=-1) >= 250).mean())


def levels(image: Image.Image) -> float:
    """How many values 99% of the pixels have in a channel, on average: what posterising leaves few of."""
    counts = [
        np.sort(np.bincount(channel.ravel()))[::-1] for channel in np.moveaxis(np.asarray(image), -1, 0)
    ]
    return float(np.mean([np.searchsorted(np.cumsum(count), 0.99 * count.sum()) + 1 for count in counts]))


def repetition(grey_HW: np.ndarray) -> float:
    """How much the picture repeats itself downwards and sideways; 1 for tiles.

    The autocorrelation at its highest beyond shifts of a fifth, in the direction where it is lower:
    two apples side by side repeat themselves in one direction only.
    """
    spectrum = np.fft.rfft2(grey_HW - grey_HW.mean())
    correlation = np.fft.irfft2(np.abs(spectrum) ** 2, s=grey_HW.shape)
    if correlation[0, 0] < 1e-6:
        return 0.0
    height, width = (side // 5 for side in grey_HW.shape)
    down, across = correlation[height:-height, 0].max(), correlation[0, width:-width].max()
    return float(min(down, across) / correlation[0, 0])
