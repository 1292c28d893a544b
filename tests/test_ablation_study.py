"""benchmarks/ablation_study.py: its variants are configurations, its table compares what belongs together."""

from __future__ import annotations

import ablation_study as study
import pandas as pd
import pytest

from flowtailor.pipelines.config import Config


@pytest.mark.parametrize("name", study.VARIANTS)
def test_a_variant_differs_from_the_recipe_in_what_it_says(name: str):
    usual = Config().model_dump()
    variant = Config().changed(**study.VARIANTS[name]).model_dump()
    differing = {(s, k) for s, values in usual.items() for k in values if variant[s][k] != usual[s][k]}
    assert differing == {(s, k) for s, values in study.VARIANTS[name].items() for k in values}


def test_the_recipe_is_compared_with_each_variant_on_the_same_pictures():
    def rows(variant: str, scores: list[float]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "variant": variant,
                "method": "guided",
                "prompt": ["a fox", "an owl"],
                "seed": [1, 2],
                "score": scores,
                "seconds": 0.5,
                "workflow_key": variant,
            }
        )

    own, worse = study.compare(pd.concat([rows("all of it", [0.8, 0.6]), rows("kappa_0", [0.5, 0.7])]))
    assert own["own_wins"] is None
    assert own["score"][0] == pytest.approx(0.7)
    assert worse["own_wins"][0] == 0.5
    assert "| kappa 0 | guided | 0.600 (" in study.markdown([own, worse])
