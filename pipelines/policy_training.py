"""A Hugging Face trainer inside a Ray Train worker: checkpoints, resumption, the finished folder.

A worker that dies is started again and goes on from the last checkpoint; so does a command that is
started again, as long as the inputs of its stage are the same (the name of the Ray run holds their
hash). What the worker finishes with comes back as a last checkpoint that holds the output alone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtailor.memory import keep_freed_memory

from .cluster import ensure_ray, training_run
from .config import Config
from .stage import Run

if TYPE_CHECKING:  # torch and ray, seconds of import that a dry run can spare
    from transformers import Trainer

MOST_THREADS = 8  # of one worker; a policy this small does not use more
OUTPUT, STATE = "output", "trainer"


def train_in_ray(
    config: Config, loop: Callable[[dict[str, Any]], None], setup: dict[str, Any], name: str, folder: Path
) -> None:
    """Run `loop(setup)` in a Ray Train worker and copy what it finished with into `folder`.

    The storage of the Ray run, `ray/NAME` in the run folder, is removed at the end.
    """
    ensure_ray(config)
    import ray
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    gpu = ray.cluster_resources().get("GPU", 0) >= 1
    storage = Run(config).path("ray").resolve()
    trainer = TorchTrainer(
        loop,
        train_loop_config={"config": absolute(config), **setup},
        scaling_config=ScalingConfig(num_workers=1, use_gpu=gpu),
        run_config=training_run(name, storage),
    )
    checkpoint = trainer.fit().checkpoint
    assert checkpoint is not None  # a loop ends by reporting its output
    with checkpoint.as_directory() as place:
        shutil.copytree(Path(place) / OUTPUT, folder, dirs_exist_ok=True)
    shutil.rmtree(storage / name, ignore_errors=True)


def absolute(config: Config) -> Config:
    """The same configuration for a process that works in another folder."""
    return config.changed(run={"root": str(Path(config.run.root).resolve())})


def worker_device() -> Any:
    """Make the worker quiet and give its device; on a CPU, torch may use the cores of the machine, since
    nothing else runs in this stage."""
    import ray.train.torch
    import torch

    logging.getLogger("ray.train").setLevel(logging.WARNING)  # a line for every checkpoint
    warnings.filterwarnings("ignore", category=FutureWarning)  # between transformers, PEFT and TRL
    warnings.filterwarnings("ignore", message="Unsupported layer type")  # PEFT wonders at WordHead
    torch.set_num_threads(min(MOST_THREADS, os.cpu_count() or 1))
    keep_freed_memory()
    return ray.train.torch.get_device()


def trainer_options(device: Any, steps: int, seed: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that every trainer of a policy shares; `given` (from the config file) wins.

    Checkpoints: about five in a run. The model is in its compute type already, so `bf16` stays off.
    """
    return {
        "output_dir": tempfile.mkdtemp(prefix="flowtailor-"),
        "max_steps": steps,
        "seed": seed,
        "use_cpu": device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_steps": max(1, -(-steps // 5)),
        "save_total_limit": 1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": steps // 20,
        **given,
    }


def train(trainer: Trainer, title: str, save: Callable[[Path], None]) -> None:
    """Train to the end, from the last checkpoint where there is one, reporting each new one to Ray; then
    report what `save` writes, with the curves as `log.jsonl`, as the output of the worker."""
    import ray.train
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_callback(title))
    checkpoint = ray.train.get_checkpoint()
    try:
        if checkpoint is None:
            trainer.train()
        else:
            with checkpoint.as_directory() as place:
                if (Path(place) / OUTPUT).is_dir():
                    return  # whatever died, died after the work was done
                trainer.train(resume_from_checkpoint=str(Path(place) / STATE))
        _report_output(trainer, save)
    finally:
        shutil.rmtree(str(trainer.args.output_dir), ignore_errors=True)


def _report_output(trainer: Trainer, save: Callable[[Path], None]) -> None:
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / OUTPUT
        output.mkdir()
        save(output)
        lines = [json.dumps(entry) for entry in trainer.state.log_history if "loss" in entry]
        (output / "log.jsonl").write_text("\n".join(lines) + "\n")
        ray.train.report(
            {"step": trainer.state.global_step},
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_dir_name="output",
        )


def _callback(title: str) -> Any:
    """A callback that reports checkpoints to Ray, each under its step, and draws a progress bar."""
    import ray.train
    from ray.experimental.tqdm_ray import tqdm
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = tqdm(total=state.max_steps, desc=title, unit="step")
            self.bar.update(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update(1)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            rank = ray.train.get_context().get_world_rank()
            source = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            with tempfile.TemporaryDirectory() as folder:
                if rank == 0:
                    shutil.copytree(source, Path(folder) / STATE)
                ray.train.report(
                    {"step": state.global_step},
                    checkpoint=ray.train.Checkpoint.from_directory(folder) if rank == 0 else None,
                    checkpoint_dir_name=f"step-{state.global_step:06d}",
                )

    return Report()
