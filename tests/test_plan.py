"""The collection plan: balanced, varied within a prompt, the same every time."""

from collections import Counter
from itertools import product

from flowtailor.datasets.prompts import Prompt
from flowtailor.datasets.rows import COLUMNS
from flowtailor.pipelines.plan import Candidate, balanced, planned_rows

PROMPTS = [
    Prompt(f"{category} {i}", category, "train") for category in ("food", "animals") for i in range(12)
]
FLOWS = [
    Candidate(f"{sampler}-{steps}", "{}", (f"sampler={sampler}", f"steps={steps}", "SaveImage"))
    for sampler, steps in product("abcd", range(4))
]


def pairs(seed: int = 0):
    return list(balanced(PROMPTS, FLOWS, per_prompt=4, seed=seed))


def test_each_prompt_meets_as_many_distinct_workflows_as_asked():
    met = Counter((prompt.text, flow.key) for prompt, flow in pairs())
    assert set(met.values()) == {1}
    assert set(Counter(text for text, _ in met).values()) == {4}
    assert len(met) == 4 * len(PROMPTS)


def test_workflows_and_components_meet_every_category_about_equally():
    flows = Counter((prompt.category, flow.key) for prompt, flow in pairs())
    assert len(flows) == 2 * len(FLOWS)
    assert max(flows.values()) - min(flows.values()) <= 1
    words = Counter((prompt.category, word) for prompt, flow in pairs() for word in flow.tokens[:2])
    assert max(words.values()) - min(words.values()) <= 4


def test_a_prompt_meets_varied_components():
    samplers = {prompt.text: set() for prompt in PROMPTS}
    for prompt, flow in pairs():
        samplers[prompt.text].add(flow.tokens[0])
    assert sum(map(len, samplers.values())) / len(samplers) >= 2.8  # 2.5 by pure chance


def test_the_plan_depends_on_the_seed_alone():
    assert pairs() == pairs()
    assert pairs() != pairs(seed=1)


def test_planned_rows_have_ids_and_one_noise_per_prompt():
    plan = planned_rows(pairs(), engine="comfyui-0.3.75", catalog_hash="c", seeds=2, seed=0)
    assert len(plan) == 2 * 4 * len(PROMPTS)
    assert plan["row_id"].is_unique
    assert set(plan.columns) <= set(COLUMNS.names)
    assert set(plan.groupby("prompt")["seed"].nunique()) == {2}
    again = planned_rows(pairs(), engine="comfyui-0.3.75", catalog_hash="c", seeds=2, seed=0)
    assert plan.equals(again)


def test_some_prompts_are_drawn_with_one_seed_more():
    settings = {"engine": "comfyui-0.3.75", "catalog_hash": "c", "seeds": 1, "seed": 0}
    plan = planned_rows(pairs(), **settings, repeated=0.5)
    seeds = plan.groupby("prompt")["seed"].nunique()
    assert set(seeds) == {1, 2}
    assert (plan.groupby(["prompt", "workflow_key"])["seed"].nunique().groupby("prompt").nunique() == 1).all()
    assert set(planned_rows(pairs(), **settings)["row_id"]) < set(plan["row_id"])
