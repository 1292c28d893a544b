"""How well pictures fit the captions that they were drawn for, by checkpoint: the tables of studio_models.py.

Shape legend: C checkpoints, S seeds, P prompts.

Told by the alignment scorer and by the one that is held out of all training, beside real pictures, which say
what a scorer can see at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from flowtailor.datasets.pictures import Pictures
from flowtailor.datasets.prompts import Prompt
from flowtailor.datasets.recolour import COLOURS
from flowtailor.datasets.scenes import Scene, caption, draw
from flowtailor.markdown import markdown_table
from flowtailor.models.scorers import Alignment, HeldOutAlignment
from flowtailor.pipelines.statistics import bootstrap_mean

SCORERS = (Alignment, HeldOutAlignment)
Drawn = list[list[Image.Image]]  # by one checkpoint: of each seed, of each prompt


def recognition(drawn: Mapping[str, Drawn], real: list[Image.Image], prompts: Sequence[Prompt]) -> str:
    """A table line for each checkpoint, the best for each prompt, and real pictures."""
    texts = [prompt.text for prompt in prompts]
    own = np.arange(len(texts))
    lines: dict[str, list[str]] = {name: [] for name in [*drawn, "best for the prompt", "real"]}
    preferred = preferences(drawn, texts)
    for scorer in (build() for build in SCORERS):

        def right(images: list[Image.Image], scorer=scorer) -> np.ndarray:
            return scorer.cosines(images, texts).argmax(1).numpy() == own

        found = {name: np.stack([right(of_seed) for of_seed in one]) for name, one in drawn.items()}
        table_CSP = np.stack([*found.values()])
        # What one seed prefers is measured on the next one.
        best_SP = np.stack([table_CSP[preferred[s - 1], s, own] for s in range(table_CSP.shape[1])])
        for name, right_SP in [*found.items(), ("best for the prompt", best_SP)]:
            lines[name].append(told(right_SP.mean(0)))
        lines["real"].append(told(right(real).astype(float)))
    for name, cells in lines.items():
        cells.append(f"{seed_distance(drawn[name]):.2f}" if name in drawn else "")
    head = ["checkpoint", "recognised", "by the held-out scorer", "seeds"]
    return markdown_table(head, [[name, *cells] for name, cells in lines.items()], "lrrr")


def preferences(drawn: Mapping[str, Drawn], texts: Sequence[str]) -> np.ndarray:
    """(S, P): the checkpoint whose picture the alignment scorer likes best, for each seed and prompt."""
    scorer = Alignment()
    scores_CSP = np.array(
        [[scorer.cosines(of_seed, texts).diagonal().tolist() for of_seed in one] for one in drawn.values()]
    )
    return scores_CSP.argmax(0)


def by_category(drawn: Mapping[str, Drawn], prompts: Sequence[Prompt]) -> str:
    scorer, texts = Alignment(), [prompt.text for prompt in prompts]
    category_P = np.array([prompt.category for prompt in prompts])
    score_CP = np.array(
        [np.mean([scorer.score(of_seed, texts) for of_seed in one], axis=0) for one in drawn.values()]
    )
    lines = []
    for category in sorted(set(category_P)):
        mean_C = score_CP[:, category_P == category].mean(1)
        cells = [f"**{mean:.2f}**" if mean == mean_C.max() else f"{mean:.2f}" for mean in mean_C]
        lines.append([category, str((category_P == category).sum()), *cells])
    return markdown_table(["category", "prompts", *drawn], lines, "lr" + "r" * len(drawn))


def told(right_P: np.ndarray) -> str:
    """A share with its interval over prompts."""
    return bootstrap_mean(right_P).told("{:.0%}")


def seed_distance(drawn: Drawn) -> float:
    """Between two seeds of a prompt, over that between two prompts of a seed."""
    first, second = (np.stack([np.asarray(p, float) for p in of_seed]) for of_seed in drawn[:2])
    seeds = np.abs(first - second).mean()
    prompts = np.mean(
        [np.abs(first - np.roll(first, turn, 0)).mean() for turn in range(1, min(12, len(first)))]
    )
    return float(seeds / prompts)


def specials(
    pictures: Pictures,
    scenes: Mapping[str, Scene],
    drawn: Mapping[str, Mapping[str, Drawn]],
    coloured: Sequence[Prompt],
    counted: Sequence[Prompt],
) -> str:
    """How often the colour or number that was asked for is the one that is seen."""
    kinds: list[tuple[str, Sequence[Prompt], Callable[[Scene], list[Scene]]]] = [
        ("coloured", coloured, lambda scene: [replace(scene, colour=name) for name in COLOURS]),
        ("counted", counted, lambda scene: [replace(scene, count=n) for n in (1, 2, 3)]),
    ]
    lines: dict[str, list[str]] = {}
    for kind, prompts, others in kinds:
        asked = [scenes[prompt.text] for prompt in prompts]
        captions = [
            [caption(pictures, other, np.random.default_rng(i)) for other in others(scene)]
            for i, scene in enumerate(asked)
        ]
        right = [others(scene).index(scene) for scene in asked]
        real = [reality(pictures, scene) for scene in asked]
        shown = {**{name: one[0] for name, one in drawn[kind].items()}, "real": real}
        for name, images in shown.items():
            seen = [told(told_apart(build(), images, captions, right)) for build in SCORERS]
            lines.setdefault(name, []).extend(seen)
    head = ["checkpoint", "colour", "held-out scorer", "number", "held-out scorer"]
    return markdown_table(head, [[name, *cells] for name, cells in lines.items()], "lrrrr")


def told_apart(
    scorer: Alignment | HeldOutAlignment,
    images: Sequence[Image.Image],
    captions: Sequence[Sequence[str]],
    right: Sequence[int],
) -> np.ndarray:
    """(P,): whether the right one of its captions is the nearest to each picture."""
    nearest = [
        int(scorer.cosines([image], texts).argmax()) for image, texts in zip(images, captions, strict=True)
    ]
    return (np.array(nearest) == np.array(right)).astype(float)


def reality(pictures: Pictures, scene: Scene) -> Image.Image:
    """The drawing that the prompt was made from."""
    return Image.fromarray(draw(pictures, scene, 128, np.random.default_rng([scene.subject, 9])))
