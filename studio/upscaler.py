"""A small upscaler, twice the side, for ComfyUI's UpscaleModelLoader.

Shape legend: N pictures; low (N, 3, H, W), high (N, 3, 2H, 2W), both in [0, 1].

Layout and key names are Real-ESRGAN's compact network's, whose sizes spandrel reads from the weights.
Promises: it sharpens drawn things, and cleans the slight blur, noise and blocks that renders have. The
report beside the weights says what it gains over bicubic on subjects that it never saw.
Does not know photographs, nor how to invent what is not there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from flowtailor.precision import mixed_precision

from ..datasets.pictures import STYLES, Pictures
from .pixels import ScenePool, detail_loss, draw_pool, psnr, to_tensor, turned
from .training import rng, train

WIDTH, DEPTH = 48, 8  # 0.06 s of one core for 128 px
CROP, BATCH = 48, 16  # px of the low picture, crops a step
PEAK_LR = 1e-3
POOL = {256: 1200}  # high pictures
HELD_OUT = {256: 96}
RESIZES = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


class Upscaler(nn.Module):
    """Convolutions at the low size; what they make is added to the picture with its pixels doubled."""

    def __init__(self, width: int = WIDTH, depth: int = DEPTH) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * 4, 3, padding=1))

    @classmethod
    def load(cls, path: Path) -> Upscaler:
        model = cls()
        model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        return model.eval().requires_grad_(False)

    def forward(self, low: Tensor) -> Tensor:
        doubled = F.interpolate(low, scale_factor=2, mode="nearest")
        return doubled + F.pixel_shuffle(self.body(low), 2)


def degraded(high: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A picture at half its side, (S, S, 3) -> (S/2, S/2, 3) bytes, with the faults that renders have."""
    size = (high.shape[1] // 2, high.shape[0] // 2)
    image = Image.fromarray(high).resize(size, RESIZES[random.integers(len(RESIZES))])
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.8)))
    if random.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(random.integers(60, 96)))
        image = Image.open(buffer)
    low = np.asarray(image, np.float32)
    if random.random() < 0.5:
        low = low + random.normal(0, random.uniform(1, 5), low.shape)
    return low.round().clip(0, 255).astype(np.uint8)


def halved(high: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """The same without faults: each pixel is the mean of four."""
    return np.asarray(Image.fromarray(high).reduce(2))


def low_pictures(
    pool: ScenePool, lower: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int
) -> np.ndarray:
    """The low picture of each high one of the pool."""
    return np.stack(
        [lower(high, np.random.default_rng([seed, i])) for i, high in enumerate(pool.pictures[0])]
    )


def train_upscaler(
    pictures: Pictures,
    path: Path,
    *,
    out: Path,
    steps: int = 2500,
    seed: int = 0,
    device: str = "cpu",
    echo: Callable[[str], None] = print,
) -> None:
    """Write `path`, and into `out` what it gains over bicubic by style."""
    torch.manual_seed(seed)
    model = Upscaler().to(device)
    for parameter in model.body[-1].parameters():
        nn.init.zeros_(parameter)  # it starts as the doubled picture
    pool = draw_pool(pictures, POOL, seed=seed, echo=echo)
    low = low_pictures(pool, degraded, seed)

    def step(i: int) -> tuple[Tensor, dict[str, float]]:
        x, y = (t.to(device) for t in crop_pairs(low, pool.pictures[0], BATCH, CROP, rng(seed, i)))
        with mixed_precision(device):
            output = model(x.contiguous(memory_format=torch.channels_last))
        loss = detail_loss(output.float(), y)
        return loss, {"loss": loss.item(), "psnr": psnr(output.detach().float(), y).mean().item()}

    train(step, model, steps=steps, peak_lr=PEAK_LR, out=out, name="upscaler", seed=seed, echo=echo)
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()}, path)
    held_out = draw_pool(pictures, HELD_OUT, seed=seed, held_out=True, echo=echo)
    report = measure(Upscaler.load(path).to(device), held_out, seed)
    (out / "upscaler_x2.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for kind, numbers in report.items():
        echo(f"upscaler, dB above bicubic on {kind} held-out scenes: {numbers['gain']}")


def crop_pairs(
    low: np.ndarray, high: np.ndarray, count: int, side: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same random places of low and high pictures, flipped and turned alike; `side` in low pixels."""
    lows, highs = [], []
    for _ in range(count):
        n, which = int(random.integers(len(low))), int(random.integers(8))
        y, x = random.integers(low.shape[1] - side + 1, size=2)
        lows.append(turned(low[n, y : y + side, x : x + side], which))
        highs.append(turned(high[n, 2 * y : 2 * (y + side), 2 * x : 2 * (x + side)], which))
    return to_tensor(np.stack(lows)), to_tensor(np.stack(highs))


@torch.no_grad()
def measure(model: Upscaler, pool: ScenePool, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """{clean | degraded: {psnr | bicubic | gain: {style | all: dB}}} on the scenes of the pool."""
    styles = np.array(pool.styles[0])
    device = next(model.parameters()).device
    report: dict[str, dict[str, dict[str, float]]] = {}
    for kind, lower in (("clean", halved), ("degraded", degraded)):
        ours, bicubic = [], []
        for low, high in zip(low_pictures(pool, lower, seed), pool.pictures[0], strict=True):
            x, y = to_tensor(low[None]).to(device), to_tensor(high[None]).to(device)
            ours.append(psnr(model(x), y).item())
            bicubic.append(psnr(F.interpolate(x, scale_factor=2, mode="bicubic"), y).item())
        table = {"psnr": np.array(ours), "bicubic": np.array(bicubic), "gain": np.subtract(ours, bicubic)}
        masks = {style: styles == style for style in STYLES} | {"all": styles != ""}
        report[kind] = {
            name: {group: round(float(values[mask].mean()), 2) for group, mask in masks.items()}
            for name, values in table.items()
        }
    return report
