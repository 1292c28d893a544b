"""Sentence features from MiniLM-L6: what a prompt, or the words in a token's name, mean.

Shape legend: N texts, T tokens, D = 384 features.

Promises: mean-pooled, length-normalised features, equal to about 1e-6 whatever the batch, and
identical for a text seen before by the same encoder. English only; it reads at most 128 tokens
and knows no picture, so "a red apple" and "a green apple" lie close together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig, BertModel

from flowtailor.errors import FlowtailorError

from .weights import resolve

WIDTH = 384
MAX_TOKENS = 128
MAX_CACHED = 20_000  # texts; 1.5 kB each


class TextEncoder:
    """A frozen sentence encoder with a memory of the texts it has read."""

    def __init__(self, path: str, batch_size: int = 64) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        # Not from_pretrained: it draws a progress bar and a report on the pooler, which is not used.
        self._model = BertModel(BertConfig.from_pretrained(path)).eval().requires_grad_(False)
        weights = load_file(Path(path) / "model.safetensors")
        if self._model.load_state_dict(weights, strict=False).missing_keys:
            raise FlowtailorError(
                f"{path}: not the weights of a BERT sentence encoder; name another backbone"
            )
        self._batch_size = batch_size
        self._seen: dict[str, Tensor] = {}

    @staticmethod
    @cache
    def load(name: str = "minilm-l6") -> TextEncoder:
        """The encoder called `name`, one per process."""
        return TextEncoder(str(resolve(name)))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Features of the texts: float32 (N, D), rows of length 1."""
        if not texts:
            return torch.zeros(0, WIDTH)
        new = sorted({t for t in texts if t not in self._seen}, key=len)  # alike lengths: little padding
        if len(self._seen) + len(new) > MAX_CACHED:
            self._seen.clear()
            new = sorted(set(texts), key=len)
        for start in range(0, len(new), self._batch_size):
            batch = new[start : start + self._batch_size]
            self._seen.update(zip(batch, self._forward(batch), strict=True))
        return torch.stack([self._seen[t] for t in texts])

    @torch.inference_mode()
    def _forward(self, texts: list[str]) -> Tensor:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        hidden_NTD = self._model(**inputs).last_hidden_state
        mask_NT1 = inputs["attention_mask"].unsqueeze(-1).to(hidden_NTD.dtype)
        return F.normalize((hidden_NTD * mask_NT1).sum(1) / mask_NT1.sum(1), dim=-1)
