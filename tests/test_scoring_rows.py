"""The scoring actor on rows: scores for pictures, nulls for failures, broken files become errors."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from flowtailor.actors.scorers import Scorers
from flowtailor.datasets.store import Store


@pytest.fixture
def rows(tmp_path) -> pd.DataFrame:
    """A fox, a failed render, a file that is no picture, and a file that is not there."""
    images = tmp_path / "images"
    images.mkdir()
    strip = Image.open(Path(__file__).parent / "data" / "fluent_emoji_12.png")
    strip.crop((128 * 8, 0, 128 * 9, 128)).save(images / "fox.png")
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return pd.DataFrame(
        {
            "prompt": ["a fox"] * 4,
            "image": ["images/fox.png", None, "images/broken.png", "images/absent.png"],
            "error_type": [None, "ComfyRejected", None, None],
            "error_message": [None, "no", None, None],
        }
    )


def test_each_row_gets_scores_or_keeps_its_reason(rows, tmp_path):
    scored = Scorers(("alignment", "sharpness"), str(tmp_path / "images"))(rows)
    assert scored["score_alignment"].notna().tolist() == [True, False, False, False]
    assert float(scored["score_alignment"].iloc[0]) > 0.6
    assert scored["score_sharpness"].notna().tolist() == [True, False, False, False]
    assert scored["error_type"].isna().tolist() == [True, False, False, False]
    assert scored["error_type"].tolist()[1:] == ["ComfyRejected", "PictureUnreadable", "PictureUnreadable"]
    assert scored["error_message"].str.partition(":")[0].tolist()[2:] == [
        "UnidentifiedImageError",
        "FileNotFoundError",
    ]


def test_a_picture_that_cannot_be_read_is_drawn_again(rows, tmp_path):
    planned = rows.iloc[2:].assign(row_id=["broken", "absent"])
    store = Store(tmp_path)
    store.append(Scorers(("sharpness",), store.images_dir)(planned))
    assert store.missing(planned)["row_id"].tolist() == ["broken", "absent"]


def test_a_block_without_any_failure_so_far_can_get_one(rows, tmp_path):
    fresh = rows.iloc[2:].assign(error_type=None, error_message=float("nan"))
    scored = Scorers(("sharpness",), str(tmp_path / "images"))(fresh)
    assert scored["error_type"].tolist() == ["PictureUnreadable", "PictureUnreadable"]


def test_a_block_of_failures_alone_keeps_its_shape(rows, tmp_path):
    scored = Scorers(("sharpness",), str(tmp_path / "images"))(rows.iloc[1:2])
    assert scored["score_sharpness"].dtype == "float64"
    assert len(scored) == 1
