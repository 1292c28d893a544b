"""How `flowtailor studio train` makes the scorers: what each is shown, for how long.

The networks and their losses are in `models/`; this file brings them together with pictures, with the
studio's training loop and, for fidelity, with the picture models whose work it is to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..datasets.pictures import STYLES
from ..datasets.scenes import Scene, caption
from ..models.alignment import AlignmentNet, HeldOutNet
from ..models.degrade import FAULTS_A, FAULTS_B
from ..models.fidelity_fit import Render, draw_real, fit_fidelity
from ..models.scene_bank import draw_bank
from ..models.scorer_fit import HurriedPairs, fit_alignment
from ..models.text import TextEncoder
from ..studio.checkpoint import load_small
from ..studio.mmdit import MMDiT
from ..studio.pixels import to_bytes
from ..studio.previews import sample
from ..studio.recipe import CHECKPOINTS
from ..studio.training import train

if TYPE_CHECKING:
    from .studio_train import StudioTraining

BANK_GROUPS = 4500  # of 4 scenes each
ALIGNMENT_STEPS = 3000
FIDELITY_STEPS = 800
REAL_PICTURES = 3000
# What generated pictures are like that fidelity is to put in order: groups of (steps, cfg), worst first.
CARE = (
    ((1, 2.0), (2, 2.0), (3, 2.0), (5, 2.0), (8, 2.0), (20, 2.0)),
    ((2, 5.0), (3, 5.0), (5, 5.0), (8, 5.0), (20, 5.0)),
    ((3, 8.0), (5, 8.0), (8, 8.0), (20, 8.0)),
    ((20, 12.0), (20, 2.0)),
)
RENDERED_PROMPTS = 96
HURRIED_PROMPTS, HURRIED_CFGS = 100, (5.0, 8.0)  # of each checkpoint


@dataclass(frozen=True)
class ScorerTraining:
    """The scorers' parts of a studio's training."""

    studio: StudioTraining

    def parts(self) -> dict[str, Callable[[], Path]]:
        """Name -> what makes it and returns its file."""
        return {
            "alignment": self.alignment,
            "held_out_alignment": self.held_out_alignment,
            "fidelity": self.fidelity,
        }

    def alignment(self) -> Path:
        return self._alignment("alignment", AlignmentNet, [*FAULTS_A], self.studio.seed)

    def held_out_alignment(self) -> Path:
        """Another network, other scenes, the other half of the faults: what it says is news.

        Compression comes twice as often, for it is the hardest to see.
        """
        faults = [*FAULTS_B, "recompress"]
        return self._alignment(
            "held_out_alignment", HeldOutNet, faults, self.studio.seed + 1, pairs=self.hurried_pairs
        )

    def _alignment(
        self,
        name: str,
        network: type[AlignmentNet | HeldOutNet],
        faults: Sequence[str],
        seed: int,
        *,
        pairs: Callable[[], HurriedPairs] | None = None,
    ) -> Path:
        def make(path: Path) -> None:
            torch.manual_seed(seed)
            net = network()
            bank = draw_bank(
                self.studio.pictures,
                self.studio.out / "scorers",
                groups=self.studio.steps(BANK_GROUPS),
                seed=seed,
                echo=self.studio.echo,
            )
            fit_alignment(
                net,
                bank,
                faults,
                path,
                steps=self.studio.steps(ALIGNMENT_STEPS),
                train=train,
                out=self.studio.out / "scorers",
                name=name,
                seed=seed,
                device=self.studio.device,
                pairs=pairs() if pairs else None,
                echo=self.studio.echo,
            )

        return self.studio.kept(self.studio.out / "scorers" / f"{name}.safetensors", make)

    def hurried_pairs(self) -> HurriedPairs:
        """What each checkpoint draws in its own style, with 3 and with 20 steps, where cfg lets it show."""
        random = np.random.default_rng([self.studio.seed, 7])
        subjects, count = self.studio.pictures.subjects, self.studio.steps(HURRIED_PROMPTS)
        hurried, careful, prompts = [], [], []
        for number, (name, plan) in enumerate(CHECKPOINTS.items()):
            styles = [*(plan.styles or STYLES)]
            chance = [*plan.styles.values()] if plan.styles else None
            mine = [
                caption(
                    self.studio.pictures, Scene(int(subject), str(random.choice(styles, p=chance))), random
                )
                for subject in random.choice(len(subjects), count, p=plan.weights(subjects))
            ]
            model, seed = self._model(name), 100 + number
            for cfg in HURRIED_CFGS:
                hurried += [*self._drawn(model, mine, steps=3, cfg=cfg, seed=seed)]
                careful += [*self._drawn(model, mine, steps=20, cfg=cfg, seed=seed)]
                prompts += mine
            self.studio.echo(f"held_out_alignment: {name} drew {len(mine)} prompts in a hurry and with care")
        return HurriedPairs(np.stack(hurried), np.stack(careful), TextEncoder.load().encode(prompts))

    def fidelity(self) -> Path:
        """Learns from pictures that the checkpoints draw with more and less care."""

        def make(path: Path) -> None:
            real, texts = draw_real(self.studio.pictures, REAL_PICTURES, seed=self.studio.seed)
            fit_fidelity(
                real,
                texts,
                self.renders(),
                path,
                steps=self.studio.steps(FIDELITY_STEPS),
                train=train,
                out=self.studio.out / "scorers",
                seed=self.studio.seed,
                device=self.studio.device,
                echo=self.studio.echo,
            )

        return self.studio.kept(self.studio.out / "scorers" / "fidelity.safetensors", make)

    def renders(self) -> list[Render]:
        """Pictures of the same prompts and seeds in all the ways of CARE, by checkpoints in turn."""
        random = np.random.default_rng([self.studio.seed, 6])
        prompts = [
            caption(self.studio.pictures, Scene(int(subject), "3d"), random)
            for subject in random.choice(len(self.studio.pictures.subjects), RENDERED_PROMPTS, replace=False)
        ]
        renders = []
        for number, name in enumerate(CHECKPOINTS):
            model, mine = self._model(name), prompts[number :: len(CHECKPOINTS)]
            for row, group in enumerate(CARE):
                for quality, (steps, cfg) in enumerate(group):
                    drawn = self._drawn(model, mine, steps=steps, cfg=cfg, seed=number)
                    renders += [
                        Render(picture, quality, f"{name} {row} {text}")
                        for picture, text in zip(drawn, mine, strict=True)
                    ]
            self.studio.echo(f"fidelity: {name} drew {len(mine)} prompts in {sum(map(len, CARE))} ways")
        return renders

    def _model(self, name: str) -> MMDiT:
        model = MMDiT().to(self.studio.device).eval()
        model.load_state_dict(load_small(self.studio.checkpoint(name)))
        return model

    def _drawn(
        self, model: MMDiT, prompts: Sequence[str], *, steps: int, cfg: float, seed: int
    ) -> np.ndarray:
        """A checkpoint's pictures of the prompts: (prompts, 128, 128, 3) uint8."""
        latents = sample(model, self.studio.captions, prompts, steps=steps, cfg=cfg, seed=seed)
        return to_bytes(self.studio.decode(latents))
