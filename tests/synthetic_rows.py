"""Rows with made-up scores, a known function of prompt and workflow: for tests of the mathematics only."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd

from flowtailor.datasets.prompts import Prompt

FOODS = [
    *("apple", "pizza", "hamburger", "strawberry", "hot dog", "banana", "carrot", "lemon", "sandwich"),
    *("pancake", "cheese", "soup", "bread", "cookie", "noodles", "cherry", "taco", "potato", "salad"),
    *("pie", "pear", "croissant", "mango", "steak", "grape", "tomato", "ice cream", "peach"),
]
ANIMALS = [
    *("fox", "tiger", "dog", "cat", "horse", "owl", "penguin", "bear", "rabbit", "frog", "elephant"),
    *("lion", "sheep", "camel", "giraffe", "hamster", "goat", "eagle", "whale", "snake", "panda", "deer"),
    *("monkey", "squirrel", "wolf", "mouse", "cow", "duck"),
]
SAMPLERS = ("euler", "ddim", "lcm", "heun")


def synthetic_rows(per_prompt: int = 12, seed: int = 0) -> pd.DataFrame:
    """More steps are better; foods want euler and a LoRA, animals want ddim and none; time goes with steps.

    The last four foods and animals are test prompts, the four before them validation prompts.
    """
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    rows = []
    for category, things in (("food", FOODS), ("animal", ANIMALS)):
        for place, thing in enumerate(things):
            for _ in range(per_prompt):
                sampler, steps, lora = rng.choice(SAMPLERS), rng.choice((2, 4, 8, 16)), rng.random() < 0.5
                liked = (sampler == {"food": "euler", "animal": "ddim"}[category]) + (
                    lora == (category == "food")
                )
                tokens = f"VAEDecode KSampler steps={steps} sampler_name={sampler}" + (
                    " LoraLoader strength_model=0.8" * lora + " CheckpointLoaderSimple CLIPTextEncode"
                )
                score = 0.2 + 0.2 * liked + 0.1 * np.log2(steps) / 4 + noise.normal(scale=0.01)
                rows.append(
                    {
                        "prompt": f"a {thing}",
                        "category": category,
                        "prompt_split": ("train", "validation", "test")[
                            max(0, (place - len(things) + 12) // 4)
                        ],
                        "tokens": tokens,
                        "score_match": score,
                        "score_crisp": 0.1 * np.log2(steps) + noise.normal(scale=0.01),
                        "seconds": 0.1 * steps * (1.2 if lora else 1.0),
                    }
                )
    frame = pd.DataFrame(rows)
    held_out = frame["tokens"].isin(sorted(set(frame["tokens"]))[::6])
    return frame.assign(
        workflow_split=np.where(held_out, "test", "train"),
        workflow_key=frame["tokens"],
        row_id=[str(i) for i in range(len(frame))],
        engine="comfyui-0.3.75",
        error_type=None,
        created_at="2026-01-01T00:00:00+00:00",
    )


def synthetic_prompts(rows: pd.DataFrame) -> list[Prompt]:
    """The prompts of rows, in no style."""
    told = rows.drop_duplicates("prompt")
    return [
        Prompt(text, category, "train")
        for text, category in zip(told["prompt"], told["category"], strict=True)
    ]
