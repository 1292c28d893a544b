"""What a model adds: pictures of one prompt and seed by workflows that differ in it alone."""

from __future__ import annotations

import pandas as pd
from model_effects import compared, specialists

from flowtailor.workflows.space import Space

REST = "CLIPTextEncode CLIPTextEncode text=empty EmptySD3LatentImage"
PLAIN = f"VAEDecode KSampler CheckpointLoaderSimple {REST}"
TOWN = f"VAEDecode KSampler CheckpointLoaderSimple ckpt_name=town.ckpt {REST}"
LORA = f"VAEDecode KSampler LoraLoader CheckpointLoaderSimple {REST}"
TEXT_ALONE = (
    "VAEDecode KSampler CheckpointLoaderSimple CLIPTextEncode CLIPTextEncode text=empty LoraLoader "
    "EmptySD3LatentImage"
)


def rows(scores: dict[str, float], prompt: str = "a castle", style: str = "3d") -> pd.DataFrame:
    told = {"prompt": prompt, "seed": 1, "category": "places", "style": style}
    return pd.DataFrame([{**told, "tokens": tokens, "score": score} for tokens, score in scores.items()])


def test_a_model_is_compared_with_the_same_workflow_without_it(space: Space):
    drawn = rows({PLAIN: 0.5, TOWN: 0.7, LORA: 0.4, TEXT_ALONE: 0.9})
    other_seed = rows({TOWN: 0.1}).assign(seed=2)
    pairs = compared(pd.concat([drawn, other_seed], ignore_index=True), space)
    assert dict(zip(pairs["model"], pairs["gain"].round(6), strict=True)) == {
        "town": 0.2,
        "LoRA fine_detail": -0.1,
    }


def test_a_specialist_is_told_on_its_own_subjects_and_elsewhere(space: Space):
    parts = [rows({PLAIN: 0.5, TOWN: 0.6}, f"a castle {i}") for i in range(6)]
    parts += [rows({PLAIN: 0.5, TOWN: 0.2}, f"a drawn castle {i}", style="line") for i in range(6)]
    table = specialists(compared(pd.concat(parts, ignore_index=True), space))
    [town] = [line for line in table.splitlines() if line.startswith("| `town` |")]
    assert town.endswith("| +0.100 (+0.100 to +0.100), 6 | - | -0.300 (-0.300 to -0.300), 6 |")
