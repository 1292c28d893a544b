"""The dataset card: what a folder of rows holds, as Markdown for its `README.md`.

Its front matter is Hugging Face's: `datasets.load_dataset("runs/NAME/dataset")` reads the rows, and the
folder can be uploaded as it is. `image` is the picture's path within the folder, null where
a row was taken over from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from flowtailor.markdown import markdown_table

from .rows import score_columns

FRONT_MATTER = """---
license: {license}
task_categories:
- text-to-image
tags:
- comfyui
configs:
- config_name: default
  data_files: {files}
---"""
PARTS = "rows/*.parquet"  # of a `Store`
STUDIO_LICENCES = (
    "MIT for the pictures, whose models were trained on Fluent emoji (MIT); "
    "the engine that drew them is ComfyUI (GPL-3.0), a program of its own"
)
WITH_PICTURES = "Read all parts in `rows/` together and keep one row per `row_id`; pictures are in `images/`."


def dataset_card(
    frame: pd.DataFrame,
    *,
    name: str,
    license: str,
    facts: Mapping[str, str] | None = None,
    files: str = PARTS,
) -> str:
    """Describe rows: counts, splits, balance, engine, failures, and the spread of seconds and scores.

    `license` is Hugging Face's word for that of the pictures; `facts` are further lines of the summary, such
    as versions; `files` hold the rows.
    """
    good = frame[frame["error_type"].isna()]
    pictures = int(frame["image"].notna().sum())
    summary = {
        "Rows": f"{len(frame)} ({pictures} with a picture, {len(frame) - len(good)} failed)",
        "Prompts": f"{frame['prompt'].nunique()} in {frame['category'].nunique()} categories",
        "Workflows": str(frame["workflow_key"].nunique()),
        "Engines": ", ".join(sorted(frame["engine"].dropna().unique())) or "none",
        "Catalogs": ", ".join(sorted(frame["catalog_hash"].dropna().unique())) or "none",
        **(facts or {}),
    }
    parts = [
        FRONT_MATTER.format(license=license, files=files),
        f"# Dataset of {name}",
        "One row per (prompt, workflow, seed) that was rendered once. "
        + (WITH_PICTURES if files == PARTS else f"`{files}` holds them, without the pictures."),
        markdown_table(["", ""], summary.items()),
        "## Splits\n\nRows by prompt split (decided by the prompt) and workflow split (by the workflow).",
        _splits(frame),
        "## Balance\n\nRows of each prompt category, and words of the workflows that it has not met.",
        _balance(frame),
        "## Measurements\n\nOf the rows that did not fail.",
        _spread(good),
    ]
    if len(good) < len(frame):
        errors = frame["error_type"].value_counts().items()
        counts = [[str(name), str(count)] for name, count in errors]
        parts += ["## Failures", markdown_table(["error", "rows"], counts)]
    return "\n\n".join(parts) + "\n"


def _splits(frame: pd.DataFrame) -> str:
    counts = frame.groupby(["prompt_split", "workflow_split"]).size()
    rows = [[*map(str, key), str(count)] for key, count in counts.items() if isinstance(key, tuple)]
    return markdown_table(["prompt", "workflow", "rows"], rows)


def _balance(frame: pd.DataFrame) -> str:
    met = {
        str(category): {word for text in tokens for word in text.split()}
        for category, tokens in frame.groupby("category")["tokens"]
    }
    every = set().union(*met.values())
    rows = [
        [category, str((frame["category"] == category).sum()), f"{len(every - words)} of {len(every)}"]
        for category, words in met.items()
    ]
    return markdown_table(["category", "rows", "words not met"], rows)


def _spread(good: pd.DataFrame) -> str:
    columns = ["seconds", *score_columns(map(str, good.columns))]
    rows = []
    for column in columns:
        values = good[column].astype("float64").dropna()
        if len(values):
            quantiles = values.quantile([0.05, 0.5, 0.95])
            rows.append([column, str(len(values)), *(f"{q:.3f}" for q in quantiles)])
    return markdown_table(["column", "rows", "5%", "median", "95%"], rows)
