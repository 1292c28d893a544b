"""The designer on the studio's space, with a tiny random policy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from tiny_policy import tiny_base

from flowtailor.errors import FlowtailorError
from flowtailor.models.designing import Designer
from flowtailor.models.policy import Policy, lora_config
from flowtailor.models.policy_file import write_description
from flowtailor.workflows.codec import decode, respelled
from flowtailor.workflows.rules import END
from flowtailor.workflows.space import Space
from flowtailor.workflows.validate import problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, space: Space) -> Path:
    """A policy folder with a random adapter, like that of a run."""
    place = Path(tmp_path_factory.mktemp("policy"))
    policy = Policy.from_base(tiny_base(place / "base"), space.vocabulary)
    policy.save(place / "sft")
    wrapped = get_peft_model(policy.model, lora_config(4))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(str(place / "grpo"))
    write_description(place / "grpo")
    return place


@pytest.fixture(scope="module")
def designer(folder: Path, space: Space) -> Designer:
    return Designer.load(folder / "sft", folder / "grpo", space)


def test_budgets_are_asked_for_in_the_words_that_were_taught(folder: Path, space: Space) -> None:
    policy = Policy.load(folder / "sft", space.vocabulary)
    assert "Seconds: 30" in policy.prompt("an owl", 30)  # it was taught none
    policy.budgets_s = 0.5, 2.0
    policy.save(folder / "taught")
    taught = Policy.load(folder / "taught", space.vocabulary)
    asked = {budget_s: taught.prompt("an owl", budget_s) for budget_s in (None, 0.01, 1.2, 30)}
    seconds = {budget_s: text.split("Seconds: ")[1].split()[0] for budget_s, text in asked.items()}
    assert seconds == {None: "any", 0.01: "0.5", 1.2: "1.2", 30: "any"}


def test_an_adapter_of_another_version_is_refused(folder: Path, space: Space, tmp_path: Path) -> None:
    shutil.copytree(folder / "grpo", tmp_path / "grpo")
    (tmp_path / "grpo/policy.json").unlink()
    with pytest.raises(FlowtailorError, match=r"grpo: no policy to load .*run `flowtailor grpo`"):
        Designer.load(folder / "sft", tmp_path / "grpo", space)
    (tmp_path / "grpo/policy.json").write_text('{"format": 1}')
    with pytest.raises(FlowtailorError, match="format 1, this version reads"):
        Designer.load(folder / "sft", tmp_path / "grpo", space)


def words(designs: list) -> list[list[str]]:
    return [design.tokens for design in designs]


def test_designs_decode_to_workflows_that_validate(designer: Designer, space: Space) -> None:
    designs = designer.design(["a red apple", "an owl"], n=4, guidance=2.0, budget_s=1.0)
    assert [len(of_prompt) for of_prompt in designs] == [4, 4]
    for design in (one for of_prompt in designs for one in of_prompt):
        assert END not in design.tokens
        assert design.tokens == [*respelled(design.tokens, space)]  # in no other words than a row of it has
        assert design.logprob < 0
        flow = decode(design.tokens, space).bind("a red apple", seed=1)
        assert problems(flow, space.catalog) == []


def test_distinct_designs_differ_even_from_a_policy_that_is_sure(designer: Designer) -> None:
    prompts, hardly = ["an apple", "an owl"], 0.02  # so cold that one design is drawn over and over
    wishes = {"guidance": [1.5] * 2, "budget_s": [None] * 2, "seed": [0] * 2}
    cold, greedy = designer.distinct(prompts, n=3, temperature=[hardly, 0.0], **wishes)
    assert len({tuple(design.tokens) for design in cold}) == len(cold) > 1
    assert len(greedy) == 1
    first = designer.design(prompts[:1], guidance=1.5, temperature=hardly, seed=0)[0][0]
    assert cold[0].tokens == first.tokens  # what was likely anyway comes first


def test_the_seed_decides_and_the_company_does_not(designer: Designer) -> None:
    together = designer.design(["an apple", "an owl"], n=2, guidance=1.5, seed=7)
    alone = designer.design(["an owl"], n=2, guidance=1.5, seed=7)
    other = designer.design(["an owl"], n=2, guidance=1.5, seed=8)
    assert words(together[1]) == words(alone[0])
    assert words(alone[0]) != words(other[0])


def test_each_prompt_may_have_wishes_of_its_own(designer: Designer) -> None:
    mixed = designer.design(
        ["an apple", "an apple"],
        guidance=["sft", 2.0],
        temperature=[0.5, 1.0],
        budget_s=[None, 1.0],
        seed=[1, 2],
    )
    first = designer.design(["an apple"], guidance="sft", temperature=0.5, seed=1)
    second = designer.design(["an apple"], guidance=2.0, budget_s=1.0, seed=2)
    assert [words(d) for d in mixed] == [words(first[0]), words(second[0])]


def test_guidance_zero_is_the_sft_policy(designer: Designer) -> None:
    assert words(designer.design(["an owl"], guidance=0.0)[0]) == words(
        designer.design(["an owl"], guidance="sft")[0]
    )


def test_a_policy_without_adapter_serves_sft_alone(folder: Path, space: Space) -> None:
    bare = Designer.load(folder / "sft", None, space)
    assert bare.design(["an owl"], guidance="sft")[0][0].tokens
    with pytest.raises(FlowtailorError, match="adapter 'grpo': this policy has none"):
        bare.design(["an owl"], guidance=1.5)


def test_a_missing_adapter_folder_is_named(folder: Path, space: Space) -> None:
    with pytest.raises(FlowtailorError, match="holds no adapter"):
        Designer.load(folder / "sft", folder / "nowhere", space)


def test_no_prompts_no_designs(designer: Designer) -> None:
    assert designer.design([]) == []
