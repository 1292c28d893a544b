"""benchmarks/new_model.py: whom it asks, and what it says of designs before and after."""

from __future__ import annotations

import new_model as study
import pandas as pd
import pytest


def test_it_asks_prompts_of_the_style_and_as_many_others():
    styles = [prompt.style for prompt in study.asked("pixel", 20)]
    assert styles[:20] == ["pixel"] * 20
    assert len(styles) == 40
    assert "pixel" not in styles[20:]
    assert len(set(styles[20:])) > 1


def test_designs_are_compared_prompt_by_prompt():
    """The sprite takes over one of two pixel prompts and gains 0.2 there; the other prompt stays."""

    def drawn(when: str, prompt: str, style: str, checkpoint: str, score: float) -> dict[str, object]:
        flow = f'{{"ckpt_name": "{checkpoint}.ckpt"}}'
        return {"when": when, "prompt": prompt, "style": style, "workflow": flow, "score": score}

    rows = pd.DataFrame(
        [
            drawn("before", "a pixel fox", "pixel", "general", 0.5),
            drawn("before", "a pixel owl", "pixel", "general", 0.6),
            drawn("before", "a crow", "3d", "town", 0.7),
            drawn("after", "a pixel fox", "pixel", "sprite", 0.7),
            drawn("after", "a pixel owl", "pixel", "general", 0.6),
            drawn("after", "a crow", "3d", "town", 0.7),
        ]
    )
    pixel, others = told = study.compared(rows, "sprite.ckpt", "pixel")
    assert (pixel["count"], pixel["uses"]) == (2, [0.0, 0.5])
    assert pixel["gain"][0] == pytest.approx(0.1)
    assert (others["count"], others["uses"], others["gain"]) == (1, [0.0, 0.0], [0.0, 0.0, 0.0])
    assert "| pixel | 2 | 0% | 50% | 0.550 | 0.650 | 0.100 (" in study.markdown(told, "sprite.ckpt")
