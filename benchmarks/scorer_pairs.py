"""Draws tests/data/renders.webp again: pairs of pictures that the scorers must put in order.

    python benchmarks/scorer_pairs.py

A row of 3 steps above a row of 20 of the same prompts, seeds and checkpoints, on the studio's engine with
ComfyUI's default graph and cfg, 8. Each prompt, of the test split, has the checkpoint of its category.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from flowtailor.actors.comfy import EngineConfig, engine
from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import Prompt, choose, load_prompts
from flowtailor.studio.recipe import CHECKPOINTS
from flowtailor.workflows.graph import Workflow

DATA = Path(__file__).parents[1] / "tests" / "data"
PAIRS, STEPS, CFG, SIDE = 40, (3, 20), 8.0, 128


def main() -> None:
    prompts, plain = choose(load_prompts(), {"test": PAIRS}), load_seed_flows()["plain"]
    sheet = np.zeros((len(STEPS) * SIDE, PAIRS * SIDE, 3), np.uint8)
    with engine(EngineConfig()) as client:
        for column, prompt in enumerate(prompts):
            for row, steps in enumerate(STEPS):
                png = client.render(drawn_with(plain, prompt, steps, seed=column), 60).png
                place = sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
                place[:] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    Image.fromarray(sheet).save(DATA / "renders.webp", quality=92, method=6)
    (DATA / "renders.json").write_text(json.dumps([prompt.text for prompt in prompts], indent=1) + "\n")


def drawn_with(flow: Workflow, prompt: Prompt, steps: int, seed: int) -> dict:
    """The flow in API form with the checkpoint of the prompt's category, so many steps and the cfg."""
    api = flow.bind(prompt.text, seed).to_api()
    for node in api.values():
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"steps": steps, "cfg": CFG}
        elif node["class_type"] == "CheckpointLoaderSimple":
            node["inputs"]["ckpt_name"] = f"{specialist(prompt.category)}.ckpt"
    return api


def specialist(category: str) -> str:
    """The checkpoint that learned this category more than others."""
    own = [name for name, model in CHECKPOINTS.items() if category in (model.categories or ())]
    return own[0] if own else "general"


if __name__ == "__main__":
    main()
