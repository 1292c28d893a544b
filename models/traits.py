"""What of a prompt a word's worth may depend on: its category, and how what it asks for should look.

Shape legend: P prompts, N rows, D = 384 sentence features, C categories, S styles, Q traits: C + S, or
C + LEADING where no prompt says its style.

Prompts that are labelled with both teach what tells either. Where a prompt file has no styles, the leading
principal components of its sentence features stand for them: styles and ways to phrase are what sentence
features differ in most. Labels tell better which checkpoint suits a prompt (docs/EXPERIMENTS.md, 33).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..datasets.prompts import Prompt
from .labels import fit_head
from .text import WIDTH, TextEncoder

LEADING = 8  # of the studio's prompts they tell four fifths of the style's variance (docs/EXPERIMENTS.md, 28)
SPREAD = 0.3  # deviation of each over the prompts, about that of a category's share


class Traits(nn.Module):
    """Prompt features (N, D) -> traits (N, Q), each about zero on average; not to be trained."""

    def __init__(self, categories: int, styles: int = 0) -> None:
        """styles: 0 where none is labelled."""
        super().__init__()
        self.styles = styles
        self.category = nn.Linear(WIDTH, categories)
        self.look = nn.Linear(WIDTH, styles or LEADING)
        self.requires_grad_(False)

    @property
    def count(self) -> int:
        """Q."""
        return self.category.out_features + self.look.out_features

    def forward(self, prompts_ND: Tensor) -> Tensor:
        look_NS = self.look(prompts_ND)
        if self.styles:
            look_NS = _shares(look_NS)
        return torch.cat([_shares(self.category(prompts_ND)), look_NS], dim=1)


def prompt_traits(prompts: Sequence[Prompt], encoder: TextEncoder) -> Traits:
    """The traits of prompts like these; few prompts have fewer leading directions."""
    features_PD = encoder.encode([prompt.text for prompt in prompts])
    category = fit_head(features_PD, [prompt.category for prompt in prompts])
    style = fit_head(features_PD, [prompt.style for prompt in prompts])
    styles = len(style.classes) if len(style.classes) > 1 else 0
    traits = Traits(len(category.classes), styles)
    traits.category = category.layer
    traits.look = style.layer if styles else _leading(features_PD)
    return traits


def _shares(logits_NC: Tensor) -> Tensor:
    """What each class is likely, less what it would be by chance."""
    return logits_NC.softmax(-1) - 1 / logits_NC.shape[1]


def _leading(features_PD: Tensor) -> nn.Linear:
    """Principal components, scaled to deviate by SPREAD; zero past the directions there are."""
    layer = nn.Linear(WIDTH, LEADING).requires_grad_(False)
    features_PD = features_PD.double()
    mean_D = features_PD.mean(0)
    _, size_L, axis_LD = torch.linalg.svd(features_PD - mean_D, full_matrices=False)
    told = size_L[:LEADING] > 1e-6
    deviation_L = size_L[:LEADING][told] / len(features_PD) ** 0.5
    scaled_LD = axis_LD[:LEADING][told] * (SPREAD / deviation_L).unsqueeze(1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    layer.weight[: len(scaled_LD)] = scaled_LD.float()
    layer.bias[: len(scaled_LD)] = -(scaled_LD @ mean_D).float()
    return layer
