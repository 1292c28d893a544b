"""How scorers are trained, on made-up pictures and a few steps: what counts as wrong, in order, resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_pictures import silent

from flowtailor.datasets.pictures import Pictures
from flowtailor.models.alignment import AlignmentNet, HeldOutNet, TwoTowers
from flowtailor.models.degrade import ALL, FAULTS_A, FAULTS_B, degrade, with_text
from flowtailor.models.fidelity import FidelityNet
from flowtailor.models.fidelity_fit import (
    Render,
    draw_real,
    fit_fidelity,
    order_gaps,
    ordered_pairs,
)
from flowtailor.models.scene_bank import Bank, draw_bank
from flowtailor.models.scorer_fit import (
    HURRY,
    ORDER,
    HurriedPairs,
    contrast,
    fit_alignment,
    hurry_loss,
    moved,
)
from flowtailor.studio.training import train


@pytest.fixture(scope="module")
def bank(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return draw_bank(pictures, tmp_path_factory.mktemp("bank"), groups=6, seed=0)


@pytest.mark.parametrize("kind", ALL)
def test_every_fault_keeps_the_size_and_repeats_itself(kind: str):
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    twice = [degrade(picture, kind, 0.5, np.random.default_rng(1)) for _ in range(2)]
    assert twice[0].shape == picture.shape and twice[0].dtype == np.uint8
    assert np.array_equal(twice[0], twice[1])
    assert not np.array_equal(twice[0], picture)


def test_text_is_drawn_in():
    plain = np.full((64, 64, 3), 255, np.uint8)
    assert (with_text(plain, "a red apple", np.random.default_rng(0)) < 128).any()


def test_pairs_that_hold_too_are_no_mistakes():
    similar = torch.tensor([[9.0, 9.0], [0.0, 9.0]])
    assert contrast(similar, torch.tensor([[True, True], [False, True]])) < 0.01
    assert contrast(similar, torch.eye(2).bool()) > 0.3


def test_about_half_of_the_pictures_move_whole_pixels_and_a_twin_as_its_picture():
    noise = torch.rand(16, 3, 32, 32, generator=torch.manual_seed(0))
    seen = moved(torch.cat([noise, noise[:4]]), 16, 4, np.random.default_rng(0))
    assert torch.equal(seen[:4], seen[16:])
    values = [set(picture.flatten().tolist()) for picture in noise.mul(1e4).round()]
    as_they_were = [
        {*one.flatten().tolist()} <= own for one, own in zip(seen[:16].mul(1e4).round(), values, strict=True)
    ]
    assert 4 <= sum(as_they_were) <= 12


def pairs_of(hurried: np.ndarray, careful: np.ndarray) -> HurriedPairs:
    return HurriedPairs(hurried, careful, torch.randn(len(hurried), 384, generator=torch.manual_seed(0)))


def test_a_hurried_render_must_lie_further_from_its_prompt():
    torch.manual_seed(0)
    net = HeldOutNet().eval()
    noise = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    grey = np.full_like(noise, 128)

    def loss(hurried: np.ndarray, careful: np.ndarray) -> float:
        with torch.no_grad():
            return float(hurry_loss(net, pairs_of(hurried, careful), 4, np.random.default_rng(0), "cpu"))

    assert loss(grey, grey) == pytest.approx(ORDER * HURRY, rel=1e-3)  # alike is not good enough
    one_way, other_way = loss(noise, grey), loss(grey, noise)
    assert max(one_way, other_way) > ORDER * HURRY
    assert one_way + other_way >= 2 * ORDER * HURRY - 1e-3


@pytest.mark.parametrize(
    ("kind", "faults", "hurried"), [(AlignmentNet, FAULTS_A, False), (HeldOutNet, FAULTS_B, True)]
)
def test_a_resumed_fit_ends_as_an_uninterrupted_one(
    kind: type[TwoTowers], faults: dict, hurried: bool, bank: Bank, tmp_path: Path
):
    pairs = pairs_of(bank.pixels[:4], bank.pixels[4:8]) if hurried else None

    def fresh() -> TwoTowers:
        torch.manual_seed(0)
        return kind()  # pyright: ignore[reportCallIssue]

    options = {"train": train, "name": "net", "seed": 1, "batch": 8, "pairs": pairs, "echo": silent}

    def stopped_at_2(step, net, **given):
        def stopped(i: int):
            if i == 2:
                raise KeyboardInterrupt
            return step(i)

        train(stopped, net, save_every_s=0, **given)

    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    fit_alignment(fresh(), bank, [*faults], whole, steps=3, out=tmp_path / "a", **options)
    with pytest.raises(KeyboardInterrupt):
        stopped = {**options, "train": stopped_at_2}
        fit_alignment(fresh(), bank, [*faults], resumed, steps=3, out=tmp_path / "b", **stopped)
    fit_alignment(fresh(), bank, [*faults], resumed, steps=3, out=tmp_path / "b", **options)
    first, second = load_file(whole), load_file(resumed)
    assert all(torch.equal(first[key], second[key]) for key in first)
    net = kind.load(whole)
    assert 0 < float(net.full) <= 1
    assert whole.stat().st_size < 4_000_000


def test_renders_are_compared_within_their_group():
    picture = np.zeros((8, 8, 3), np.uint8)
    renders = [Render(picture, steps, group) for group, steps in (("a fox", 3), ("a fox", 20), ("a dog", 8))]
    (pair,) = ordered_pairs(renders)
    assert [(render.group, render.quality) for render in pair] == [("a fox", 20), ("a fox", 3)]


def test_the_order_that_is_asked_for():
    best_first = torch.tensor(
        [[9.0, 5, 1, 0, 8, 7, 2]]
    )  # real, fault, more of it, trick; render, worse, spoiled
    assert (order_gaps(best_first) > 0).all()
    assert (order_gaps(-best_first) < 0).all()


def test_fidelity_learns_from_pictures_and_renders(pictures: Pictures, tmp_path: Path):
    real, captions = draw_real(pictures, 6, seed=0)
    renders = [
        Render(degrade(real[i], "blur", level, np.random.default_rng(0)), -level, f"group {i}")
        for i in range(2)
        for level in (0.1, 0.9)
    ]
    options = {"steps": 3, "train": train, "seed": 0, "batch": 2, "echo": silent}
    path = tmp_path / "fidelity.safetensors"
    fit_fidelity(real, captions, renders, path, out=tmp_path, **options)
    scores = FidelityNet.load(path).score(torch.zeros(2, 3, 192, 192))
    assert ((scores > 0) & (scores < 1)).all()
    assert path.stat().st_size < 4_000_000
