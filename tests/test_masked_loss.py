"""The grammar's mask in the losses of TRL's trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_policy import WORDS, tiny_policy, toy_masks
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig

from flowtailor.errors import FlowtailorError
from flowtailor.models.constrained import CachedDecoder, prompt_reader, sample
from flowtailor.models.masked_trainer import (
    MaskedGRPOTrainer,
    MaskedSFTTrainer,
    WordIds,
    score_words,
    tree_logits,
)
from flowtailor.models.policy import Policy, policy_prompt

WISH = WORDS.index("steps=12")
CPU = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
}


def prefer_12(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """One reward for twelve steps, a little more for a short design."""
    first = 127  # token id of the first word in the tiny tokenizer
    return [float(first + WISH in ids) - 0.02 * len(ids) for ids in completion_ids]


def grpo(policy: Policy, folder: Path, *, going_on: bool = False, **options: Any) -> MaskedGRPOTrainer:
    if not going_on:
        policy.add_adapter(8)
    settings = {
        "max_steps": 40,
        "per_device_train_batch_size": 16,
        "num_generations": 8,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "temperature": 1.0,
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    return MaskedGRPOTrainer(
        policy,
        toy_masks(),
        reward_funcs=prefer_12,
        args=GRPOConfig(output_dir=str(folder), **(CPU | settings | options)),
        train_dataset=Dataset.from_dict(
            {"prompt": [policy_prompt(text) for text in ("an owl", "a red apple")]}
        ),
    )


def share_of_wish(policy: Policy) -> float:
    drawn = sample(
        CachedDecoder(policy.model, policy.columns),
        toy_masks(),
        [policy.encode_prompt(policy_prompt("a red apple"))],
        seeds=range(100),
        temperatures=[1.0] * 100,
    )
    return sum(WISH in one.words for one in drawn) / 100


def test_grpo_learns_what_is_rewarded(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    before = share_of_wish(policy)
    trainer = grpo(policy, tmp_path)
    trainer.train()
    assert before < 0.6
    assert share_of_wish(policy) > 0.9
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged[-1]["reward"] > logged[0]["reward"]
    assert logged[0]["kl"] == pytest.approx(0.0, abs=1e-6)  # the adapter starts at nothing
    assert logged[-1]["kl"] > 0.05
    assert logged[-1]["entropy"] < logged[0]["entropy"]
    assert {entry["completions/clipped_ratio"] for entry in logged} == {0.0}  # every design ends


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_loss_sees_the_logprobs_of_sampling(tmp_path: Path, temperature: float) -> None:
    policy = tiny_policy(tmp_path)
    trainer = grpo(policy, tmp_path, temperature=temperature)
    prompts = [policy.encode_prompt(policy_prompt(text)) for text in ("an owl", "a long and red apple")]
    drawn = sample(
        CachedDecoder(policy.model, policy.columns),
        toy_masks(),
        prompts,
        seeds=range(8),
        temperatures=[temperature] * 8,
    )
    length = max(len(one.words) for one in drawn)
    left = max(map(len, prompts))
    ids = torch.zeros((8, left + length), dtype=torch.long)
    real = torch.zeros_like(ids)
    for row, one in enumerate(drawn):
        prompt, end = prompts[row // 4], left + len(one.words)
        ids[row, left - len(prompt) : end] = torch.tensor([*prompt, *policy.columns[one.words].tolist()])
        real[row, left - len(prompt) : end] = 1
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        policy.model, ids, real, length, batch_size=3, compute_entropy=True
    )
    assert entropies is not None
    for row, one in enumerate(drawn):
        assert torch.allclose(logps[row, : len(one.words)], torch.tensor(one.sampled_logprobs), atol=1e-5)
        assert logps[row, len(one.words) :].eq(0).all()
        assert entropies[row, len(one.words) :].eq(0).all()


def test_what_is_served_is_what_was_trained(tmp_path: Path) -> None:
    """An adapter that is loaded again reads prompts as it did in the training: not at all."""
    base = tiny_policy(tmp_path)
    base.save(tmp_path / "sft")
    policy = Policy.load(tmp_path / "sft", WORDS)
    trainer = grpo(policy, tmp_path, max_steps=10)
    trainer.train()
    policy.save_adapter(tmp_path / "grpo")
    served = Policy.load(tmp_path / "sft", WORDS, {"grpo": tmp_path / "grpo"})
    prompt = [served.encode_prompt(policy_prompt("a prompt that was not read before"))]
    words = torch.tensor([[WORDS.index(word) for word in ("Save", "Steps", "steps=12", "<end>")]])
    reader = prompt_reader(served.model)
    logits = tree_logits(served.model, prompt, words, served.columns, reader)
    trained = trainer._score(policy.model, prompt, words)[1]
    assert torch.allclose(score_words(logits, words, toy_masks())[1], trained, atol=1e-4)


def test_the_reference_of_an_adapter_that_goes_on_is_still_the_policy_without_it(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    grpo(policy, tmp_path, max_steps=20).train()
    trainer = grpo(policy, tmp_path, max_steps=2, learning_rate=1e-6, beta=0.01, going_on=True)
    trainer.train()
    logged = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert min(logged) > 0.05
    assert list(policy.model.peft_config) == ["default"]  # type: ignore[arg-type]


def sft(policy: Policy, folder: Path, third: dict[str, float], *, merged: bool = True) -> MaskedSFTTrainer:
    """Shown is one design of twelve steps; `third` are the shares of the words that may say the steps."""
    policy.add_adapter(8, train_words=merged)
    words = [WORDS.index(word) for word in ("Save", "Steps", "steps=12", "<end>")]
    prompt = policy.encode_prompt(policy_prompt("a red apple"))
    example = {
        "input_ids": prompt + policy.columns[words].tolist(),
        "labels": [-100] * len(prompt) + policy.columns[words].tolist(),
        "share_words": [[words[0]], [words[1]], [WORDS.index(word) for word in third], [words[3]]],
        "shares": [[1.0], [1.0], [*third.values()], [1.0]],
    }
    return MaskedSFTTrainer(
        policy,
        toy_masks(),
        merged=merged,
        args=SFTConfig(
            output_dir=str(folder),
            max_steps=30,
            per_device_train_batch_size=4,
            learning_rate=2e-2,
            max_length=None,
            disable_tqdm=True,
            logging_steps=5,
            **CPU,
        ),
        train_dataset=Dataset.from_list([example] * 8),
    )


def test_sft_imitates_designs(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    before = share_of_wish(policy)
    trainer = sft(policy, tmp_path, {"steps=12": 1.0})
    trainer.train()
    policy.merge_adapter()
    assert before < 0.6
    assert share_of_wish(policy) > 0.95
    assert trainer.state.log_history[0]["choice_accuracy"] <= 1.0


def test_an_adapter_that_is_not_merged_imitates_as_it_decodes(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    sft(policy, tmp_path, {"steps=12": 0.3, "steps=4": 0.7}, merged=False).train()
    assert share_of_wish(policy) == pytest.approx(0.3, abs=0.1)


def test_sft_imitates_what_may_stand_in_a_place(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    sft(policy, tmp_path, {"steps=12": 0.3, "steps=4": 0.7}).train()
    policy.merge_adapter()
    assert share_of_wish(policy) == pytest.approx(0.3, abs=0.1)


def test_what_the_grammar_does_not_offer_is_not_taught(tmp_path: Path) -> None:
    trainer = sft(tiny_policy(tmp_path), tmp_path, {"steps=12": 0.9, "again": 0.1})
    with pytest.raises(FlowtailorError, match=r"says <\|again\|> .* space\.max_tokens"):
        trainer.train()


def test_what_rows_share_is_read_once_and_changes_no_logit(tmp_path: Path) -> None:
    policy = tiny_policy(tmp_path)
    designs = [("Save", "Steps", "steps=12", "<end>"), ("Save", "Steps", "<end>"), ("Save", "<end>")]
    prompts = [policy.encode_prompt(policy_prompt(text)) for text in ("an owl", "an owl", "a red apple")]
    words = torch.full((3, 4), -1)
    for row, design in enumerate(designs):
        words[row, : len(design)] = torch.tensor([WORDS.index(word) for word in design])
    shared = tree_logits(policy.model, prompts, words, policy.columns)
    for row, prompt in enumerate(prompts):
        said = words[row][words[row] >= 0]
        ids = torch.tensor([[*prompt, *policy.columns[said[:-1]].tolist()]])
        alone = policy.model(input_ids=ids).logits[0, -len(said) :]
        assert torch.allclose(shared[row, : len(said)], alone, atol=1e-5)


def test_tokens_that_are_no_words_have_no_word_id() -> None:
    to_words = WordIds(torch.tensor([7, 5, 9]))
    assert to_words(torch.tensor([[5, 7, 9, 8, -100, 400]])).tolist() == [[1, 0, 2, -1, -1, -1]]
