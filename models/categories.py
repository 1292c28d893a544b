"""Which category a prompt is of, told from its sentence features: logistic regression on labelled prompts.

Shape legend: P prompts, D = 384 sentence features, C categories.

Sentence features tell style and phrasing before they tell subjects; what a category has in common takes
far more prompts to find out than are rendered, and labels are free. The reward ensemble weighs words by
categories, and the policy reads the likeliest category beside the prompt: a language model of this size
needs thousands of prompts to find out by itself which of them belong together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .text import WIDTH, TextEncoder

INVERSE_PENALTY = (
    10.0  # on captions of names that were left out, the likeliest of six; 72% of ten categories right
)
CATEGORIES_FILE = "categories.safetensors"


def category_layer(features_PD: Tensor, categories: Sequence[str]) -> nn.Linear:
    """Prompt features (P, D) -> logits (P, C) of the categories in alphabetical order; not to be trained.

    categories: of each prompt. With one alone, C is 1 and all prompts are of it.
    """
    from sklearn.linear_model import LogisticRegression  # a second of import, which only fitting needs

    names, category_P = np.unique(list(categories), return_inverse=True)
    layer = _layer(len(names))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    if len(names) > 1:
        fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(features_PD.numpy(), category_P)
        told = len(fitted.coef_)  # of two categories sklearn gives the logit of the second alone
        layer.weight[-told:] = torch.from_numpy(fitted.coef_).float()
        layer.bias[-told:] = torch.from_numpy(fitted.intercept_).float()
    return layer


class Categories:
    """The names of categories and the layer that tells them, kept beside the policy that reads them."""

    def __init__(self, names: Sequence[str], layer: nn.Linear, backbone: str) -> None:
        self.names, self.backbone = tuple(names), backbone
        self._layer = layer

    @classmethod
    def fit(cls, labelled: Mapping[str, str], backbone: str) -> Categories:
        """labelled: prompt -> category. backbone: a name of `TextEncoder.load`."""
        features_PD = TextEncoder.load(backbone).encode(list(labelled))
        names = list(labelled.values())
        return cls(sorted(set(names)), category_layer(features_PD, names), backbone)

    @classmethod
    def find(cls, folder: Path) -> Categories | None:
        """Those that `save` wrote into `folder`, None where there are none."""
        file = folder / CATEGORIES_FILE
        if not file.is_file():
            return None
        with safe_open(file, framework="pt") as content:
            names, backbone = json.loads(content.metadata()["names"]), content.metadata()["backbone"]
            layer = _layer(len(names))
            layer.load_state_dict({name: content.get_tensor(name) for name in ("weight", "bias")})
        return cls(names, layer, backbone)

    def save(self, folder: Path) -> None:
        """Write `categories.safetensors`."""
        told = {"names": json.dumps(self.names), "backbone": self.backbone}
        save_file(self._layer.state_dict(), folder / CATEGORIES_FILE, metadata=told)

    def of(self, prompt: str) -> str:
        """The name of the likeliest category."""
        with torch.inference_mode():
            logits_1C = self._layer(TextEncoder.load(self.backbone).encode([prompt]))
        return self.names[int(logits_1C.argmax())]


def _layer(categories: int) -> nn.Linear:
    return nn.Linear(WIDTH, categories).requires_grad_(False)
