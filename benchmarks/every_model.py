"""Does another ComfyUI draw with the studio's models? One picture with each checkpoint, LoRA and upscaler.

    python benchmarks/every_model.py --out runs/every-model ~/ComfyUI -- --cpu

The studio's models are linked into the checkout's `models` folder, where the links stay; what stands behind
`--` are its arguments. Prints a line for each model, and writes the pictures to OUT.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import script

from flowtailor.actors.comfy import EngineConfig, engine, engine_name
from flowtailor.datasets.flows import load_seed_flows
from flowtailor.errors import told_in_one_line
from flowtailor.studio.install import install
from flowtailor.workflows.graph import Workflow

FLOWS = {"checkpoints": "plain", "loras": "lora", "upscale_models": "model_upscale"}
INPUTS = {"checkpoints": "ckpt_name", "loras": "lora_name", "upscale_models": "model_name"}


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT", help="the folder with main.py")
    parser.add_argument("--out", type=Path, default=Path("runs/every-model"), metavar="DIR")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="of main.py")
    given = parser.parse_args()
    link_models(given.checkout)
    given.out.mkdir(parents=True, exist_ok=True)
    config = EngineConfig(kind="checkout", path=given.checkout, args=tuple(given.arguments))
    with engine(config) as client:
        print(engine_name(config, client), flush=True)
        for name, flow in flows():
            drawn = client.render(flow.bind("a red apple", 1).to_api(), config.render_timeout_s)
            (given.out / f"{name}.png").write_bytes(drawn.png)
            print(f"{name}: {drawn.width} x {drawn.height}, {drawn.seconds:.2f} s", flush=True)


def link_models(checkout: Path) -> None:
    """Show the studio's models to a checkout; files that it has are left alone."""
    for model in install().models.rglob("*.*"):
        place = checkout / "models" / model.parent.name / model.name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(model)


def flows() -> Iterator[tuple[str, Workflow]]:
    """A workflow with each model, by the model's name: a seed workflow with another model in it."""
    for model in sorted(install().models.rglob("*.*")):
        kind = model.parent.name
        yield model.name, load_seed_flows()[FLOWS[kind]].with_values(**{INPUTS[kind]: model.name})


if __name__ == "__main__":
    with told_in_one_line("models"):
        main()
