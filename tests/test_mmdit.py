"""The picture model and its text encoder compute what ComfyUI's own code computes from the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowtailor.studio.checkpoint import write_checkpoint
from flowtailor.studio.install import Studio
from flowtailor.studio.mmdit import MMDiT, positions
from flowtailor.studio.text_encoder import Captions, build, load_tokenizer

# Run by the engine's code alone: it encodes two prompts and calls the model at two sizes.
ENGINE = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location("launch", sys.argv[1])
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
sys.meta_path.insert(0, launch.DeclareOperators())
sys.path.insert(0, sys.argv[2])
from comfy.cli_args import args
args.cpu = True
import comfy.sd, comfy.model_management
model, clip, vae = comfy.sd.load_checkpoint_guess_config(sys.argv[3])[:3]
asked = torch.load(sys.argv[4])
comfy.model_management.load_models_gpu([model])
answers = []
for text, x, t in zip(asked["texts"], asked["x"], asked["t"]):
    context, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    with torch.inference_mode():
        out = model.model.diffusion_model(x[None], t[None], context=context, y=pooled)
    answers.append({"context": context, "pooled": pooled, "out": out})
torch.save(answers, sys.argv[5])
"""


def word_features(words: Sequence[str]) -> Tensor:
    """Random features stand in for MiniLM's: the layout is tested, not the meaning."""
    return torch.randn(len(words), 48, generator=torch.Generator().manual_seed(1))


def random_model(seed: int = 0) -> MMDiT:
    """With zero-initialised weights filled in and rounded to float16, as a checkpoint keeps them."""
    torch.manual_seed(seed)
    model = MMDiT()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.03)
            p.copy_(p.half().float())
    return model.eval()


def random_vae() -> dict[str, Tensor]:
    """Shapes of TAESD with 16 channels, all zero but for the scale and shift that cancel SD3's."""
    state = {f"taesd_encoder.{i}.bias": torch.zeros(n) for i, n in ((0, 64), (14, 16))}
    state |= {"taesd_encoder.0.weight": torch.zeros(64, 3, 3, 3)}
    state |= {"taesd_encoder.14.weight": torch.zeros(16, 64, 3, 3)}
    state |= {"taesd_decoder.1.weight": torch.zeros(64, 16, 3, 3), "taesd_decoder.1.bias": torch.zeros(64)}
    state |= {"taesd_decoder.19.weight": torch.zeros(3, 64, 3, 3), "taesd_decoder.19.bias": torch.zeros(3)}
    return state | {"vae_scale": torch.tensor(1.5305), "vae_shift": torch.tensor(0.0609)}


@pytest.mark.engine
def test_equals_the_engines_own_code(studio: Studio, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(studio.comfyui)
    text, model = build(word_features, tokenizer), random_model()
    write_checkpoint(model.state_dict(), text, random_vae(), tmp_path / "random.ckpt")
    assert (tmp_path / "random.ckpt").stat().st_size < 24e6

    texts = ["a red apple", "", "two cats, a dog's bone and three blue umbrellas on a yellow"]
    x = [torch.randn(16, size, size) for size in (16, 24, 32)]
    t = [torch.tensor(time) for time in (900.0, 301.5, 20.0)]
    torch.save({"texts": texts, "x": x, "t": t}, tmp_path / "asked.pt")
    arguments = [Path(studio.comfyui, "..", "..").resolve(), studio.comfyui]
    launch = Path(sys.modules["flowtailor.studio.install"].__file__ or "").with_name("launch.py")
    arguments = [launch, studio.comfyui, tmp_path / "random.ckpt", tmp_path / "asked.pt", tmp_path / "said.pt"]
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(studio.site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = torch.load(tmp_path / "said.pt")

    captions = Captions(text, tokenizer)
    for theirs, caption, latent, time in zip(said, texts, x, t, strict=True):
        context, pooled = captions([caption])
        assert torch.equal(context[0, :16], theirs["context"][0, :16, :768])
        assert torch.equal(context[0, 16:].expand(61, -1), theirs["context"][0, 16:, :768])
        assert torch.allclose(pooled, theirs["pooled"][:, :768], atol=2e-6)
        bias = captions.key_bias(latent[0].numel() // 4)
        with torch.inference_mode():
            ours = model(latent[None], time[None], context, pooled, bias)
        assert theirs["out"].std() > 0.1  # not the trivial zero
        assert torch.allclose(ours, theirs["out"], atol=1e-4)


def test_predicts_nothing_before_training() -> None:
    model = MMDiT(depth=2)
    out = model(torch.randn(3, 16, 8, 8), torch.rand(3), torch.randn(3, 5, 768), torch.randn(3, 768))
    assert out.shape == (3, 16, 8, 8)
    assert not out.any()


def test_the_same_place_has_the_same_position_at_every_size() -> None:
    small, large = (positions(n, n, 256, torch.device("cpu")).view(n, n, 256) for n in (8, 16))
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(small[corner], large[corner], atol=1e-6)
