"""Draws pairs of pictures that the scorers must put in order: `renders.webp` and `renders.json` in a folder.

    python benchmarks/scorer_pairs.py --out tests/data    # for test_scorers.py and bench_scorers.py

A row of 3 steps above a row of 20 of the same prompts, seeds and checkpoints, on the studio's engine with
ComfyUI's default graph and cfg, 8. Each prompt, of the test split, has the checkpoint for its style and
category.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import script
from PIL import Image

from flowtailor.actors.comfy import EngineConfig, engine
from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import Prompt, choose_prompts, load_prompts
from flowtailor.studio.recipe import CHECKPOINTS

STEPS, CFG, SIDE = (3, 20), 8.0, 128


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=80)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the two files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    prompts, plain = choose_prompts(load_prompts(), {"test": args.pairs}), load_seed_flows()["plain"]
    sheet = np.zeros((len(STEPS) * SIDE, len(prompts) * SIDE, 3), np.uint8)
    with engine(EngineConfig()) as client:
        for column, prompt in enumerate(prompts):
            for row, steps in enumerate(STEPS):
                flow = plain.with_values(ckpt_name=f"{checkpoint(prompt)}.ckpt", steps=steps, cfg=CFG)
                png = client.render(flow.bind(prompt.text, column).to_api(), 60).png
                place = sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
                place[:] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    Image.fromarray(sheet).save(args.out / "renders.webp", quality=92, method=6)
    (args.out / "renders.json").write_text(json.dumps([prompt.text for prompt in prompts], indent=1) + "\n")


def checkpoint(prompt: Prompt) -> str:
    """The one that draws the prompt's style; in 3d, which most do, the one that learned its category most."""
    if prompt.style != "3d":
        return {"line": "ink", "pixel": "sprite"}.get(prompt.style, "general")
    own = [name for name, model in CHECKPOINTS.items() if prompt.category in (model.categories or ())]
    return own[0] if own else "general"


if __name__ == "__main__":
    main()
