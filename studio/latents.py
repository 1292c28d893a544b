"""Scenes that were drawn and encoded once, so that training reads latents instead of drawing pictures.

Shape legend: N scenes of a pool, B pictures of a batch, C = 16 latent channels, H = W = size / 8.

Promises: a pool is the same for the same (pictures, seed, size); one that was interrupted goes on where it
was. Captions are phrased anew at each use. Does not know the autoencoder: `encode` is passed in, and a pool
remembers the name it was given for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole
from flowtailor.precision import mixed_precision

from ..datasets.pictures import Pictures
from ..datasets.scenes import Scene, draw, sample_scene
from .mmdit import CHANNELS
from .pixels import to_tensor

SCALE = 8  # pixels to a latent pixel
_CHUNK = 256  # scenes between two saves
_PIXELS = 32 * 128**2  # encoded at a time

Encode = Callable[[Tensor], Tensor]  # (B, 3, size, size) from 0 to 1 -> (B, C, H, W)
Caption = Callable[[Scene, np.random.Generator], str]


@dataclass(frozen=True)
class Pool:
    """Encoded scenes of one size."""

    latents: np.ndarray  # float16 (N, C, H, W), mapped from the disk
    scenes: Sequence[Scene]


def encode_pool(
    pictures: Pictures,
    encode: Encode,
    folder: Path,
    size: int,
    per_subject: Mapping[str, int],
    *,
    encoder: str,
    seed: int = 0,
    device: str = "cpu",
    echo: Callable[[str], None] = print,
) -> Pool:
    """The pool of `size` px in `folder`, drawn and encoded where it is missing.

    `per_subject` says how many scenes of each subject in which style. `encoder` names the autoencoder's
    weights: latents of others are refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"encoder": encoder, "seed": seed, "per_subject": dict(per_subject)}
    settings["subjects"] = [subject.name for subject in pictures.subjects]
    progress, path = folder / f"{size}.json", folder / f"{size}.npy"
    done = _resume(progress, settings) if path.exists() else 0
    scenes = _plan(folder / f"{size}.scenes.json", pictures, size, per_subject, seed, anew=not done)
    shape = (len(scenes), CHANNELS, size // SCALE, size // SCALE)
    latents = np.lib.format.open_memmap(path, "r+" if done else "w+", dtype=np.float16, shape=shape)
    starts = range(done, len(scenes), _CHUNK)

    def drawn(start: int) -> np.ndarray:
        chosen = range(start, min(start + _CHUNK, len(scenes)))
        return np.stack([draw(pictures, scenes[i], size, _random(seed, size, i, 1)) for i in chosen])

    progress_bar = tqdm(starts, f"latents of {size} px", disable=not starts)
    for start, images in zip(progress_bar, _one_ahead(drawn, starts), strict=True):
        latents[start : start + len(images)] = _encode(encode, images, device)
        latents.flush()
        _write(progress, {**settings, "done": start + len(images)})
    if starts:
        echo(f"latents: {len(scenes)} scenes of {size} px in {path}")
    return Pool(np.load(path, mmap_mode="r"), scenes)


def _one_ahead(drawn: Callable[[int], np.ndarray], starts: Sequence[int]) -> Iterator[np.ndarray]:
    """What is drawn for each of `starts`; the next one, and no more, while the caller works on this one."""
    if not starts:
        return
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(drawn, starts[0])
        for following in starts[1:]:
            images = coming.result()
            coming = ahead.submit(drawn, following)
            yield images
        yield coming.result()


def _plan(
    path: Path, pictures: Pictures, size: int, per_subject: Mapping[str, int], seed: int, anew: bool
) -> list[Scene]:
    """The scenes in their order, from `path` once it is written: to choose them takes half a minute."""
    if path.exists() and not anew:
        return [Scene(*row) for row in json.loads(path.read_text(encoding="utf-8"))]
    scenes = []
    weights = np.eye(len(pictures.subjects))
    for style, count in per_subject.items():
        for i in range(len(weights) * count):
            random = _random(seed, size, len(scenes), 0)
            scenes.append(sample_scene(pictures, random, weights=weights[i % len(weights)], styles=(style,)))
    _write(path, [astuple(scene) for scene in scenes])
    return scenes


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _encode(encode: Encode, images: np.ndarray, device: str) -> np.ndarray:
    """Float16 latents (N, C, H, W) of uint8 images (N, size, size, 3), a few at a time."""
    parts = []
    for part in np.array_split(images, -(-images[..., 0].size // _PIXELS)):
        x = to_tensor(part).to(device)
        with torch.inference_mode(), mixed_precision(device):
            latents = encode(x.contiguous(memory_format=torch.channels_last))
        parts.append(latents.float().cpu().numpy().astype(np.float16))
    return np.concatenate(parts)


def _resume(progress: Path, settings: dict) -> int:
    """How many scenes are encoded already, by the same encoder from the same plan."""
    if not progress.exists():
        return 0
    found = json.loads(progress.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if found[key] != value:
            raise FlowtailorError(
                f"{progress}: latents of another {key} ({str(found[key])[:60]}, not {str(value)[:60]}); "
                "delete the folder, or give another"
            )
    return found["done"]


def _write(path: Path, value: dict | list) -> None:
    with written_whole(path) as new:
        new.write_text(json.dumps(value), encoding="utf-8")


class Batches:
    """Draws training batches from the pools of several sizes."""

    def __init__(
        self,
        pools: Mapping[int, Pool],
        caption: Caption,
        weights: np.ndarray | None = None,
        styles: Mapping[str, float] | None = None,
    ) -> None:
        """How often what is shown: `weights` of each subject, and `styles`, the share of each.

        By default every scene of the pool is as likely as the next one.
        """
        self._pools, self._caption = pools, caption
        self._sums = {size: _cumulated(pool.scenes, weights, styles) for size, pool in pools.items()}

    def draw(self, size: int, count: int, random: np.random.Generator) -> tuple[Tensor, list[str]]:
        """Latents float32 (B, C, H, W) and their captions, phrased anew."""
        pool, sums = self._pools[size], self._sums[size]
        chosen = np.searchsorted(sums, random.random(count) * sums[-1], side="right")
        texts = [self._caption(pool.scenes[i], random) for i in chosen]
        return torch.from_numpy(pool.latents[chosen].astype(np.float32)), texts


def _cumulated(
    scenes: Sequence[Scene], weights: np.ndarray | None, styles: Mapping[str, float] | None
) -> np.ndarray:
    """Running sums (N,) of how often each scene is meant."""
    chances = np.array([1.0 if weights is None else weights[scene.subject] for scene in scenes])
    if styles is not None:
        found = np.array([scene.style for scene in scenes])
        for style in np.unique(found):
            those = found == style
            chances[those] *= styles.get(str(style), 0.0) / max(chances[those].sum(), 1e-12)
    if not chances.sum():
        raise FlowtailorError("no scene of the pool has a subject and a style that are to be shown")
    return np.cumsum(chances)
