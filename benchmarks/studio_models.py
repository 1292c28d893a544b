"""Do the studio's checkpoints draw what a prompt says? Held-out prompts, rendered and matched to captions.

    python benchmarks/studio_models.py                      # 100 prompts, 2 seeds, every checkpoint
    python benchmarks/studio_models.py --prompts 10 --out runs/try-models

Every checkpoint draws each prompt with the plainest workflow, 20 steps. A picture is recognised if the
scorer finds its own caption nearest among those of all the prompts; real pictures of the same prompts say
what the scorer can see at all. Colours and numbers are told from the same caption with each other colour or
number. Writes OUT/models.md and a picture; at full size docs/STUDIO_MODELS.md and its picture too. The same
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import script
from model_effects import effects
from model_measures import Drawn, by_category, reality, recognition, specials
from PIL import Image

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.datasets.pictures import load_pictures
from flowtailor.datasets.prompts import Prompt, load_prompts
from flowtailor.datasets.recolour import COLOURS
from flowtailor.datasets.rows import share
from flowtailor.datasets.scenes import Scene
from flowtailor.datasets.shipped import read_rows
from flowtailor.datasets.store import Store
from flowtailor.datasets.studio_prompts import read_scenes
from flowtailor.pipelines.catalog import World, look
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.config_file import load_config
from flowtailor.pipelines.engines import render
from flowtailor.pipelines.plan import Candidate, planned_rows
from flowtailor.pipelines.renders import rendered_rows

FULL = 100  # prompts
STEPS = 20
SPECIAL = 24  # prompts that ask for a colour, and as many for a number
SHOWN = 16  # prompts in the picture
DOCS = Path(__file__).resolve().parent.parent / "docs"
INTRO = """\
# What the studio's checkpoints draw

Written by `benchmarks/studio_models.py`.

