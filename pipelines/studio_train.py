"""`flowtailor studio train`: makes all weights of the studio and of the scorers from Fluent emoji.

Each part is a file under `OUT/weights` or `OUT/scorers` and is skipped where it is there; one that was
interrupted goes on. Parts need torch, npm for the pictures and no Ray, and use a GPU where there is one.
`OUT/weights` has the layout of `studio/weights`, with its SHA256SUMS, so that shipping is copying.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole
from flowtailor.memory import keep_freed_memory

from ..datasets.pictures import Pictures, load_pictures
from ..datasets.scenes import Scene, caption, in_any_style
from ..models.text import TextEncoder
from ..studio.autoencoder import Autoencoder, train_autoencoder
from ..studio.checkpoint import load_small, save_small, save_text_encoder
from ..studio.flow_matching import train_checkpoint
from ..studio.install import install
from ..studio.latents import Batches, Pool, encode_pool
from ..studio.lora import save_lora, train_lora
from ..studio.previews import Montage
from ..studio.recipe import CHECKPOINTS, LORAS, POOLS, Model
from ..studio.text_encoder import Captions, build, load_tokenizer
from ..studio.upscaler import train_upscaler
from .scorer_train import ScorerTraining

if TYPE_CHECKING:
    from torch import Tensor

PREVIEWED = (
    "a red apple",
    "a cat",
    "two cherries",
    "a blue car",
    "a castle",
    "a grinning face",
    "a line drawing of a guitar",
    "pixel art of a rocket",
    "a rose",
    "a hamburger on a yellow background",
)


class StudioTraining:
    """The parts in the order in which they need each other; what a part needs is made first."""

    def __init__(self, out: Path, *, seed: int, device: str, share: float, echo: Callable[[str], None]):
        self.out, self.seed, self.device, self.share, self.echo = out, seed, device, share, echo
        self.weights = out / "weights"

    def parts(self) -> dict[str, Callable[[], Path]]:
        """Name -> what makes it and returns its file."""
        table: dict[str, Callable[[], Path]] = {"vae": self.vae, "text_encoder": self.text_encoder}
        table |= {name: lambda name=name: self.checkpoint(name) for name in CHECKPOINTS}
        table |= {name: lambda name=name: self.lora(name) for name in LORAS}
        return table | {"upscaler": self.upscaler} | ScorerTraining(self).parts()

    @cached_property
    def pictures(self) -> Pictures:
        return load_pictures(self.out / "pictures", self.echo)

    @cached_property
    def captions(self) -> Captions:
        state = torch.load(self.text_encoder(), weights_only=True)
        return Captions(state, self._tokenizer, device=self.device)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(install(echo=self.echo).comfyui)

    def vae(self) -> Path:
        return self.kept(self.weights / "vae.safetensors", self._train_vae)

    def _train_vae(self, path: Path) -> None:
        train_autoencoder(
            self.pictures,
            path,
            out=self.out / "autoencoder",
            steps=self.steps(1500),
            seed=self.seed,
            device=self.device,
            echo=self.echo,
        )

    def text_encoder(self) -> Path:
        """Needs no training: words are looked up."""

        def make(path: Path) -> None:
            save_text_encoder(build(lambda words: TextEncoder.load().encode(words), self._tokenizer), path)

        return self.kept(self.weights / "text_encoder.pt", make)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        return Autoencoder.load(self.vae()).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def pool(self, size: int) -> Pool:
        """Encoded scenes of one size, which all picture models that draw it learn from."""
        return encode_pool(
            self.pictures,
            self._encode,
            self.out / "latents",
            size,
            POOLS[size],
            encoder=hashlib.sha256(self.vae().read_bytes()).hexdigest()[:12],
            seed=self.seed,
            device=self.device,
            echo=self.echo,
        )

    def _encode(self, pixels: Tensor) -> Tensor:
        return self.autoencoder.encode(pixels.to(self.device))

    def checkpoint(self, name: str) -> Path:
        """One MMDiT; a specialist first makes what it starts from."""

        def make(path: Path) -> None:
            plan = CHECKPOINTS[name]
            state = train_checkpoint(
                plan.recipe(self.seed, self.device, self.share),
                self._batches(plan),
                self.captions,
                out=self.out / "models",
                name=name,
                start=self._start(plan),
                preview=self._montage(name),
                echo=self.echo,
            )
            save_small(state, path, base=self._checkpoint_file(plan.start) if plan.start else None)

        return self.kept(self._checkpoint_file(name), make)

    def _checkpoint_file(self, name: str) -> Path:
        suffix = ".npz" if CHECKPOINTS[name].start else ".safetensors"
        return self.weights / "diffusion" / f"{name}{suffix}"

    def lora(self, name: str) -> Path:
        def make(path: Path) -> None:
            plan = LORAS[name]
            start = self._start(plan)
            assert start is not None
            additions = train_lora(
                plan.recipe(self.seed, self.device, self.share),
                start,
                self._batches(plan),
                self.captions,
                out=self.out / "models",
                name=name,
                preview=self._montage(name),
                echo=self.echo,
            )
            save_lora(additions, path)

        return self.kept(self.weights / "loras" / f"{name}.safetensors", make)

    def upscaler(self) -> Path:
        def make(path: Path) -> None:
            train_upscaler(
                self.pictures,
                path,
                out=self.out / "upscaler",
                steps=self.steps(1500),
                seed=self.seed,
                device=self.device,
                echo=self.echo,
            )

        return self.kept(self.weights / "upscale_models" / "studio_x2.safetensors", make)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of a picture model's latents."""
        with torch.inference_mode():
            return self.autoencoder.decode(latents)

    def _batches(self, plan: Model) -> Batches:
        def phrase(scene: Scene, random: np.random.Generator) -> str:
            asked = in_any_style(scene, random) if plan.one_look else scene
            return caption(self.pictures, asked, random)

        pools = {size: self.pool(size) for size in plan.sizes}
        return Batches(pools, phrase, plan.weights(self.pictures.subjects), plan.styles)

    def _start(self, plan: Model) -> dict[str, Tensor] | None:
        return None if plan.start is None else load_small(self.checkpoint(plan.start))

    def _montage(self, name: str) -> Montage:
        return Montage(self.captions, PREVIEWED, self.decode, self.out / "previews" / name, sizes=(128, 256))

    def steps(self, steps: int) -> int:
        """So many steps, or the share of them."""
        return max(1, round(self.share * steps))

    def kept(self, path: Path, make: Callable[[Path], object]) -> Path:
        """Make the file if it is not there."""
        if not path.exists():
            with written_whole(path) as new:
                make(new)
        return path


def train_studio(
    out: Path,
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    share: float = 1.0,
    echo: Callable[[str], None] = print,
) -> None:
    """Make the parts `only` (and what they need), or all; `share` below 1 shortens every training."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    keep_freed_memory()
    settings = {"seed": seed, "share": share}
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings:
        raise FlowtailorError(f"{out}: holds a training with {kept.read_text()}; give another --out")
    kept.write_text(json.dumps(settings))
    training = StudioTraining(out, seed=seed, device=device, share=share, echo=echo)
    parts = training.parts()
    unknown = [name for name in only if name not in parts]
    if unknown:
        raise FlowtailorError(f"studio train: no part {unknown[0]!r}; name some of {', '.join(parts)}")
    for name in only or parts:
        echo(f"studio train: {name}: {parts[name]()}")
    if training.weights.is_dir():  # scorers lie elsewhere
        _write_sums(training.weights)


def _write_sums(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder)}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines))
