"""Which category a prompt is of, told from its sentence features: logistic regression on labelled prompts.

Shape legend: P prompts, D = 384 sentence features, C categories.

Sentence features tell style and phrasing before they tell subjects; what a category has in common takes
far more prompts to find out than are rendered, and labels are free.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from .text import WIDTH, TextEncoder

INVERSE_PENALTY = (
    10.0  # on captions of names that were left out, the likeliest of six; 72% of ten categories right
)


def category_layer(labelled: Mapping[str, str], encoder: TextEncoder) -> nn.Linear:
    """Prompt features (P, D) -> logits (P, C) of the categories in alphabetical order; not to be trained.

    labelled: prompt -> category. With one category alone, C is 1 and all prompts are of it.
    """
    names, category_P = np.unique(list(labelled.values()), return_inverse=True)
    layer = nn.Linear(WIDTH, len(names)).requires_grad_(False)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    if len(names) > 1:
        features_PD = encoder.encode(list(labelled)).numpy()
        fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(features_PD, category_P)
        told = len(fitted.coef_)  # of two categories sklearn gives the logit of the second alone
        layer.weight[-told:] = torch.from_numpy(fitted.coef_).float()
        layer.bias[-told:] = torch.from_numpy(fitted.intercept_).float()
    return layer
