"""Rows of a collection with made-up scores: the length of a design is its score. For tests only."""

from __future__ import annotations

import random

import pandas as pd

from flowtailor.pipelines.config import Config
from flowtailor.workflows.grammar import Grammar
from flowtailor.workflows.space import Space

ENGINE = "comfyui-0.3.75"
SCORERS = tuple(Config().scorers.weights)
PROMPTS = ("a red apple", "an owl", "a taco", "a castle", "a whale")


def tiny_rows(space: Space, per_prompt: int = 6) -> pd.DataFrame:
    """Random designs for four training prompts and a test prompt; longer ones are better and slower."""
    grammar, rng = Grammar(space, max_tokens=32), random.Random(0)
    rows = []
    for prompt in PROMPTS:
        for _ in range(per_prompt):
            words = [grammar.vocabulary[i] for i in grammar.sample(rng)[:-1]]
            rows.append(
                {
                    "row_id": str(len(rows)),
                    "prompt": prompt,
                    "prompt_split": "test" if prompt == PROMPTS[-1] else "train",
                    "workflow_split": "train",
                    "tokens": " ".join(words),
                    "seconds": len(words) / 20,
                    **{f"score_{name}": len(words) / 32 for name in SCORERS},
                    "engine": ENGINE,
                    "error_type": None,
                    "created_at": "2026-01-01T00:00:00+00:00",
                }
            )
    return pd.DataFrame(rows)
