"""Scorers: what looks at a rendered picture and gives it a number in [0, 1], more is better.

Three ship for rewards: `alignment` (does it show the prompt), `fidelity` (is it well made) and
`sharpness` (is it crisp and free of noise). A fourth, `held_out_alignment`, is for evaluation alone:
`load_scorer` refuses it otherwise, so that nothing learns to please the judge. Add one with
`@register("name")`, or name a class of an installed module as `package.module:Class`; its column in
the rows is `score_<name>` either way, so a scorer that learns to see otherwise needs another name.
docs/SCORERS.md tells how they were trained and tested.

Promises: the same picture and prompt get the same score, whatever the batch. No scorer knows
beauty, and a fixed scorer can be fooled: judge designs by eye too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from PIL import Image

from flowtailor.errors import FlowtailorError

from .alignment import AlignmentNet, HeldOutNet, TwoTowers, to_pixels
from .fidelity import SIZE as FIDELITY_SIZE
from .fidelity import FidelityNet
from .sharpness import sharpness
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


def load_scorer(name: str, *, evaluation: bool = False) -> Scorer:
    """The scorer called `name`, a registered one or `package.module:Class`; raises FlowtailorError.

    A class with `held_out = True` is refused unless the scores are for an `evaluation`.
    """
    factory = _factory(name)
    if getattr(factory, "held_out", False) and not evaluation:
        raise FlowtailorError(
            f"scorer {name!r}: held out for evaluation, nothing may be rewarded by it; "
            "take it out of scorers.weights"
        )
    return factory()


def _factory(name: str) -> Callable[[], Scorer]:
    if name in SCORERS:
        return SCORERS[name]
    module, separator, attribute = name.partition(":")
    if not separator:
        known = ", ".join(sorted(SCORERS))
        raise FlowtailorError(f"scorer {name!r}: unknown; use one of {known}, or package.module:Class")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise FlowtailorError(f"scorer {name!r}: cannot be loaded ({error}); is it installed?") from None


class _Matching:
    """Cosine between picture and prompt, 0 for an unrelated picture, 1 for what few real ones exceed.

    The map is a straight line, so that better goes on counting near the top.
    """

    NET: type[TwoTowers]

    def __init__(self) -> None:
        self._net = self.NET.load()
        self._text = TextEncoder.load()

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        if not images:
            return []
        pictures = self._net.pictures(to_pixels(images))
        sentences = self._net.sentences(self._text.encode(list(prompts)))
        return ((pictures * sentences).sum(-1) / self._net.full).clamp(0, 1).tolist()

    @torch.inference_mode()
    def cosines(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> torch.Tensor:
        """(N, M): every one of N pictures beside every one of M prompts; neither may be none."""
        pictures = [self._net.pictures(to_pixels(images[i : i + 64])) for i in range(0, len(images), 64)]
        return torch.cat(pictures) @ self._net.sentences(self._text.encode(list(prompts))).T


@register("alignment")
class Alignment(_Matching):
    """Does the picture show what the prompt says: subject, colour, number, style?"""

    NET = AlignmentNet


@register("held_out_alignment")
class HeldOutAlignment(_Matching):
    """The same question to another network, which training never hears."""

    NET = HeldOutNet
    held_out = True


@register("fidelity")
class Fidelity:
    """Is the picture well made, whatever it shows? Half of the real pictures score above 0.88."""

    def __init__(self) -> None:
        self._net = FidelityNet.load()

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return self._net.score(to_pixels(images, FIDELITY_SIZE)).tolist() if images else []


@register("sharpness")
class Sharpness:
    """How crisp the picture is when shown 256 px wide; needs no prompt (models/sharpness.py)."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return [sharpness(image) for image in images]
