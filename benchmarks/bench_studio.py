"""How long an engine of the studio takes to start, and for a picture, on one core.

The plain workflow: general, 128 x 128, euler. The engine is warm, its models are loaded; each picture has
a seed of its own. A prompt that the engine has seen lately has its conditioning in the cache. Seconds are
medians; the last column is what HTTP, websocket and file transfer add.
"""

from __future__ import annotations

import argparse
import time
from itertools import count
from statistics import median

from flowtailor.actors.client import ComfyClient
from flowtailor.actors.comfy import EngineConfig, engine
from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.prompts import load_prompts
from flowtailor.markdown import markdown_table
from flowtailor.workflows.graph import Workflow

STEPS = (4, 8, 12, 20)
SEEDS = count()  # another one for each picture, or the engine would answer from its cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=7, help="of each kind (default: 7)")
    pictures = parser.parse_args().pictures
    prompts = [prompt.text for prompt in load_prompts()]
    plain = load_seed_flows()["plain"]
    flows = {steps: plain.with_values(steps=steps) for steps in STEPS}
    begun = time.monotonic()
    with engine(EngineConfig()) as client:
        ready_s = time.monotonic() - begun
        drawn(client, flows[STEPS[0]], prompts[:1])
        first_s = time.monotonic() - begun
        lines = []
        for turn, (steps, flow) in enumerate(flows.items()):
            known_s, known_wall_s = drawn(client, flow, prompts[:1] * pictures)
            new_s, _ = drawn(client, flow, prompts[1 + turn * pictures :][:pictures])
            lines.append([str(steps), f"{known_s:.2f}", f"{new_s:.2f}", f"{known_wall_s - known_s:.3f}"])
    print(f"The engine answers after {ready_s:.1f} s; its first picture is there after {first_s:.1f} s.\n")
    head = ["steps", "s, prompt seen before", "s, new prompt", "s of transfer"]
    print(markdown_table(head, lines, "rrrr"))


def drawn(client: ComfyClient, flow: Workflow, prompts: list[str]) -> tuple[float, float]:
    """Median seconds of a picture for each of the prompts: as the engine reports them, and by the clock."""
    engine_s, wall_s = [], []
    for prompt in prompts:
        begun = time.monotonic()
        engine_s.append(client.render(flow.bind(prompt, next(SEEDS)).to_api()).seconds)
        wall_s.append(time.monotonic() - begun)
    return median(engine_s), median(wall_s)


if __name__ == "__main__":
    main()
