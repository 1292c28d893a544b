"""What a prompt's text tells of its labels, category and style: logistic regression on labelled prompts.

Shape legend: P prompts, D = 384 sentence features, C classes of a label.

What the prompts of a category have in common takes far more of them to find out than are rendered, and
labels are free. The reward ensemble weighs words by both (`traits.py`), and the policy reads the likeliest
beside the prompt: a language model of this size needs thousands of prompts to find out by itself which of
them belong together.

Of the prompts that it was fitted on, a regression tells nearly all (99% of the studio's categories), of
others fewer (72%). A policy that learned from the former would trust what it reads too much. So each prompt
that was fitted on is told by a regression that has seen none of its name, as in stacking (Wolpert 1992).

Their probabilities are honest: of the studio's captions told with 0.9 or more 95% are right, of those told
with less than `SURE` every other one. Where a label is not sure, the policy reads the two likeliest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..datasets.prompts import Prompt
from ..datasets.rows import share, text_hash
from .text import WIDTH, TextEncoder

INVERSE_PENALTY = 10.0  # on captions of names left out, the likeliest of six; 72% of ten categories right
LABELS = ("category", "style")  # columns of a prompt file
LABELS_FILE = "labels.safetensors"
FOLDS = 10  # of the names that prompts are told apart by
SURE = 0.7  # from this probability on one class is told; 57% of the studio's captions, of them 90% right


class Head(NamedTuple):
    """The classes of one label in alphabetical order, and the layer (P, D) -> (P, C) that tells them."""

    classes: tuple[str, ...]
    layer: nn.Linear


class Labels:
    """Tells the labels of prompts; kept beside the policy that reads them."""

    def __init__(
        self, heads: Mapping[str, Head], backbone: str, apart: Mapping[str, Mapping[str, Sequence[str]]]
    ) -> None:
        """heads: by label. backbone: a name of `TextEncoder.load`. apart: what is told, by label, of the
        prompts that the heads were fitted on, by the hash of their text."""
        self.heads, self.backbone, self.apart = dict(heads), backbone, dict(apart)

    @classmethod
    def fit(cls, prompts: Sequence[Prompt], backbone: str) -> Labels:
        """The labels that differ among the prompts."""
        features_PD = TextEncoder.load(backbone).encode([prompt.text for prompt in prompts])
        names = [prompt.name or prompt.text for prompt in prompts]
        heads: dict[str, Head] = {}
        apart: dict[str, dict[str, tuple[str, ...]]] = {text_hash(prompt.text): {} for prompt in prompts}
        for label in LABELS:
            told = [str(getattr(prompt, label)) for prompt in prompts]
            head = fit_head(features_PD, told)
            if len(head.classes) > 1:
                heads[label] = head
                for one, unseen in zip(apart.values(), told_apart(features_PD, told, names), strict=True):
                    one[label] = unseen
        return cls(heads, backbone, apart)

    @classmethod
    def find(cls, folder: Path) -> Labels | None:
        """Those that `save` wrote into `folder`, None where there are none."""
        file = folder / LABELS_FILE
        if not file.is_file():
            return None
        with safe_open(file, framework="pt") as content:
            heads = {}
            for label, classes in json.loads(content.metadata()["classes"]).items():
                layer = _layer(len(classes))
                state = {name: content.get_tensor(f"{label}.{name}") for name in ("weight", "bias")}
                layer.load_state_dict(state)
                heads[label] = Head(tuple(classes), layer)
            return cls(heads, content.metadata()["backbone"], json.loads(content.metadata()["apart"]))

    def save(self, folder: Path) -> None:
        """Write `labels.safetensors`."""
        tensors = {
            f"{label}.{name}": tensor
            for label, head in self.heads.items()
            for name, tensor in head.layer.state_dict().items()
        }
        classes = {label: head.classes for label, head in self.heads.items()}
        told = {
            "classes": json.dumps(classes),
            "backbone": self.backbone,
            "apart": json.dumps(self.apart),
        }
        save_file(tensors, folder / LABELS_FILE, metadata=told)

    def of(self, prompt: str) -> dict[str, tuple[str, ...]]:
        """By label the likeliest class, and the second where that is not `SURE`, as told by what has not
        learned from the prompt."""
        if (apart := self.apart.get(text_hash(prompt))) is not None:
            return {label: tuple(told) for label, told in apart.items()}
        with torch.inference_mode():
            features_1D = TextEncoder.load(self.backbone).encode([prompt])
            return {label: likeliest(head, features_1D)[0] for label, head in self.heads.items()}


def likeliest(head: Head, features_PD: Tensor) -> list[tuple[str, ...]]:
    """Of each prompt the likeliest class, and the second where that is not `SURE`."""
    best_PC = head.layer(features_PD).softmax(-1).topk(min(2, len(head.classes)))
    return [
        tuple(head.classes[place] for place in places[: 1 if first >= SURE else 2])
        for (first, *_), places in zip(best_PC.values.tolist(), best_PC.indices.tolist(), strict=True)
    ]


def told_apart(features_PD: Tensor, told: Sequence[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """The `likeliest` of each prompt by what the prompts of other names tell (in `FOLDS` parts)."""
    fold_P = np.array([int(share(name, "labels") * FOLDS) for name in names])
    classes_P: list[tuple[str, ...]] = [()] * len(told)
    for fold in np.unique(fold_P):
        mine = fold_P == fold
        others = mine if mine.all() else ~mine  # one name alone tells itself
        head = fit_head(features_PD[others], [told[place] for place in np.flatnonzero(others).tolist()])
        for place, classes in zip(np.flatnonzero(mine), likeliest(head, features_PD[mine]), strict=True):
            classes_P[place] = classes
    return classes_P


def fit_head(features_PD: Tensor, told: Sequence[str]) -> Head:
    """What tells the classes from prompt features (P, D); its layer is not to be trained.

    told: the class of each prompt, "" where nothing tells. With one alone, C is 1 and all prompts are of it.
    """
    from sklearn.linear_model import LogisticRegression  # a second of import, which only fitting needs

    named = [place for place, name in enumerate(told) if name] or list(range(len(told)))
    features_PD = features_PD[named]
    classes, class_P = np.unique([told[place] for place in named], return_inverse=True)
    layer = _layer(len(classes))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    if len(classes) > 1:
        fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(features_PD.numpy(), class_P)
        rows = len(fitted.coef_)  # of two classes sklearn gives the logit of the second alone
        layer.weight[-rows:] = torch.from_numpy(fitted.coef_).float()
        layer.bias[-rows:] = torch.from_numpy(fitted.intercept_).float()
    return Head(tuple(map(str, classes)), layer)


def _layer(classes: int) -> nn.Linear:
    return nn.Linear(WIDTH, classes).requires_grad_(False)
