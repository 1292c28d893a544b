"""Reads a configuration: a TOML file or the name of a shipped one, with `--set section.key=value` on top.

Promises: a mistake is one line with the key, its value and what would be right; files that it names are
found by processes in other folders too.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flowtailor.errors import FlowtailorError

from .config import Config

CONFIGS = Path(__file__).parent / "configs"


def load_config(path: str | Path | None = None, overrides: list[str] | None = None) -> Config:
    """Read a TOML file (or the name of a shipped one), apply `section.key=value` overrides.

    Raises FlowtailorError on a missing file, broken TOML, an unknown key or a wrong value.
    """
    data: dict[str, Any] = {}
    if path is not None:
        file = _config_file(path)
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FlowtailorError(f"{file}: not valid TOML ({error}); mend the line it names") from None
    for override in overrides or []:
        _apply(data, override)
    try:
        return _with_whole_paths(Config.model_validate(data))
    except ValidationError as error:
        raise FlowtailorError("; ".join(_explain(e) for e in error.errors())) from None


def _with_whole_paths(config: Config) -> Config:
    """The same files for processes that work in another folder, as Ray's workers do."""

    def whole(section: Any, *keys: str) -> dict[str, Any]:
        named = {key: value for key in keys if (value := getattr(section, key)) is not None}
        # Path.expanduser raises where there is no such user.
        files = {key: Path(os.path.expanduser(value)) for key, value in named.items()}  # noqa: PTH111
        return {key: type(named[key])(file.resolve()) for key, file in files.items() if file.exists()}

    return config.changed(
        engine=whole(config.engine, "path"),
        space=whole(config.space, "file", "flows"),
        prompts=whole(config.prompts, "file"),
        reward=whole(config.reward, "backbone"),
        sft=whole(config.sft, "base"),
    )


def _config_file(path: str | Path) -> Path:
    for candidate in (Path(path), CONFIGS / f"{path}.toml"):
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
    raise FlowtailorError(f"{path}: no such config file; name a TOML file or one of: {shipped}")


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or len(parts) < 2:
        raise FlowtailorError(f"--set {override}: must read section.key=value, as in grpo.steps=50")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    target = data
    for depth, part in enumerate(parts[:-1], start=1):
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            name = ".".join(parts[:depth])
            raise FlowtailorError(f"--set {override}: {name} is no section; set it as in {name}=VALUE")
    target[parts[-1]] = value


def _explain(error: Any) -> str:
    *section, name = (str(part) for part in error["loc"])
    key = ".".join([*section, name])
    if error["type"] != "extra_forbidden":
        reason = error["msg"].removeprefix("Value error, ")
        return (
            f"{key} = {error['input']!r}: {reason}" if error["type"] != "value_error" else f"{key}: {reason}"
        )
    known = sorted(_fields(section))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {'.'.join([*section, *close])}?" if close else f"there are {', '.join(known)}"
    return f"{key}: unknown config key; {hint}"


def _fields(section: list[str]) -> Iterable[str]:
    """The keys of a section; those of the whole configuration for an empty path."""
    model: Any = Config
    for part in section:
        model = model.model_fields[part].annotation
    return model.model_fields
