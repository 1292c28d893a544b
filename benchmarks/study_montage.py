"""The study's prompts as pictures: the best workflow, the worst one, and the drawing behind the prompt.

Best and worst are by the mean score over seeds; the picture shown is of the first seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

SIDE = 112
GAP, LINE = 10, 16
COLUMNS = 4  # prompts beside each other
PROMPTS = 48


def extremes(rows: pd.DataFrame, score: Sequence[float]) -> dict[str, tuple[str, str]]:
    """Prompt -> the row ids of its best and of its worst workflow, for the first prompts of the study."""
    drawn = rows.assign(score=score)[rows["error_type"].isna()]
    mean = drawn.groupby(["prompt", "workflow_key"])["score"].transform("mean")
    ordered = drawn.assign(mean=mean).sort_values(["prompt", "mean", "seed"], ascending=[True, False, True])
    per_prompt = list(ordered.groupby("prompt")["row_id"])[:PROMPTS]
    return {str(prompt): (ids.iloc[0], ids.iloc[-1]) for prompt, ids in per_prompt}


def montage(
    shown: Mapping[str, tuple[Image.Image, Image.Image, Image.Image]],
) -> Image.Image:
    """Three pictures for each prompt (best, worst, original) with the prompt below."""
    rows = -(-len(shown) // COLUMNS)
    width, height = 3 * SIDE + GAP, SIDE + LINE + GAP
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(findfont("DejaVu Sans"), 10)  # Pillow's own has no accents
    for place, (prompt, pictures) in enumerate(shown.items()):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        for turn, picture in enumerate(pictures):
            square = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(square, (left + turn * SIDE, top))
        pen.text((left, top + SIDE + 1), prompt, fill="black", font=font)
    return sheet
