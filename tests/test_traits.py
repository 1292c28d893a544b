"""What of a prompt the worth of a word may depend on: its category, and the style nobody labelled."""

from __future__ import annotations

import torch

from flowtailor.models.text import TextEncoder
from flowtailor.models.traits import LEADING, SPREAD, prompt_traits

ANIMALS = ("fox", "cat", "horse", "owl", "frog", "bear")
FOOD = ("apple", "burger", "cake", "salad", "pizza", "soup")
PHRASES = ("a {}", "pixel art of a {}", "a line drawing of a {}")
LABELLED = {
    phrase.format(name): category
    for category, names in (("animals", ANIMALS), ("food", FOOD))
    for name in names
    for phrase in PHRASES
}


def test_leading_traits_tell_a_style_of_names_never_seen():
    encoder = TextEncoder.load()
    traits = prompt_traits(LABELLED, encoder)
    assert traits.count == 2 + LEADING
    leading_PL = traits(encoder.encode(list(LABELLED)))[:, 2:]
    torch.testing.assert_close(leading_PL.mean(0), torch.zeros(LEADING), atol=1e-5, rtol=0)
    torch.testing.assert_close(leading_PL.std(0, correction=0), torch.full((LEADING,), SPREAD))
    pixel_P = torch.tensor([float(text.startswith("pixel")) for text in LABELLED])
    weight_L = torch.linalg.lstsq(leading_PL, pixel_P.unsqueeze(1) - pixel_P.mean()).solution.squeeze(1)
    new = encoder.encode(["pixel art of a rocket", "a rocket", "a line drawing of a rocket"])
    pixel, plain, line = traits(new)[:, 2:] @ weight_L + pixel_P.mean()
    assert pixel > 0.5 > max(plain, line)


def test_few_prompts_lead_in_fewer_directions():
    encoder = TextEncoder.load()
    traits = prompt_traits({"a fox": "animals", "a cat": "animals"}, encoder)
    told = traits(encoder.encode(["a fox", "a dog"]))
    assert told.isfinite().all()
    assert (told[:, 2:] == 0).all()
