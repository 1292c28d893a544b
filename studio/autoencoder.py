"""The studio's autoencoder: pictures to latents of an eighth of the side, and back.

Shape legend: N pictures, H x W px (multiples of 8), C = 16 latent channels, F = 64 feature maps;
pixels (N, 3, H, W) in [0, 1], latents (N, C, H/8, W/8).

Layout and key names are TAESD's, which ComfyUI recognises by them; it fixes F, so that a smaller decoder is
not to be had. Promises: `Autoencoder.encode` gives the latents as the engine hands them to the diffusion
model, with zero mean and unit variance in every channel over whole scenes; `decode` takes the same.
Does not know photographs: it was trained on drawn things on quiet backgrounds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from flowtailor.precision import mixed_precision

from ..datasets.pictures import STYLES, Pictures
from .pixels import ScenePool, colour_loss, draw_pool, psnr, to_tensor
from .training import rng, train

CHANNELS = 16  # of the latents, as SD3 has them
WIDTH = 64
# ComfyUI shifts and scales SD3's latents around the model; with the same numbers in the file, TAESD does the
# inverse, and what the model sees is the encoder's own output.
VAE_SCALE, VAE_SHIFT = 1.5305, 0.0609

NOISE = 0.08  # on latents while training: the decoder then forgives what the diffusion model gets wrong
# Latents at half the size must be those of the picture at half the size (after Skorokhodov et al. 2025,
# "Improving the Diffusability of Autoencoders"): smooth latents are easier to learn, and to enlarge.
HALF_SIZE = 0.5
CROP, BATCH = 64, 12  # px, crops a step
PEAK_LR, DECODER_LR = 2e-3, 7e-4
DECODER_SHARE = 0.4  # further steps of the decoder alone, as a share of the joint ones
POOL = {128: 3000, 192: 500, 256: 500}  # scenes by side in px
HELD_OUT = {128: 96}


class _Clamp(nn.Module):
    """Keeps latents within (-3, 3), softly."""

    def forward(self, latents: Tensor) -> Tensor:
        return 3 * torch.tanh(latents / 3)


class _Block(nn.Module):
    """A residual of three convolutions; the last one starts at zero, so that depth costs nothing at first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)
        )
        for parameter in self.conv[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.conv(maps) + maps)


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


