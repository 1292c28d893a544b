"""Random weights of the studio's models, and a tokenizer, for tests that train nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from flowtailor.studio.mmdit import MMDiT
from flowtailor.studio.text_encoder import END, START, VOCABULARY


def word_features(words: Sequence[str]) -> Tensor:
    """In place of MiniLM's: of the right shape, without meaning."""
    return torch.randn(len(words), 48, generator=torch.Generator().manual_seed(1))


class WordTokenizer:
    """In place of CLIP's: one token a word."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [START, *(zlib.crc32(word.encode()) % START for word in text.split()), END]}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return ["".join(letters[i // 26**k % 26] for k in range(4)) + "</w>" for i in ids]


def random_model(seed: int = 0) -> MMDiT:
    """Nothing in it is zero, and all is rounded to float16, as a checkpoint keeps it."""
    torch.manual_seed(seed)
    model = MMDiT()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.03)
            p.copy_(p.half().float())
    return model.eval()


def random_vae() -> dict[str, Tensor]:
    """Those weights of an autoencoder by which ComfyUI knows its kind, and its two numbers for SD3."""
    state = {"taesd_encoder.0.weight": torch.zeros(64, 3, 3, 3), "taesd_encoder.0.bias": torch.zeros(64)}
    state |= {"taesd_decoder.1.weight": torch.zeros(64, 16, 3, 3), "taesd_decoder.1.bias": torch.zeros(64)}
    return state | {"vae_scale": torch.tensor(1.5305), "vae_shift": torch.tensor(0.0609)}


assert len(set(WordTokenizer().convert_ids_to_tokens(range(VOCABULARY)))) == VOCABULARY