{prompts} held-out prompts about different things, each drawn by every checkpoint with the plain workflow
({steps} steps, cfg 2, euler, {seeds} seeds). *Recognised*: the caption of the picture is the nearest of all
{prompts} captions, to the alignment scorer and to the one that is held out of all training. *Real* is the
drawing that the prompt was made from. *Best for the prompt* is the checkpoint that the alignment scorer
prefers on one seed, measured on another. *Seeds*: mean pixel distance between two seeds of a prompt over that
between two prompts. Shares have 95% intervals over prompts."""
CATEGORIES = "The alignment score by what the prompt is about, over all seeds; the best of a line is bold."
SPECIALS = """\
{count} prompts that ask for a colour and {count} that ask for a number, of all splits, one seed: the caption
that was asked for against the same one with each of the {colours} colours, or with each of three numbers.
Chance is {chance:.0%} and 33%."""


def main() -> None:
    arguments = parsed()
    config = load_config(
        None, [f"run.root={json.dumps(str(arguments.out.parent))}", f"run.name={arguments.out.name!r}"]
    )
    pictures = load_pictures(arguments.pictures)
    scenes = read_scenes(pictures)
    plain, coloured, counted = chosen(scenes, arguments.prompts)
    world = look(config)
    drawn = {
        kind: rendered(config, world, arguments.out, prompts, seeds)
        for kind, prompts, seeds in (
            ("plain", plain, arguments.seeds),
            ("coloured", coloured, 1),
            ("counted", counted, 1),
        )
    }
    real = [reality(pictures, scenes[prompt.text]) for prompt in plain]
    page = [
        INTRO.format(prompts=len(plain), steps=STEPS, seeds=arguments.seeds),
        recognition(drawn["plain"], real, plain),
        "![pictures](images/studio_models.webp)",
        f"Rows from above: the checkpoints in the order of the table, then the real drawings; columns: the "
        f"first {min(SHOWN, len(plain))} prompts.",
        CATEGORIES,
        by_category(drawn["plain"], plain),
        SPECIALS.format(count=len(coloured), colours=len(COLOURS), chance=1 / len(COLOURS)),
        specials(pictures, scenes, drawn, coloured, counted),
        effects(read_rows("studio")),
    ]
    sheet = montage(drawn["plain"], real)
    write(page, sheet, arguments.out / "models.md", arguments.out / "images" / "studio_models.webp")
    if arguments.prompts >= FULL:
        write(page, sheet, DOCS / "STUDIO_MODELS.md", DOCS / "images" / "studio_models.webp")


def parsed() -> argparse.Namespace:
    parser = script.parser(__doc__)
    parser.add_argument("--prompts", type=int, default=FULL, help=f"default: {FULL}")
    parser.add_argument("--seeds", type=int, default=2, help="default: 2")
    parser.add_argument("--out", type=Path, default=Path("runs/studio-models"), metavar="DIR")
    script.add_pictures(parser)
    arguments = parser.parse_args()
    if arguments.seeds < 2 or arguments.prompts < 2:
        parser.error("--prompts and --seeds must be at least 2")
    return arguments


def chosen(scenes: Mapping[str, Scene], count: int) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """Test prompts, one for each thing; prompts of all splits that ask for a colour, or for a number."""
    prompts = sorted(load_prompts(), key=lambda prompt: share(prompt.text, "models"))
    plain = {scenes[prompt.text].subject: prompt for prompt in prompts if prompt.split == "test"}
    coloured = [prompt for prompt in prompts if scenes[prompt.text].colour]
    counted = [prompt for prompt in prompts if scenes[prompt.text].count > 1]
    special = min(SPECIAL, count)
    return [*plain.values()][:count], coloured[:special], counted[:special]


def rendered(
    config: Config, world: World, out: Path, prompts: Sequence[Prompt], seeds: int
) -> dict[str, Drawn]:
    """Every prompt by every checkpoint, with the plain workflow."""
    checkpoints = world.catalog.nodes["CheckpointLoaderSimple"].inputs["ckpt_name"].choices or ()
    flows = {name: plain_workflow(world, str(name)) for name in checkpoints}
    planned = planned_rows(
        [(prompt, flow) for prompt in prompts for flow in flows.values()],
        engine=world.engine,
        catalog_hash=world.catalog.hash,
        seeds=seeds,
        seed=config.run.seed,
    )
    store = Store(out / "rendered")
    rows = rendered_rows(
        config,
        planned,
        store,
        known=[],
        render=partial(render, label="models"),
        label=f"models: {len(prompts)} prompts, {len(flows)} checkpoints, {seeds} seeds",
    )
    rows["turn"] = rows.groupby(["prompt", "workflow_key"]).cumcount()
    paths = rows.set_index(["workflow_key", "turn", "prompt"])["image"]
    return {
        Path(str(name)).stem: [
            [opened(store, paths.loc[flow.key, turn, prompt.text]) for prompt in prompts]
            for turn in range(seeds)
        ]
        for name, flow in flows.items()
    }


def plain_workflow(world: World, checkpoint: str) -> Candidate:
    flow = load_seed_flows()["plain"].with_values(ckpt_name=checkpoint, steps=STEPS)
    return Candidate.from_flow(flow.canonical(world.catalog), world.space)


def opened(store: Store, image: str) -> Image.Image:
    with Image.open(Path(store.images_dir).parent / image) as picture:
        return picture.convert("RGB")


def montage(drawn: Mapping[str, Drawn], real: Sequence[Image.Image]) -> Image.Image:
    """A row for each checkpoint and one of real pictures, a column for each prompt."""
    rows = [one[0][:SHOWN] for one in drawn.values()] + [list(real[:SHOWN])]
    sheet = Image.new("RGB", (128 * len(rows[0]), 128 * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (128 * x, 128 * y))
    return sheet


def write(page: Sequence[str], sheet: Image.Image, markdown: Path, picture: Path) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(picture, quality=85)
    markdown.write_text("\n\n".join(page) + "\n")
    print(f"written: {markdown}, {picture}")


if __name__ == "__main__":
    main()
