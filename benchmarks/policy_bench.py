"""What the benchmarks of the policy share: the real backbone with the studio's words, untrained."""

from __future__ import annotations

from pathlib import Path

import torch

from flowtailor.models.constrained import AllowedMasks
from flowtailor.models.policy import Policy
from flowtailor.models.weights import resolve
from flowtailor.precision import compute_dtype
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.space import Space

PROMPTS = ("a red apple", "an owl with big eyes", "a castle", "a slice of pizza on a white plate")
CATALOG = Path(__file__).parent.parent / "tests/data/object_info.0.3.75.json.gz"
MAX_WORDS = 24  # about what a trained policy writes; an untrained one would ramble on


def studio_masks() -> tuple[AllowedMasks, Space]:
    """The grammar of the studio's space on ComfyUI 0.3.75."""
    space = Space.default(Catalog.load(CATALOG))
    return AllowedMasks(Grammar(space, max_tokens=MAX_WORDS), len(space.vocabulary)), space


def random_policy(space: Space) -> Policy:
    """SmolLM2-135M with the space's words and a LoRA adapter "default" that does change something."""
    torch.manual_seed(0)
    policy = Policy.from_base(resolve("smollm2-135m-instruct"), space.vocabulary, compute_dtype())
    policy.add_adapter(16)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    return policy
