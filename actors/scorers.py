"""The actor that looks at rendered pictures: score columns for blocks of rows.

A picture that cannot be read turns its row into an error row (`PictureUnreadable`), so that it is neither
learned from nor silently dropped; the next attempt draws a damaged one again. A scorer that fails is a
programming error and stops the job.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Sequence

import pandas as pd
from PIL import Image

from ..datasets.rows import score_column
from ..models.scorers import load_scorer
from .images import UNREADABLE, PictureUnreadable, filesystem_of

PICTURES_AT_ONCE = 32


class Scorers:
    """Callable for Ray Data's `map_batches`: loads the scorers once, scores every block."""

    def __init__(self, names: Sequence[str], images_dir: str, *, evaluation: bool = False) -> None:
        """`images_dir` is the `images` folder (path or URL) of the dataset that `image` is relative to;
        scorers that are held out are refused but for an `evaluation`."""
        self._scorers = {score_column(name): load_scorer(name, evaluation=evaluation) for name in names}
        self._fs, images = filesystem_of(images_dir)
        self._dataset = posixpath.dirname(images.rstrip("/"))

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        """Adds a `score_<name>` column per scorer; rows with an error keep nulls."""
        errors = ["error_type", "error_message"]
        rows = batch.reset_index(drop=True).astype(dict.fromkeys(errors, object))  # all null: no type yet
        for name in self._scorers:
            rows[name] = pd.Series(float("nan"), index=rows.index, dtype="float64")
        healthy = list(rows.index[rows["error_type"].isna()])
        for start in range(0, len(healthy), PICTURES_AT_ONCE):
            self._score(rows, healthy[start : start + PICTURES_AT_ONCE])
        return rows

    def _score(self, rows: pd.DataFrame, places: list[int]) -> None:
        """Fill in the scores of the rows at `places`, or the error of those without a picture."""
        images: dict[int, Image.Image] = {}
        for i in places:
            try:
                images[i] = self._open(str(rows.at[i, "image"]))
            except UNREADABLE as error:
                told = f"{type(error).__name__}: {error}"[:500]
                rows.loc[i, ["error_type", "error_message"]] = [PictureUnreadable.__name__, told]
        if not images:
            return
        prompts = [str(rows.at[i, "prompt"]) for i in images]
        for name, scorer in self._scorers.items():
            rows.loc[list(images), name] = scorer.score(list(images.values()), prompts)

    def _open(self, image: str) -> Image.Image:
        with self._fs.open_input_file(f"{self._dataset}/{image}") as stream:
            return Image.open(io.BytesIO(stream.read())).convert("RGB")
