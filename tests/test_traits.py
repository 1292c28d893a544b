"""What of a prompt the worth of a word may depend on: its category, and its style, labelled or not."""

from __future__ import annotations

from dataclasses import replace

import torch

from flowtailor.datasets.prompts import Prompt
from flowtailor.models.text import TextEncoder
from flowtailor.models.traits import LEADING, SPREAD, prompt_traits

NAMES = {
    "animals": ("fox", "cat", "horse", "owl", "frog", "bear"),
    "food": ("apple", "burger", "cake", "salad", "pizza", "soup"),
}
PHRASES = {"3d": "a {}", "line": "a line drawing of a {}", "pixel": "pixel art of a {}"}
PROMPTS = [
    Prompt(phrase.format(name), category, "train", style)
    for category, names in NAMES.items()
    for name in names
    for style, phrase in PHRASES.items()
]
UNLABELLED = [replace(prompt, style="") for prompt in PROMPTS]
NEW = ["a rocket", "a line drawing of a rocket", "pixel art of a rocket"]


def test_labelled_styles_are_told_of_names_never_seen():
    encoder = TextEncoder.load()
    traits = prompt_traits(PROMPTS, encoder)
    assert traits.count == 2 + 3
    shares_NS = traits(encoder.encode(NEW))[:, 2:] + 1 / 3
    torch.testing.assert_close(shares_NS.sum(1), torch.ones(3))
    assert shares_NS.argmax(1).tolist() == [0, 1, 2]


def test_leading_traits_tell_a_style_that_nobody_labelled():
    encoder = TextEncoder.load()
    traits = prompt_traits(UNLABELLED, encoder)
    assert traits.count == 2 + LEADING
    leading_PL = traits(encoder.encode([prompt.text for prompt in UNLABELLED]))[:, 2:]
    torch.testing.assert_close(leading_PL.mean(0), torch.zeros(LEADING), atol=1e-5, rtol=0)
    torch.testing.assert_close(leading_PL.std(0, correction=0), torch.full((LEADING,), SPREAD))
    pixel_P = torch.tensor([float(prompt.style == "pixel") for prompt in PROMPTS])
    weight_L = torch.linalg.lstsq(leading_PL, pixel_P.unsqueeze(1) - pixel_P.mean()).solution.squeeze(1)
    plain, line, pixel = traits(encoder.encode(NEW))[:, 2:] @ weight_L + pixel_P.mean()
    assert pixel > 0.5 > max(plain, line)


def test_few_prompts_lead_in_fewer_directions():
    encoder = TextEncoder.load()
    traits = prompt_traits(
        [Prompt("a fox", "animals", "train"), Prompt("a cat", "animals", "train")], encoder
    )
    told = traits(encoder.encode(["a fox", "a dog"]))
    assert told.isfinite().all()
    assert (told[:, 2:] == 0).all()
