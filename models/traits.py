"""What of a prompt a word's worth may depend on: its category, and where it lies in what sets prompts apart.

Shape legend: P prompts, N rows, D = 384 sentence features, C categories, Q = C + LEADING traits.

Categories are labelled, and say what is asked for. Nobody labels how it is asked for: styles and ways to
phrase are what sentence features differ in most, so their leading principal components tell them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .categories import category_layer
from .text import WIDTH, TextEncoder

LEADING = 8  # of the studio's prompts they tell four fifths of the style's variance (docs/EXPERIMENTS.md, 28)
SPREAD = 0.3  # deviation of each over the prompts, about that of a category's share


class Traits(nn.Module):
    """Prompt features (N, D) -> traits (N, Q), each about zero on average; not to be trained."""

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.category = nn.Linear(WIDTH, categories)
        self.leading = nn.Linear(WIDTH, LEADING)
        self.requires_grad_(False)

    @property
    def count(self) -> int:
        """Q."""
        return self.category.out_features + LEADING

    def forward(self, prompts_ND: Tensor) -> Tensor:
        shares_NC = self.category(prompts_ND).softmax(-1)
        return torch.cat([shares_NC - 1 / shares_NC.shape[1], self.leading(prompts_ND)], dim=1)


def prompt_traits(labelled: Mapping[str, str], encoder: TextEncoder) -> Traits:
    """The traits of prompts like these (labelled: prompt -> category); few prompts have fewer directions."""
    features_PD = encoder.encode(list(labelled))
    category = category_layer(features_PD, list(labelled.values()))
    traits = Traits(category.out_features)
    traits.category = category
    features_PD = features_PD.double()
    mean_D = features_PD.mean(0)
    _, size_L, axis_LD = torch.linalg.svd(features_PD - mean_D, full_matrices=False)
    told = size_L[:LEADING] > 1e-6
    deviation_L = size_L[:LEADING][told] / len(features_PD) ** 0.5
    scaled_LD = axis_LD[:LEADING][told] * (SPREAD / deviation_L).unsqueeze(1)
    for parameter in traits.leading.parameters():
        nn.init.zeros_(parameter)
    traits.leading.weight[: len(scaled_LD)] = scaled_LD.float()
    traits.leading.bias[: len(scaled_LD)] = -(scaled_LD @ mean_D).float()
    return traits
