"""`flowtailor studio train`: each part is made once; on made-up pictures and a thousandth of the steps."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_pictures import tiny_pictures

from flowtailor.datasets.pictures import Pictures
from flowtailor.errors import FlowtailorError
from flowtailor.pipelines import scorer_train, studio_train
from flowtailor.pipelines.studio_train import StudioTraining, train_studio
from flowtailor.studio.recipe import CHECKPOINTS, LORAS, OWN, POOLS
from flowtailor.studio.upscaler import Upscaler

CATEGORIES = ("animals", "food", "faces", "objects")  # one for each specialist


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """What the registry would give, in categories that the specialists know."""
    (tmp_path / "pictures").mkdir()
    made = tiny_pictures(tmp_path / "pictures")
    subjects = [replace(s, category=CATEGORIES[i % len(CATEGORIES)]) for i, s in enumerate(made.subjects)]
    few = Pictures(tmp_path / "pictures", subjects)
    monkeypatch.setattr(studio_train, "load_pictures", lambda root, echo: few)
    return few


def test_a_part_that_is_there_is_not_made_again(tmp_path: Path, pictures: Pictures):
    out, said = tmp_path / "out", []
    train_studio(out, only=["upscaler"], share=0.001, echo=said.append)
    path = out / "weights" / "upscale_models" / "studio_x2.safetensors"
    Upscaler.load(path)
    written = path.stat().st_mtime_ns
    train_studio(out, only=["upscaler"], share=0.001, echo=said.append)
    assert path.stat().st_mtime_ns == written
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (out / "weights" / "SHA256SUMS").read_text() == f"{digest}  upscale_models/studio_x2.safetensors\n"


def test_a_wrong_part_and_other_settings_are_refused(tmp_path: Path):
    with pytest.raises(FlowtailorError, match=r"no part 'genral'; name some of vae, text_encoder, general"):
        train_studio(tmp_path, only=["genral"], share=0.5)
    with pytest.raises(FlowtailorError, match="give another --out"):
        train_studio(tmp_path, only=[], share=0.25)


def test_every_plan_starts_from_a_checkpoint_that_is_made_before():
    made: list[str | None] = [None]
    for name, plan in (CHECKPOINTS | LORAS).items():
        assert plan.start in made
        made.append(name)


def test_every_plan_finds_its_styles_among_the_scenes_of_each_size():
    for name, plan in (CHECKPOINTS | LORAS).items():
        for size in plan.sizes:
            shown = [style for style, share in (plan.styles or POOLS[size]).items() if share]
            assert set(shown) & set(POOLS[size]), f"{name}: no scene of {size} px has one of {shown}"


def test_a_specialist_is_shown_mostly_its_own(pictures: Pictures):
    weights = CHECKPOINTS["kitchen"].weights(pictures.subjects)
    own = np.array([subject.category == "food" for subject in pictures.subjects])
    assert weights is not None
    assert weights[own].sum() == pytest.approx(OWN)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_parts_are_made(tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch):
    few = {128: {"3d": 1, "flat": 1, "line": 1, "pixel": 1}, 192: {"3d": 1}, 256: {"3d": 1}}
    monkeypatch.setattr(studio_train, "POOLS", few)
    monkeypatch.setattr(scorer_train, "REAL_PICTURES", 32)
    monkeypatch.setattr(scorer_train, "RENDERED_PROMPTS", len(CHECKPOINTS))
    monkeypatch.setattr(scorer_train, "BANK_GROUPS", 64_000)  # a thousandth of them
    train_studio(tmp_path / "out", share=0.001)
    weights = tmp_path / "out" / "weights"
    listed = {line.split()[1] for line in (weights / "SHA256SUMS").read_text().splitlines()}
    assert listed == {
        "vae.safetensors",
        "text_encoder.pt",
        "upscale_models/studio_x2.safetensors",
        "diffusion/general.safetensors",
        *(f"diffusion/{name}.npz" for name, plan in CHECKPOINTS.items() if plan.start),
        *(f"loras/{name}.safetensors" for name in LORAS),
    }
    for name in ("alignment", "held_out_alignment", "fidelity"):
        assert load_file(tmp_path / "out" / "scorers" / f"{name}.safetensors")
    training = StudioTraining(tmp_path / "out", seed=0, device="cpu", share=0.001, echo=print)
    assert set(training.parts()) >= {*CHECKPOINTS, *LORAS}
