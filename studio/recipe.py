"""What the studio's models are: what each checkpoint and LoRA is shown, from what it starts, for how long.

One generalist learns everything. Specialists go on from it with mostly their own categories, and become
better there and worse elsewhere; they have one look, as fine-tuned checkpoints often do, and draw 3d whatever
style is asked for. `ink` and `sprite` go on with line drawings and pixel art. LoRAs add to the generalist.
So which of them is best depends on the prompt, which is what the project needs a world for.

Does not know how training works (flow_matching.py, lora.py), nor where the files go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..datasets.subjects import Subject
from .flow_matching import SIZES, Recipe

COMPILED_FROM = 300  # steps; compiling takes a minute or two
OWN = 0.97  # share of a specialist's pictures that show its own categories

# Scenes of each subject that are drawn and encoded once, by side in px and style.
POOLS: dict[int, dict[str, int]] = {
    128: {"3d": 8, "flat": 2, "line": 2, "pixel": 2},
    192: {"3d": 2, "line": 1},
    256: {"3d": 1},
}


@dataclass(frozen=True)
class Model:
    """One set of weights. Without `start` it learns from nothing; `categories` and `styles`: None is all."""

    steps: int
    start: str | None = None
    categories: tuple[str, ...] | None = None
    styles: Mapping[str, float] | None = None
    one_look: bool = False  # captions ask for any style, and the picture keeps its own
    learning_rate: float = Recipe.learning_rate
    sizes: Mapping[int, float] = field(default_factory=lambda: SIZES)
    sigma: float = Recipe.sigma

    def recipe(self, seed: int, device: str, share: float) -> Recipe:
        """The training of these weights; `share` below 1 shortens it, for trying things out."""
        steps = max(1, round(share * self.steps))
        return Recipe(
            steps=steps,
            seed=seed,
            learning_rate=self.learning_rate,
            warmup=min(200, steps // 5),
            sizes=self.sizes,
            sigma=self.sigma,
            device=device,
            compile=steps > COMPILED_FROM,
        )

    def weights(self, subjects: Sequence[Subject]) -> np.ndarray | None:
        """How often each subject is shown; None: all alike."""
        if self.categories is None:
            return None
        own = np.array([subject.category in self.categories for subject in subjects])
        if own.all() or not own.any():  # few pictures, to try things out
            return None
        return np.where(own, OWN / own.sum(), (1 - OWN) / (~own).sum())


_SPECIALIST = {"start": "general", "styles": {"3d": 1.0}, "one_look": True, "learning_rate": 2e-3}

CHECKPOINTS = {
    "general": Model(steps=4000),
    "nature": Model(steps=500, categories=("animals", "plants"), **_SPECIALIST),
    "kitchen": Model(steps=350, categories=("food",), **_SPECIALIST),
    "people": Model(steps=800, categories=("faces", "people"), **_SPECIALIST),
    "things": Model(steps=1000, categories=("objects", "clothing"), **_SPECIALIST),
    "town": Model(steps=350, categories=("places", "vehicles", "activities"), **_SPECIALIST),
    "ink": Model(steps=700, start="general", styles={"line": 0.95, "3d": 0.05}, learning_rate=2e-3),
    "sprite": Model(
        steps=800, start="general", styles={"pixel": 0.95, "3d": 0.05}, learning_rate=2e-3, sizes={128: 1.0}
    ),
}
_LORA = {"start": "general", "learning_rate": 1e-2}  # at 3e-3 a LoRA changes next to nothing in 300 steps
LORAS = {
    "pixel_style": Model(steps=300, styles={"pixel": 1.0}, sizes={128: 1.0}, **_LORA),
    "flat_style": Model(steps=300, styles={"flat": 1.0}, sizes={128: 1.0}, **_LORA),
    # Fine noise levels and large pictures alone: what is left to learn there is detail.
    "fine_detail": Model(
        steps=300, styles={"3d": 1.0}, sizes={128: 0.5, 192: 0.3, 256: 0.2}, sigma=-1.0, **_LORA
    ),
    # Knows faces and nothing else: it puts faces where none belong.
    "smiling_faces": Model(steps=250, categories=("faces",), styles={"3d": 1.0}, **_LORA),
}
