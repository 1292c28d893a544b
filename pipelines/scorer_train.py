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
from PIL import Image

from ..datasets.scenes import Scene, caption
from ..models.alignment import AlignmentNet, HeldOutNet
from ..models.degrade import FAULTS_A, FAULTS_B, Fault
from ..models.fidelity_fit import Render, draw_real, fit_fidelity
from ..models.scorer_fit import draw_bank, fit_alignment
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

        Compression and what too few steps leave come twice as often, for they are the hardest to see.
        """
        faults = [*FAULTS_B, "recompress", *[unfinished(self.studio)] * 2]
        return self._alignment("held_out_alignment", HeldOutNet, faults, self.studio.seed + 1)

    def _alignment(
        self, name: str, network: type[AlignmentNet | HeldOutNet], faults: Sequence[str | Fault], seed: int
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
                echo=self.studio.echo,
            )

        return self.studio.kept(self.studio.out / "scorers" / f"{name}.safetensors", make)

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
            model = MMDiT().to(self.studio.device).eval()
            model.load_state_dict(load_small(self.studio.checkpoint(name)))
            mine = prompts[number :: len(CHECKPOINTS)]
            for row, group in enumerate(CARE):
                for quality, (steps, cfg) in enumerate(group):
                    latents = sample(model, self.studio.captions, mine, steps=steps, cfg=cfg, seed=number)
                    drawn = zip(to_bytes(self.studio.decode(latents)), mine, strict=True)
                    renders += [Render(picture, quality, f"{name} {row} {text}") for picture, text in drawn]
            self.studio.echo(f"fidelity: {name} drew {len(mine)} prompts in {sum(map(len, CARE))} ways")
        return renders


def unfinished(studio: StudioTraining) -> Fault:
    """As too few steps leave a picture: noise among its latents, and more contrast."""

    @torch.inference_mode()
    def fault(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(studio.device).float() / 255
        latents = studio.autoencoder.encode(pixels)
        mean = latents.mean((2, 3), keepdim=True)
        stronger = mean + (latents - mean) * (1 + 0.5 * level * rng.random())
        noise = torch.from_numpy(rng.normal(size=latents.shape)).to(latents) * latents.std()
        return Image.fromarray(to_bytes(studio.autoencoder.decode(stronger + (0.1 + 0.5 * level) * noise))[0])

    return fault
