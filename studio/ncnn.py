"""Reads Real-ESRGAN weights from ncnn's files and names them as the original networks do.

The registry holds Real-ESRGAN only in ncnn's format: a text file (.param) that lists the layers and a
binary file (.bin) that holds their weights in the same order. ComfyUI's UpscaleModelLoader wants the state
dict of the PyTorch network. This file knows the layers of one network, SRVGGNetCompact: Convolution and
PReLU carry weights, the rest carry none, and nothing is quantised below fp16.

Shapes: convolution weight (out, in, k, k), bias (out,), PReLU slope (channels,).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from flowtailor.errors import FlowtailorError

StateDict = dict[str, torch.Tensor]

_WEIGHTLESS = {"Input", "Split", "Concat", "Eltwise", "Interp", "BinaryOp", "PixelShuffle"}
_FP32, _FP16 = 0, 0x01306B47  # the flag before each convolution's weights


@dataclass(frozen=True)
class Layer:
    """One layer that carries weights; `bias` is None for a PReLU."""

    kind: str
    weight: torch.Tensor
    bias: torch.Tensor | None


def read_layers(param: str, weights: bytes) -> list[Layer]:
    """The weighted layers in file order; refuses unknown layers and left-over or missing bytes."""
    reader = _Reader(weights)
    layers = [_read_layer(kind, options, reader) for kind, options in _entries(param)]
    if reader.offset != len(weights):
        raise FlowtailorError(
            f"ncnn weights: {len(weights)} bytes, but the layers use {reader.offset}; take the .bin that "
            "belongs to the .param"
        )
    return layers


def compact_x4(layers: list[Layer]) -> StateDict:
    """SRVGGNetCompact for factor 4: convolutions and PReLUs in file order."""
    state: StateDict = {}
    for index, layer in enumerate(layers):
        state[f"body.{index}.weight"] = layer.weight
        if layer.bias is not None:
            state[f"body.{index}.bias"] = layer.bias
    return state


def compact_x2(layers: list[Layer]) -> StateDict:
    """SRVGGNetCompact for factor 2, out of the network for factor 4.

    The source computes factor 4 and then halves the picture. Halving by the mean of 2x2 pixels is linear in
    the last convolution, whose channels PixelShuffle spreads over 4x4 pixels, so it is folded into it. The
    skip path needs no change: nearest-neighbour x4, halved, is nearest-neighbour x2.
    """
    state = compact_x4(layers)
    last = len(layers) - 1
    for name in (f"body.{last}.weight", f"body.{last}.bias"):
        tensor = state[name]  # (3 * 4 * 4, ...): colour, pixel row, pixel column
        blocks = tensor.reshape(3, 2, 2, 2, 2, *tensor.shape[1:])
        state[name] = blocks.mean(dim=(2, 4)).reshape(12, *tensor.shape[1:])
    return state


class _Reader:
    """Walks over the bytes of a .bin file."""

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def take(self, n_bytes: int) -> bytes:
        end = self.offset + n_bytes
        if end > len(self.data):
            raise FlowtailorError(f"ncnn weights end after {len(self.data)} bytes; download them again")
        chunk, self.offset = self.data[self.offset : end], end
        return chunk

    def floats(self, count: int) -> torch.Tensor:
        return torch.from_numpy(np.frombuffer(self.take(4 * count), dtype="<f4").copy())

    def flagged(self, count: int) -> torch.Tensor:
        (flag,) = struct.unpack("<I", self.take(4))
        if flag == _FP32:
            return self.floats(count)
        if flag != _FP16:
            raise FlowtailorError(f"ncnn weights have storage flag {flag:#x}; only fp32 and fp16 are known")
        padded = self.take((2 * count + 3) // 4 * 4)  # fp16 blocks are padded to 4 bytes
        return torch.from_numpy(np.frombuffer(padded, dtype="<f2", count=count).astype("f4"))


def _read_layer(kind: str, options: dict[int, float], reader: _Reader) -> Layer:
    out = int(options[0])
    if kind == "PReLU":
        return Layer(kind, reader.floats(out), None)
    kernel, n_weights = int(options[1]), int(options[6])
    weight = reader.flagged(n_weights).reshape(out, -1, kernel, kernel)
    return Layer(kind, weight, reader.floats(out) if options.get(5) else None)


def _entries(param: str) -> Iterator[tuple[str, dict[int, float]]]:
    """(kind, {option id: number}) of each weighted layer, in file order."""
    for line in param.splitlines()[2:]:  # a magic number and the counts come first
        kind, _, n_inputs, n_outputs, *rest = line.split()
        if kind in _WEIGHTLESS:
            continue
        if kind not in ("Convolution", "PReLU"):
            raise FlowtailorError(f"ncnn layer {kind} is not known; known: Convolution, PReLU")
        pairs = (word.split("=") for word in rest[int(n_inputs) + int(n_outputs) :])
        # ids below -23300 are arrays (activation parameters), which Real-ESRGAN fixes anyway
        yield kind, {int(key): float(value) for key, value in pairs if int(key) >= 0}
