"""What ComfyUI's own code computes, in a process of its own: it is run, never imported by us."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowtailor.studio import launch
from flowtailor.studio.install import Studio

_PROGRAM = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("launch", sys.argv[1])
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
sys.meta_path.insert(0, launch.DeclareOperators())
sys.path.insert(0, sys.argv[2])
from comfy.cli_args import args
args.cpu = True
import comfy.model_management, comfy.sd, comfy.utils
model, clip, vae = comfy.sd.load_checkpoint_guess_config(sys.argv[3])[:3]
if sys.argv[5]:
    lora = comfy.utils.load_torch_file(sys.argv[5])
    model, clip = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
asked = torch.load(sys.argv[4])
comfy.model_management.load_models_gpu([model])
answers = []
for text, x, t in zip(asked["texts"], asked["x"], asked["t"]):
    context, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    with torch.inference_mode():
        out = model.model.diffusion_model(x[None], t[None], context=context, y=pooled)
    answers.append({"context": context, "pooled": pooled, "out": out})
torch.save(answers, sys.argv[4])
"""


def answers(
    studio: Studio,
    checkpoint: Path,
    texts: Sequence[str],
    x: Sequence[Tensor],
    t: Sequence[Tensor],
    lora: Path | None = None,
) -> list[dict[str, Any]]:
    """For each text, latent (16, H, W) and time (): its context, its pooled form and the model's output."""
    question = checkpoint.with_suffix(".asked")
    torch.save({"texts": list(texts), "x": list(x), "t": list(t)}, question)
    assert launch.__file__
    arguments = [launch.__file__, studio.comfyui, checkpoint, question, lora or ""]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(studio.site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(question)