def _blocks(count: int) -> list[nn.Module]:
    return [_Block() for _ in range(count)]


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, WIDTH), *_blocks(1)]
    for _ in range(3):
        layers += [_conv(WIDTH, WIDTH, stride=2, bias=False), *_blocks(3)]
    return nn.Sequential(*layers, _conv(WIDTH, CHANNELS))


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_Clamp(), _conv(CHANNELS, WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [*_blocks(3), nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]
    return nn.Sequential(*layers, *_blocks(1), _conv(WIDTH, 3))


class Autoencoder(nn.Module):
    """Encoder and decoder. `norm` standardises the latents in training; `standardise` folds it away."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_encoder = _encoder()
        self.taesd_decoder = _decoder()
        self.norm: nn.Module = nn.BatchNorm2d(CHANNELS, affine=False)

    @classmethod
    def load(cls, path: Path) -> Autoencoder:
        """From a file that `export` described; frozen, for use."""
        model = cls()
        model.norm = nn.Identity()
        weights = load_file(path)
        model.load_state_dict({key: weights[key].float() for key in model.state_dict()})
        return model.eval().requires_grad_(False)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1] -> latents as the diffusion model sees them."""
        return self.norm(self.taesd_encoder(pixels).float())

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> pixels; about [0, 1], not clamped."""
        return self.taesd_decoder(latents).float()


def export(model: Autoencoder) -> dict[str, Tensor]:
    """fp16 weights under ComfyUI's names, as VAELoader takes them."""
    assert isinstance(model.norm, nn.Identity), "standardise first"
    weights = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    # Not halved: ComfyUI's own two numbers must be met exactly.
    weights["vae_scale"] = torch.tensor(VAE_SCALE)
    weights["vae_shift"] = torch.tensor(VAE_SHIFT)
    return weights


def train_autoencoder(
    pictures: Pictures,
    path: Path,
    *,
    out: Path,
    steps: int = 1500,
    seed: int = 0,
    device: str = "cpu",
    echo: Callable[[str], None] = print,
) -> None:
    """Write `path`, and into `out` what it is worth on subjects it never saw.

    Both parts are trained together for `steps`, then the decoder alone on the latents that are now fixed.
    """
    torch.manual_seed(seed)
    model = Autoencoder().to(device)
    pool = draw_pool(pictures, POOL, seed=seed, echo=echo)
    train_part = partial(_train_part, model=model, pool=pool, out=out, echo=echo)
    train_part("autoencoder", part=model, peak_lr=PEAK_LR, steps=steps, seed=seed)
    standardise(model, pool)
    decoder_steps = round(DECODER_SHARE * steps)
    decoder = model.taesd_decoder
    train_part("decoder", part=decoder, peak_lr=DECODER_LR, steps=decoder_steps, seed=seed + 1)

    save_file(export(model), path)
    held_out = draw_pool(pictures, HELD_OUT, seed=seed, held_out=True, echo=echo)
    report = measure(Autoencoder.load(path).to(device), held_out)
    (out / "autoencoder.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    echo("autoencoder, on held-out subjects: " + ", ".join(f"{k} {v}" for k, v in report.items()))


def _train_part(
    name: str,
    *,
    model: Autoencoder,
    part: nn.Module,
    pool: ScenePool,
    peak_lr: float,
    steps: int,
    seed: int,
    out: Path,
    echo: Callable[[str], None],
) -> None:
    """Train `part` of `model` and leave the rest as it is."""
    model.train().requires_grad_(False)
    part.requires_grad_(True)
    device = next(part.parameters()).device

    def step(i: int) -> tuple[Tensor, dict[str, float]]:
        pixels = pool.crops(BATCH, CROP, rng(seed, i)).to(device, memory_format=torch.channels_last)
        with mixed_precision(device):
            latents = model.encode(pixels)
            output = model.decode(latents + NOISE * torch.randn_like(latents))
            half = model.decode(F.avg_pool2d(latents, 2))
        loss = colour_loss(output, pixels) + HALF_SIZE * colour_loss(half, F.avg_pool2d(pixels, 2))
        seen = output.detach()
        colours = psnr(F.avg_pool2d(seen, 8), F.avg_pool2d(pixels, 8))  # the last to be learned
        decibels = {"psnr": psnr(seen, pixels).mean().item(), "colours": colours.mean().item()}
        return loss, {"loss": loss.item(), **decibels}

    train(step, part, steps=steps, peak_lr=peak_lr, out=out, name=name, seed=seed, echo=echo)
    model.eval()


@torch.no_grad()
def standardise(model: Autoencoder, pool: ScenePool, count: int = 256) -> None:
    """Give the latents of whole scenes zero mean and unit variance, and forget `norm`.

    The batch norm saw crops, in which there is less background than in whole scenes. The decoder's first
    convolution gets the inverse of the difference, which is exact but for the clamp and the padding.
    """
    norm, first, last = model.norm, model.taesd_decoder[1], model.taesd_encoder[-1]
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    assert norm.running_mean is not None and norm.running_var is not None
    assert first.bias is not None and last.bias is not None
    raw = torch.cat([model.taesd_encoder(pixels) for pixels in _batches(pool.pictures[0][:count], last)])
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
    old_mean, old_std = norm.running_mean, (norm.running_var + norm.eps).sqrt()
    last.weight /= std[:, None, None, None]
    last.bias.sub_(mean).div_(std)
    first.bias += (first.weight.sum((2, 3)) * (mean - old_mean) / old_std).sum(1)
    first.weight *= (std / old_std)[None, :, None, None]
    model.norm = nn.Identity()


def _batches(pictures: np.ndarray, like: nn.Module) -> Iterable[Tensor]:
    device = next(like.parameters()).device
    for start in range(0, len(pictures), 16):
        batch = to_tensor(pictures[start : start + 16])
        yield batch.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def measure(model: Autoencoder, pool: ScenePool) -> dict[str, float]:
    """PSNR in dB by style, of whole scenes of the first size; and how standard the latents are."""
    latents, decibels = [], []
    for pixels in _batches(pool.pictures[0], model):
        latents.append(model.encode(pixels))
        decibels += psnr(model.decode(latents[-1]), pixels).tolist()
    style_of = np.array(pool.styles[0])
    report = {f"psnr_{style}": np.array(decibels)[style_of == style].mean() for style in STYLES}
    channels = torch.cat(latents).transpose(0, 1).flatten(1)
    report["latent_mean_abs"] = channels.mean(1).abs().mean().item()
    report["latent_std"] = channels.std(1).mean().item()
    return {key: round(float(value), 3) for key, value in report.items()}
