"""Which ComfyUI engines there are, and how to come to a client on one.

Three kinds with one API: servers that run already, a checkout that is started here, and the embedded
studio. An engine that `engine()` started is gone when its block is left or its process dies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flowtailor.machine import has_gpu

from ..studio.engine import EngineProcess, checkout_launch, new_run_dir, studio_launch
from ..studio.install import install
from .client import ComfyClient
from .comfy_errors import ComfyUnavailable

NOT_ON_A_CPU = ("--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram")  # of ComfyUI's


class EngineConfig(BaseModel):
    """How to reach ComfyUI: the embedded studio, a checkout that we start, or servers that run already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["studio", "checkout", "urls"] = "studio"
    urls: tuple[str, ...] = ()
    """Base URLs such as "http://127.0.0.1:8188"; for kind "urls"."""
    path: Path | None = None
    """Folder that holds ComfyUI's main.py; for kind "checkout"."""
    args: tuple[str, ...] = ()
    """Further arguments for main.py, for the kinds that we start."""
    count: int = Field(default=2, ge=1)
    """Number of engines; with kind "urls", the clients are spread over the urls."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one engine."""
    gpu: bool = False
    """Whether the engines of kind "studio" draw on a GPU; those of a checkout do where they find one."""
    start_timeout_s: float = Field(default=90.0, gt=0)
    render_timeout_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> EngineConfig:
        if self.kind == "urls" and not self.urls:
            raise ValueError('kind = "urls" needs urls = ["http://127.0.0.1:8188"]')
        if self.kind == "checkout" and self.path is None:
            raise ValueError('kind = "checkout" needs path = "/path/to/ComfyUI"')
        for name, kind in (("urls", "urls"), ("path", "checkout")):
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f'{name} is for kind = "{kind}", not "{self.kind}"; change one of them')
        return self


@contextmanager
def engine(config: EngineConfig) -> Iterator[ComfyClient]:
    """A client on an engine that is started and stopped here, or on the first of `urls` that answers."""
    if config.kind == "urls":
        client, process = _first_that_answers(config.urls), None
    else:
        process = start_engine(config)
        client = ComfyClient(process.url, process.run_dir / "output")
    try:
        yield client
    finally:
        client.close()
        if process:
            process.stop()


def _first_that_answers(urls: Sequence[str]) -> ComfyClient:
    """Raises what the last one said where none does."""
    for url in urls:
        client = ComfyClient(url)
        try:
            client.system_stats()
            return client
        except ComfyUnavailable:
            client.close()
            if url == urls[-1]:
                raise
    raise ValueError("engine.urls: must name a server")


def as_here(config: EngineConfig) -> EngineConfig:
    """The engine as this machine can run it: without a GPU, as on a cluster's head, on the CPU."""
    if has_gpu() or config.kind == "urls" or "--cpu" in config.args:
        return config
    args = [argument for argument in config.args if argument not in NOT_ON_A_CPU]
    if config.kind == "checkout":
        args.append("--cpu")
    return config.model_copy(update={"gpu": False, "args": tuple(args)})


def start_engine(config: EngineConfig) -> EngineProcess:
    """Start an engine of kind "studio" or "checkout" on a free port and wait until it answers."""
    config, run_dir = as_here(config), new_run_dir()
    try:
        if config.kind == "studio":
            launch = studio_launch(install(), run_dir, config.threads, config.args, gpu=config.gpu)
        else:
            assert config.path is not None  # EngineConfig refuses a checkout without a path
            launch = checkout_launch(config.path, run_dir, config.threads, config.args)
        return EngineProcess.start(launch, run_dir, config.start_timeout_s)
    except BaseException:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise


def engine_name(config: EngineConfig, client: ComfyClient) -> str:
    """What rows keep of the engine: its version and, for the studio, which weights it draws with.

    For example "comfyui-0.3.75" or "comfyui-0.3.75+studio-f43821198b71".
    """
    name = f"comfyui-{client.system_stats().get('system', {}).get('comfyui_version', 'unknown')}"
    if config.kind == "studio":
        name += f"+studio-{install().weights}"
    return name
