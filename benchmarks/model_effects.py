"""What the studio's checkpoints and LoRAs add, for which subjects and styles: from the rows that ship.

    python benchmarks/model_effects.py          # prints the tables; studio_models.py puts them on its page

Compared are pictures of one prompt and seed by two workflows of which one has the model and the other has
`general` in its place, or no LoRA, and which are the same otherwise. The score is of alignment and fidelity,
5 to 3, which all rows have.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from flowtailor.datasets.prompts import labelled, load_prompts
from flowtailor.datasets.rows import weighted_score
from flowtailor.datasets.shipped import read_rows
from flowtailor.markdown import markdown_table
from flowtailor.pipelines.statistics import bootstrap_mean
from flowtailor.pipelines.workflow import STUDIO_CATALOG
from flowtailor.workflows.catalog import Catalog
from flowtailor.workflows.codec import decode
from flowtailor.workflows.counterfactual import LEFT_OUT, counterfactuals
from flowtailor.workflows.space import Space

WEIGHTS = {"alignment": 5.0, "fidelity": 3.0}
PLAIN = "ckpt_name=general.ckpt"
FEWEST = 5  # prompts behind a number
OWN = {
    "kitchen": ("food",),
    "nature": ("animals", "plants"),
    "people": ("faces", "people"),
    "things": ("objects", "clothing"),
    "town": ("places", "vehicles", "activities"),
}
SUBJECTS = """\
## What a model adds

{facts} Gains in the mean of alignment and fidelity (5 to 3; not all rows have sharpness), with 95%
intervals over prompts, and the number of prompts; what fewer than {fewest} prompts tell is left out.
Specialists, where the 3d look is asked for, on their own subjects and on others, and where
another style is:"""
STYLES = "Checkpoints of a style and LoRAs, by the style that is asked for:"
CATEGORIES = "LoRAs, by what the prompt is about, where the 3d look is asked for:"


def main() -> None:
    print(effects(read_rows("studio")))


def effects(rows: pd.DataFrame) -> str:
    """The section of the page, as Markdown."""
    rows = labelled(rows.loc[rows["error_type"].isna()], load_prompts())
    pairs = compared(rows.assign(score=weighted_score(rows, WEIGHTS)), _space())
    facts = f"{len(pairs)} pairs of pictures by workflows that differ in one model (`model_effects.py`)."
    others = pairs.loc[~pairs["model"].isin(list(OWN))]
    loras = others.loc[others["model"].str.startswith("LoRA") & (others["style"] == "3d")]
    tables = {
        SUBJECTS.format(facts=facts, fewest=FEWEST): specialists(pairs),
        STYLES: by(others, "style"),
        CATEGORIES: by(loras, "category"),
    }
    return "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items() if table)


def compared(rows: pd.DataFrame, space: Space) -> pd.DataFrame:
    """A row for each pair: the model that makes the difference, prompt, category, style and gain."""
    words = [tuple(text.split()) for text in rows["tokens"].unique()]
    named = pd.DataFrame(
        [
            {"tokens": " ".join(tokens), "model": model, "without": " ".join(without)}
            for tokens in words
            for model, without in models(tokens, space)
        ]
    )
    place = ["prompt", "seed", "tokens"]
    plain = rows[[*place, "score"]].rename(columns={"tokens": "without", "score": "plain"})
    pairs = rows.merge(named, on="tokens").merge(plain, on=["prompt", "seed", "without"])
    return pairs.assign(gain=pairs["score"] - pairs["plain"])


def models(tokens: tuple[str, ...], space: Space) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The models of a workflow that can be done without, each with the workflow that does.

    None where a LoRA changes the text alone, which those of the studio leave as it is.
    """
    flow = decode(tokens, space)
    drawn_with = {link.node for node in flow.nodes.values() for _, link in node.links() if link.slot == 0}
    if any(node.class_type == "LoraLoader" and i not in drawn_with for i, node in flow.nodes.items()):
        return
    for part in counterfactuals(tokens, space):
        if part.change == PLAIN:
            yield part.component.partition("=")[2].partition(".")[0], part.tokens
        elif part.change == LEFT_OUT and part.component.startswith("LoRA "):
            yield " ".join(part.component.split()[:2]), part.tokens


def specialists(pairs: pd.DataFrame) -> str:
    lines = []
    for name, own in OWN.items():
        mine = pairs.loc[pairs["model"] == name]
        in_3d, at_home = mine["style"] == "3d", mine["category"].isin(own)
        parts = (mine[in_3d & at_home], mine[in_3d & ~at_home], mine[~in_3d])
        lines.append([f"`{name}`", ", ".join(own), *map(told, parts)])
    return markdown_table(["", "its subjects", "own", "others", "other styles"], lines, "llrrr")


def by(pairs: pd.DataFrame, column: str) -> str:
    """A line for each model of which enough prompts tell something; nothing where there is none."""
    values = sorted(pairs[column].unique())
    cells = {
        model: [told(mine.loc[mine[column] == value]) for value in values]
        for model, mine in pairs.groupby("model")
    }
    lines = [[f"`{model}`", *of_each] for model, of_each in cells.items() if set(of_each) != {"-"}]
    return markdown_table(["", *values], lines, "l" + "r" * len(values)) if lines else ""


def told(pairs: pd.DataFrame) -> str:
    """The mean gain over prompts with its interval; a dash for too few of them."""
    gain_p = pairs.groupby("prompt")["gain"].mean().to_numpy(dtype=float)
    if len(gain_p) < FEWEST:
        return "-"
    return f"{bootstrap_mean(np.asarray(gain_p)).told('{:+.3f}')}, {len(gain_p)}"


def _space() -> Space:
    return Space.default(Catalog.load(STUDIO_CATALOG))


if __name__ == "__main__":
    main()
