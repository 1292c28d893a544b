"""Checkpoints in two forms: small ones that are shipped, and those that ComfyUI's loaders read.

Shipped are one text encoder and one autoencoder for all checkpoints, and for each of these its MMDiT in
8 bits: integers with one scale per row, whose error is a third of that of 8-bit floats, or for those that
went on from another one, how these integers differ. `assemble` puts the three together into one float16
file for CheckpointLoaderSimple.

Shape legend: R rows, C columns of a weight; D hidden width.

Promises: ComfyUI computes from an assembled file what mmdit.py and text_encoder.py compute from the same
weights. Repeated and overlapping numbers are stored once, which a .ckpt can and a .safetensors cannot.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole

_SCALE, _BASE = ".scale", "base"
# ComfyUI's texts are wider than ours; the rest is zeros.
_WIDENED = {"context_embedder.weight": 4096, "y_embedder.mlp.0.weight": 2048}
MODEL, TEXT, VAE = "model.diffusion_model.", "text_encoders.clip_l.transformer.", "first_stage_model."


def save_small(state: dict[str, Tensor], path: Path, base: Path | None = None) -> None:
    """Write an MMDiT's weights (names as in mmdit.py) in 8 bits; norms and biases in float16.

    With `base`, the file beside `path` of the weights that these went on from, only how they differ from
    those is written: the same weights in three quarters of the room. Such a file is an .npz.
    """
    packed = _packed(state)
    if base is None:
        with written_whole(path) as new:
            save_file(packed, new)
        return
    before = load_small(base)
    arrays: dict[str, Any] = {name: weight.numpy() for name, weight in packed.items()}
    for name in before:
        if name + _SCALE in packed:
            arrays[name] = arrays[name].view(np.uint8) - _expected(before[name], packed[name + _SCALE])
    arrays[_BASE] = np.array(base.name)
    with written_whole(path) as new, new.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_small(path: Path) -> dict[str, Tensor]:
    """Weights in float32 as `save_small` wrote them."""
    try:
        packed = _with_base(path) if path.suffix == ".npz" else load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FlowtailorError(f"{path}: no weights of the studio ({error}); train or restore it") from error
    state = {}
    for name, weight in packed.items():
        if name.endswith(_SCALE):
            continue
        scale = packed.get(name + _SCALE)
        state[name] = weight.float()
        if scale is not None:
            state[name] *= _by_row(scale, weight)
    return state


def _packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    packed: dict[str, Tensor] = {}
    for name, weight in state.items():
        if weight.dim() == 1:
            packed[name] = weight.half()
            continue
        rows = weight.float().flatten(1)
        scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
        packed[name] = (rows / scale).round().to(torch.int8).view(weight.shape).contiguous()
        packed[name + _SCALE] = scale[:, 0].float().contiguous()
    return packed


def _with_base(path: Path) -> dict[str, Tensor]:
    """The packed weights of an .npz, whose differences are modulo 256."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    before = load_small(path.with_name(str(arrays.pop(_BASE))))
    for name in before:
        if name + _SCALE in arrays:
            expected = _expected(before[name], torch.from_numpy(arrays[name + _SCALE]))
            arrays[name] = (arrays[name] + expected).view(np.int8)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _expected(before: Tensor, scale: Tensor) -> np.ndarray:
    """The 8-bit integers, as unsigned ones, that `before` has in the rows' scales."""
    return (before / _by_row(scale, before)).round().to(torch.int64).numpy().astype(np.uint8)  # wraps around


def _by_row(scale_R: Tensor, weight: Tensor) -> Tensor:
    """The scales in a shape that meets the weight's rows."""
    return scale_R.view(-1, *[1] * (weight.dim() - 1))


def save_text_encoder(state: dict[str, Tensor], path: Path) -> None:
    """Write text_encoder.build's weights; CLIPLoader reads the file too, with type sd3."""
    with written_whole(path) as new:
        torch.save(state, new)


def load_text_encoder(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def assemble(mmdit: Path, text_encoder: Path, vae: Path, output: Path) -> None:
    """Write one float16 .ckpt, 27 MB, of a small MMDiT file, the text encoder and the autoencoder."""
    write_checkpoint(load_small(mmdit), load_text_encoder(text_encoder), load_file(vae), output)


def write_checkpoint(
    mmdit: dict[str, Tensor], text: dict[str, Tensor], vae: dict[str, Tensor], output: Path
) -> None:
    """Write one file that CheckpointLoaderSimple reads."""
    state = {MODEL + name: weight for name, weight in engine_weights(mmdit).items()}
    state |= {TEXT + name: weight for name, weight in text.items()}
    state |= {VAE + name: weight.half() if weight.dim() else weight.float() for name, weight in vae.items()}
    with written_whole(output) as new:
        torch.save(state, new)


def engine_weights(mmdit: dict[str, Tensor], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The MMDiT's weights in the shapes that ComfyUI expects: two are widened by columns that see zeros.

    Those columns lie over the next row's numbers, so that they take no room.
    """
    state = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in mmdit.items()}
    for name, columns in _WIDENED.items():
        rows, width = state[name].shape
        base = torch.cat((state[name].flatten(), torch.zeros(columns - width, dtype=dtype)))
        state[name] = base.as_strided((rows, columns), (width, 1))
    return state
