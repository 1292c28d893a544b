"""The picture model: SD3's MMDiT, small, with the parameter names by which ComfyUI knows it.

Shape legend: B pictures, C latent channels, H and W latent height and width, X picture tokens (one per
2 x 2 latent pixels), T text tokens, S = T + X, D hidden width, N heads of 64 numbers.

Promises: `MMDiT(...)(x, t, context, pooled)` equals what ComfyUI computes from the same weights. Context and
pooled text are 768 wide here; ComfyUI pads both with zeros, and checkpoint.py widens the two matrices that
read them. Positions are computed from the canvas, not stored: they run from 0 to 15 along its shorter side
whatever its size, so that what is learned about the layout of 128 px pictures holds at 256 px too.

Does not know how it is trained (flow_matching.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 64  # ComfyUI derives the number of heads, and the depth, from it: width = 64 * depth
CHANNELS = 16  # what marks a model as SD3's to ComfyUI
PATCH = 2
TEXT = 768
FREQUENCIES = 256
EPS = 1e-6


class MMDiT(nn.Module):
    """Predicts the velocity noise - picture of a noisy latent picture, given a text."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        width = HEAD * depth
        self.x_embedder = _PatchEmbedder(width)
        self.t_embedder = _Embedder(FREQUENCIES, width)
        self.y_embedder = _Embedder(TEXT, width)
        self.context_embedder = nn.Linear(TEXT, width)
        self.joint_blocks = nn.ModuleList(_JointBlock(width, i == depth - 1) for i in range(depth))
        self.final_layer = _FinalLayer(width)
        self.width = width
        self._initialise()

    def _initialise(self) -> None:
        """Each block starts as the identity, and the whole predicts zero."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if "adaLN" in name or name == "final_layer.linear":
                    nn.init.zeros_(module.weight)
                elif "embedder.mlp" in name:
                    nn.init.normal_(module.weight, std=0.02)
                else:
                    nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        proj = self.x_embedder.proj
        nn.init.xavier_uniform_(proj.weight.view(self.width, -1))
        assert proj.bias is not None
        nn.init.zeros_(proj.bias)

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor, key_bias: Tensor | None = None
    ) -> Tensor:
        """Velocity (B, C, H, W) of x (B, C, H, W) at t = 1000 * sigma (B,).

        context is (B, T, 768), pooled (B, 768). `key_bias` (T + X,) is added to the attention that each
        token gets: the logarithm of how many equal tokens it stands for.
        """
        B, C, H, W = x.shape
        h, w = H // PATCH, W // PATCH
        c = self.t_embedder(_timestep_features(t).to(x.dtype)) + self.y_embedder(pooled)
        c = F.silu(c)
        x = self.x_embedder(x) + positions(h, w, self.width, x.device)
        context = self.context_embedder(context)
        mask = None if key_bias is None else key_bias.to(x.device).view(1, 1, 1, -1)
        for block in self.joint_blocks:
            context, x = block(context, x, c, mask)
        x = self.final_layer(x, c)
        return x.view(B, h, w, PATCH, PATCH, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, H, W)


class _PatchEmbedder(nn.Module):
    """A convolution in name; as a matrix product it is faster."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, X, D)."""
        B, C, H, W = x.shape
        patches = x.reshape(B, C, H // PATCH, PATCH, W // PATCH, PATCH).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.reshape(B, -1, C * PATCH**2), self.proj.weight.flatten(1), self.proj.bias)


class _Embedder(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class _JointBlock(nn.Module):
    """Text and picture tokens, each with weights of their own, attend to each other."""

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.context_block = _Stream(width, keys_only=last)
        self.x_block = _Stream(width)
        self.last = last

    def forward(self, context: Tensor, x: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        cq, ck, cv, after_context = self.context_block.before(context, c)
        xq, xk, xv, after_x = self.x_block.before(x, c)
        # Nobody reads the text after the last block, so there it asks nothing.
        query = xq if self.last else torch.cat((cq, xq), 2)
        out = _attend(query, torch.cat((ck, xk), 2), torch.cat((cv, xv), 2), mask)
        out = out.transpose(1, 2).flatten(2)
        T = 0 if self.last else context.shape[1]
        if not self.last:
            context = self.context_block.after(context, out[:, :T], after_context)
        return context, self.x_block.after(x, out[:, T:], after_x)


class _Stream(nn.Module):
    """One kind of token's half of a block. The last block's text half only offers keys and values."""

    def __init__(self, width: int, keys_only: bool = False) -> None:
        super().__init__()
        attention = {"qkv": nn.Linear(width, 3 * width), "ln_q": _Norm(HEAD), "ln_k": _Norm(HEAD)}
        if not keys_only:
            attention["proj"] = nn.Linear(width, width)
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.attn = nn.ModuleDict(attention)
        self.adaLN_modulation = _modulation(width, 2 if keys_only else 6)

    def before(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Queries, keys, values (B, N, tokens, 64), and the modulation that `after` needs."""
        shift, scale, *rest = self.adaLN_modulation[1](c).unsqueeze(1).chunk(self._parts, -1)
        qkv = self.attn["qkv"](_modulate(x, shift, scale))
        q, k, v = qkv.view(*x.shape[:2], 3, -1, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        return self.attn["ln_q"](q), self.attn["ln_k"](k), v, tuple(rest)

    def after(self, x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        gate, mlp_shift, mlp_scale, mlp_gate = modulation
        x = x + gate * self.attn["proj"](attended)
        hidden = F.gelu(self.mlp["fc1"](_modulate(x, mlp_shift, mlp_scale)), approximate="tanh")
        return x + mlp_gate * self.mlp["fc2"](hidden)

    @property
    def _parts(self) -> int:
        return 6 if "proj" in self.attn else 2


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention over (B, N, S, 64)."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(q.dtype))
    # Of so few tokens, torch's kernel for the CPU takes three times as long to train.
    scores = (q * HEAD**-0.5) @ k.transpose(-1, -2)
    return (scores if mask is None else scores + mask).softmax(-1).to(v.dtype) @ v


class _Norm(nn.Module):
    """Divides each head's vector by its root mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPS)


class _FinalLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, PATCH * PATCH * CHANNELS)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation[1](c).unsqueeze(1).chunk(2, -1)
        return self.linear(_modulate(x, shift, scale))


def _modulation(width: int, parts: int) -> nn.Sequential:
    """Only the second module is called, since its input is the same everywhere; the first keeps the name."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def _timestep_features(t: Tensor) -> Tensor:
    """Cosines and sines (B, 256) of the time at frequencies from 1 to 1 / 10000."""
    half = FREQUENCIES // 2
    angles = t.float()[:, None] * torch.exp(-math.log(10_000) / half * torch.arange(half, device=t.device))
    return torch.cat((angles.cos(), angles.sin()), -1)


def positions(h: int, w: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines (h * w, D) of each patch's place, which is 0 to 15 along the shorter side."""
    middle, short = 7.5, min(h, w)
    rows = torch.linspace(middle - middle * h / short, middle + middle * h / short, h)
    columns = torch.linspace(middle - middle * w / short, middle + middle * w / short, w)
    quarter = width // 4
    omega = 1.0 / 10_000 ** (torch.arange(quarter) / quarter)

    def waves(place: Tensor) -> Tensor:
        angles = place[:, None] * omega
        return torch.cat((angles.sin(), angles.cos()), -1)

    across, down = waves(columns), waves(rows)
    table = torch.cat((across.expand(h, w, -1), down[:, None].expand(h, w, -1)), -1)
    return table.reshape(h * w, width).to(device)
