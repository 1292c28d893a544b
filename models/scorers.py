"""Scorers: what looks at a rendered picture and gives it a number in [0, 1], more is better.

Two ship with the project: `alignment` (does it show the prompt) and `sharpness` (is it crisp and
free of noise). Add one with `@register("name")`, or name a class of an installed module as
`package.module:Class`; its column in the rows is `score_<name>` either way.

Promises: the same picture and prompt get the same score, whatever the batch. Neither scorer knows
beauty, and a fixed scorer can be fooled: judge designs by eye too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from skimage.measure import blur_effect

from flowtailor.errors import FlowtailorError

from .alignment import AlignmentNet, to_pixels
from .text import TextEncoder


class Scorer(Protocol):
    """Anything that scores pictures for prompts."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """One number in [0, 1] for each picture; both sequences have the same length."""
        ...


SCORERS: dict[str, Callable[[], Scorer]] = {}


Factory = TypeVar("Factory", bound=Callable[[], Scorer])


def register(name: str) -> Callable[[Factory], Factory]:
    """Class decorator: makes the scorer known as `name`."""

    def add(factory: Factory) -> Factory:
        SCORERS[name] = factory
        return factory

    return add


def load_scorer(name: str) -> Scorer:
    """The scorer called `name`, a registered one or `package.module:Class`; raises FlowtailorError."""
    if name in SCORERS:
        return SCORERS[name]()
    module, separator, attribute = name.partition(":")
    if not separator:
        known = ", ".join(sorted(SCORERS))
        raise FlowtailorError(f"scorer {name!r}: unknown; use one of {known}, or package.module:Class")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise FlowtailorError(f"scorer {name!r}: cannot be loaded ({error}); is it installed?") from None


@register("alignment")
class Alignment:
    """Cosine between picture and prompt, 0 for an unrelated picture, 1 for a cosine of 0.8.

    Real pictures of the training world reach 0.83 +- 0.05, recognisable renders a little less,
    noise about 0. The map is a straight line, so that better goes on counting near the top.
    """

    FULL = 0.8  # just above the best of the real pictures (0.76)

    def __init__(self) -> None:
        self._net = AlignmentNet.load()
        self._text = TextEncoder.load()

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        if not images:
            return []
        pictures = self._net.pictures(to_pixels(images))
        sentences = self._net.sentences(self._text.encode(list(prompts)))
        return ((pictures * sentences).sum(-1) / self.FULL).clamp(0, 1).tolist()


@register("sharpness")
class Sharpness:
    """How crisp the picture is when shown 256 px wide, less what is noise; needs no prompt.

    Blur is Crete's perceptual measure as scikit-image has it (0 sharp, 1 flat); noise is the
    median Laplacian response on what is not white background. Enlarging adds no sharpness, so a
    64 px canvas scores below a 256 px one; an artificial sharpening filter does raise the score.
    """

    SHOWN = 256  # px of the longer side
    BLUR_WORST, BLUR_BEST = 0.95, 0.40  # a sigma 3 blur; a crisp drawing made at 256 px
    NOISE_FREE, NOISE_SCALE = 0.01, 0.03  # sigma of grey values in [0, 1]

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [self._score(image.convert("L")) for image in images]

    def _score(self, image: Image.Image) -> float:
        blur = float(blur_effect(_grey(image, self.SHOWN)))  # type: ignore[arg-type]
        crisp = (self.BLUR_WORST - blur) / (self.BLUR_WORST - self.BLUR_BEST)
        excess = max(0.0, noise_sigma(_grey(image, self.SHOWN // 2)) - self.NOISE_FREE)
        return float(np.clip(crisp, 0, 1) * np.exp(-excess / self.NOISE_SCALE))


def _grey(image: Image.Image, longer_side: int) -> np.ndarray:
    """A grey image rescaled to the given longer side (px): float (H, W) in [0, 1]."""
    scale = longer_side / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / 255


def noise_sigma(grey: np.ndarray) -> float:
    """Standard deviation of pixel noise (after Immerkaer 1996), over what is darker than background.

    `grey` is (H, W) in [0, 1]. The median makes edges not count, as long as they are few.
    """
    rows = grey[:-2] - 2 * grey[1:-1] + grey[2:]
    response = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    content = response[grey[1:-1, 1:-1] < 0.98]
    return float(np.median(content)) / (6 * 0.6745) if content.size else 0.0
