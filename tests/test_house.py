"""The rules of the house: what imports what, what ships, and what must not be written down."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowtailor.pipelines.config_file import load_config

ROOT = Path(__file__).parents[1]
FLOORS = {"workflows": 1, "datasets": 2, "models": 3, "studio": 3, "actors": 4, "pipelines": 5, "serving": 6}
FORBIDDEN = {
    "workflows": {"torch", "ray", "pyarrow", "transformers", "trl", "peft"},
    "datasets": {"torch", "ray", "transformers", "trl", "peft"},
    "models": {"ray"},
    "studio": {"ray"},
}
CONFIGS = sorted((ROOT / "pipelines" / "configs").glob("*.toml"))


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Absolute names of all that `file` imports, inside functions too; folders as flowtailor.FOLDER."""
    package = ("flowtailor", *file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_only_go_down(folder: str):
    for file in python_files(folder):
        for name in imports(file):
            parts = name.split(".")
            above = parts[0] == "flowtailor" and FLOORS.get(parts[1], 0) > FLOORS[folder]
            aside = parts[0] == "flowtailor" and {folder, parts[1]} == {"models", "studio"}
            assert not above and not aside, f"{file.relative_to(ROOT)} imports {name} from a higher floor"
            assert parts[0] not in FORBIDDEN.get(folder, ()), f"{file.relative_to(ROOT)} imports {name}"


def test_the_import_root_stands_below_all_floors():
    for file in ROOT.glob("flowtailor/*.py"):
        if file.name != "__main__.py":  # which hands over to the command line
            assert not [n for n in imports(file) if n.split(".")[0] == "flowtailor" and n.count(".") > 1]


def test_folders_are_no_packages_of_their_own():
    for folder in FLOORS:
        assert not list((ROOT / folder).rglob("__init__.py")), (
            f"{folder}/ would shadow a package of that name"
        )


def run(*command: str, cwd: Path = ROOT, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_datasets_is_hugging_faces_under_pytest_and_from_the_root():
    import datasets

    assert "site-packages" in str(datasets.__file__)
    printed = run(sys.executable, "-c", "import datasets, flowtailor.datasets.rows; print(datasets.__file__)")
    assert "site-packages" in printed


@pytest.mark.ray
def test_datasets_is_hugging_faces_inside_a_ray_worker(tmp_path: Path):
    """Ray puts the working directory first on a worker's path, which is the repository's root here."""
    program = f"""
import ray
ray.init(num_cpus=1, include_dashboard=False, runtime_env={{
    "working_dir": {str(ROOT)!r}, "excludes": [".git", ".venv", "build", "runs", "studio/weights"]}})

@ray.remote
def where():
    import datasets, flowtailor.datasets.rows as rows
    return datasets.__file__, rows.__file__

print(*ray.get(where.remote()), sep="\\n")
"""
    theirs, ours = run(sys.executable, "-c", program, cwd=tmp_path).strip().splitlines()[-2:]
    assert "site-packages" in theirs
    assert ours.endswith("datasets/rows.py")


def test_help_is_quick_and_imports_nothing_heavy():
    program = (
        "import contextlib, sys\n"
        "from flowtailor.pipelines.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('heavy:', sorted({'torch', 'ray', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    assert run(sys.executable, "-c", program).rstrip().endswith("heavy: []")
    seconds = []
    for _ in range(5):  # the best of a few: the machine may be busy with something else
        start = time.perf_counter()
        run(sys.executable, "-m", "flowtailor", "--help")
        seconds.append(time.perf_counter() - start)
        if seconds[-1] < 0.5:
            break
    assert min(seconds) < 0.5


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_shipped_configs_load(file: Path):
    load_config(file, [])


def test_the_wheel_installs_elsewhere_and_claims_only_flowtailor(tmp_path: Path):
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(copy_of_sources(tmp_path)),
    )
    wheel = next(tmp_path.glob("*.whl"))
    site = tmp_path / "site"
    run(*pip, "install", "--no-deps", "--target", str(site), str(wheel))
    assert {p.name for p in site.iterdir() if not p.name.endswith(".dist-info")} <= {"flowtailor", "bin"}
    for folder in FLOORS:
        expected = {p.relative_to(ROOT) for p in tracked() if p.relative_to(ROOT).parts[0] == folder}
        missing = [p for p in expected if not (site / "flowtailor" / p).exists()]
        assert not missing, f"not in the wheel: {sorted(map(str, missing))[:5]}"
    program = "import flowtailor.datasets.rows as rows; print(rows.__file__)"
    # -P and -S: neither this folder nor the checkout that is installed for development
    dependencies = next(p for p in sys.path if p.endswith("site-packages"))
    path = os.pathsep.join((str(site), dependencies))
    assert str(site) in run(sys.executable, "-S", "-P", "-c", program, cwd=tmp_path, PYTHONPATH=path)


def copy_of_sources(folder: Path) -> Path:
    """The tracked files alone: building in place would leave its traces in the checkout."""
    copy = folder / "source"
    for file in tracked():
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)
    return copy


def tracked() -> list[Path]:
    try:
        listed = run("git", "ls-files", "-z").split("\0")
    except (AssertionError, FileNotFoundError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


# Written in pieces, so that this file does not hold them.
UNSPEAKABLE = re.compile(
    "|".join(
        (
            r"/" + r"(work|root|Users)/\w",
            "pypi" + r"\.org",
            "files\\.python" + "hosted",
            "registry\\.npm" + "js",
        )
    )
)


def test_nothing_names_a_machine_or_a_registry_host():
    for file in tracked():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture, weights
        found = UNSPEAKABLE.search(text)
        assert found is None, f"{file.relative_to(ROOT)} holds {found.group()!r}"
