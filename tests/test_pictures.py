"""Subjects are chosen and named, and their pictures drawn once from checked packages."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowtailor.datasets import pictures as module
from flowtailor.datasets.pictures import PACKAGES, PIXELS, SIDE, STYLES, load_pictures, pixelate
from flowtailor.datasets.subjects import natural_name, select
from flowtailor.errors import FlowtailorError

SUBGROUPS = {0: "food-fruit", 1: "person-role", 2: "person-sport", 3: "country-flag", 4: "lock"}


def entry(label: str, code: str, subgroup: int = 0, **more: object) -> dict[str, object]:
    return {
        "label": label,
        "hexcode": code,
        "group": 1,
        "subgroup": subgroup,
        "order": int(code[:5], 16),
        **more,
    }


def names(*entries: dict[str, object]) -> list[str]:
    return [subject.name for subject in select(entries, SUBGROUPS)]


def test_of_near_twins_one_stays():
    assert names(
        entry("firefighter", "1F9D1-200D-1F692", 1),
        entry("man firefighter", "1F468-200D-1F692", 1, gender=1),
        entry("woman firefighter", "1F469-200D-1F692", 1, gender=0),
    ) == ["firefighter"]


def test_what_nobody_can_name_at_sight_in_two_words_is_left_out():
    surfer = entry("man surfing", "1F3C4-200D-2642-FE0F", 2, gender=1)
    assert names(surfer, entry("face with tears of joy", "1F602", 2)) == []
    assert names(
        entry("flag: Chad", "1F1F9-1F1E9", 3), entry("locked with pen", "1F50F", 4), entry("lemon", "1F34B")
    ) == ["lemon"]


def test_labels_become_noun_phrases():
    assert natural_name("man: red hair") == "man with red hair"
    assert natural_name("man: beard") == "man with a beard"
    assert natural_name("locked") == "closed padlock"
    assert natural_name("rescue worker’s helmet") == "rescue worker's helmet"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root whose downloads are tiny packages of two emoji, in the form of the real ones."""
    emoji = [entry("lemon", "1F34B", tags=["sour"]), entry("locked", "1F512", 4)]
    groups = {"subgroups": {str(k): name for k, name in SUBGROUPS.items()}}
    half = '<rect width="16" height="32" fill="#f00"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{half}</svg>'
    shaded = io.BytesIO()
    Image.new("RGBA", (SIDE, SIDE), (255, 220, 0, 255)).save(shaded, "WEBP", lossless=True)
    icons = {
        "icons": {
            name: {"body": '<path fill="currentColor" d="M4 4h24v4H4z"/>'} for name in ("lemon", "lock")
        }
    }
    contents = [
        {"en/data.json": json.dumps(emoji), "meta/groups.json": json.dumps(groups)},
        {f"assets/{code}.webp": shaded.getvalue() for code in ("1f34b", "1f512")},
        {f"assets/{code}.svg": svg for code in ("1f34b", "1f512")},
        {"chars.json": json.dumps({"1f34b": "lemon", "1f512": "lock"}), "icons.json": json.dumps(icons)},
    ]
    downloads = tmp_path / "root" / "downloads"
    downloads.mkdir(parents=True)
    for package, files in zip(list(PACKAGES), contents, strict=True):
        name, _, version = package.rpartition("@")
        archive = downloads / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
        pack(archive, files)
        monkeypatch.setitem(PACKAGES, package, hashlib.sha256(archive.read_bytes()).hexdigest())
    return downloads.parent


def pack(archive: Path, files: dict[str, str] | dict[str, bytes]) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_packages_are_fetched_into_a_relative_folder(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As npm does it, which packs into the folder that it runs in; the registry is left out."""
    registry = packages / "downloads"
    command = tmp_path / "bin" / "npm"
    command.parent.mkdir()
    command.write_text(
        '#!/bin/sh\nname=$(echo "$2" | sed "s/^@//; s#/#-#; s/@/-/")\n' + f'cp "{registry}/$name.tgz" .\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    pictures = load_pictures(Path("elsewhere"), lambda line: None, styles=["3d"])
    assert [subject.name for subject in pictures.subjects] == ["lemon", "closed padlock"]


def test_pictures_are_drawn_once_and_then_mapped(packages: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    first = load_pictures(packages, said.append, styles=["3d"])
    assert [(s.name, s.category, s.words) for s in first.subjects] == [
        ("lemon", "food", ("sour",)),
        ("closed padlock", "objects", ()),
    ]
    assert first.rgba(0, "3d").shape == (SIDE, SIDE, 4)
    assert first.rgba(1, "3d")[9, 9].tolist() == [255, 220, 0, 255]
    assert said == ["pictures: draws 2 subjects in style 3d"]
    for archive in (packages / "downloads").iterdir():
        archive.unlink()  # nothing of them is needed any more
    assert load_pictures(packages, said.append, styles=["3d"]).subjects == first.subjects
    assert len(said) == 1


def test_every_style_is_drawn(packages: Path):
    pytest.importorskip("resvg_py")
    drawn = load_pictures(packages, lambda line: None)
    assert drawn.rgba(0, "flat")[99, 99].tolist() == [255, 0, 0, 255]
    assert drawn.rgba(0, "line")[48, 99].tolist() == [0, 0, 0, 255]
    assert all(drawn.rgba(0, style)[..., 3].any() for style in STYLES)


def test_another_choice_of_subjects_draws_again(packages: Path, monkeypatch: pytest.MonkeyPatch):
    load_pictures(packages, lambda line: None, styles=["3d"])
    monkeypatch.setattr(module, "_VERSION", module._VERSION + 1)
    said: list[str] = []
    load_pictures(packages, said.append, styles=["3d"])
    assert said == ["pictures: draws 2 subjects in style 3d"]


def test_a_package_that_is_not_the_pinned_one_is_refused(packages: Path):
    archive = next((packages / "downloads").glob("emojibase*"))
    archive.write_bytes(archive.read_bytes() + b"x")
    with pytest.raises(FlowtailorError, match=r"SHA-256 is .* remove the file and try again"):
        load_pictures(packages)


def test_without_npm_the_remedy_is_named(packages: Path, monkeypatch: pytest.MonkeyPatch):
    next((packages / "downloads").glob("emojibase*")).unlink()
    monkeypatch.setenv("PATH", str(packages))
    with pytest.raises(
        FlowtailorError, match=r"npm, which is not there; .* or put emojibase-data-17\.0\.0\.tgz"
    ):
        load_pictures(packages)


def test_pixel_art_has_hard_squares_and_few_colours():
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    disc = np.where((x - 128) ** 2 + (y - 128) ** 2 < 100**2, 255, 0)
    picture = np.dstack([x, y, 255 - x, disc]).astype(np.uint8)
    squares = pixelate(picture)
    step = SIDE // PIXELS
    assert (squares == squares[::step, ::step].repeat(step, 0).repeat(step, 1)).all()
    assert set(np.unique(squares[..., 3])) == {0, 255}
    assert len(np.unique(squares[squares[..., 3] > 0], axis=0)) <= 16
