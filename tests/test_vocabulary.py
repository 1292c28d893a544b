"""Workflow words as tokens of a language model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_policy import WORDS, tiny_base

from flowtailor.errors import FlowtailorError
from flowtailor.models.policy import PROMPT_TOKENS, Policy, policy_prompt
from flowtailor.models.vocabulary import name_pieces, token_of


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("steps=12", ["steps", "12"]),
        ("KSampler", ["k", "sampler"]),
        ("VAEDecodeTiled", ["vae", "decode", "tiled"]),
        ("sampler_name=dpmpp_2m", ["sampler", "name", "dpmpp", "2", "m"]),
        ("MODEL@2", ["model", "2"]),
        ("<end>", ["end"]),
    ],
)
def test_a_name_is_split_into_plain_words(word: str, pieces: list[str]) -> None:
    assert name_pieces(word) == pieces


def test_a_word_is_one_token_wherever_it_stands(tmp_path: Path) -> None:
    policy = Policy.from_base(tiny_base(tmp_path), WORDS)
    text = "x".join(token_of(word) for word in WORDS)
    ids = policy.tokenizer(text)["input_ids"]
    assert ids[::2] == policy.columns.tolist()  # type: ignore[index]


def test_a_prompt_that_spells_a_word_stays_text(tmp_path: Path) -> None:
    policy = Policy.from_base(tiny_base(tmp_path), WORDS)
    ids = policy.encode_prompt(policy_prompt(f"a red {token_of('steps=4')} apple <eos>", budget_s=1.0))
    assert max(ids) < min(policy.columns)
    assert policy.tokenizer.eos_token_id not in ids


def test_a_long_prompt_loses_its_end_and_none_of_the_facts(tmp_path: Path) -> None:
    policy = Policy.from_base(tiny_base(tmp_path), WORDS)
    ids = policy.encode_prompt(
        policy_prompt("very " * 400 + "long", budget_s=1.5, labels={"category": ["food"]})
    )
    assert len(ids) == PROMPT_TOKENS
    assert str(policy.tokenizer.decode(ids)).endswith("\nCategory: food\nSeconds: 1.5\nWorkflow:")


def test_rows_start_near_the_words_in_their_names(tmp_path: Path) -> None:
    policy = Policy.from_base(tiny_base(tmp_path), WORDS)
    embedding = policy.model.get_input_embeddings()  # type: ignore[operator]
    spelled = torch.tensor(policy.tokenizer(" steps 1 2")["input_ids"])
    mean = embedding(spelled).mean(dim=0).detach()
    row = {word: embedding(torch.tensor(policy.vocabulary.ids[word])) for word in WORDS}
    nearest = min(WORDS, key=lambda word: float((row[word].detach() - mean).norm()))
    assert nearest == "steps=12"


def test_words_added_later_leave_the_earlier_rows_alone(tmp_path: Path) -> None:
    first = Policy.from_base(tiny_base(tmp_path / "base"), WORDS)
    with torch.no_grad():
        first.model.get_input_embeddings().weight[first.columns] += 1.0  # type: ignore[union-attr] # as if trained
    first.save(tmp_path / "first")

    later = Policy.from_base(tmp_path / "first", ("steps=16", *reversed(WORDS)))
    before = first.model.get_input_embeddings()(first.columns)  # type: ignore[operator]
    after = later.model.get_input_embeddings()(later.columns)  # type: ignore[operator]
    assert torch.equal(after[1:], before.flip(0))
    assert later.vocabulary.ids["steps=16"] == max(first.vocabulary.ids.values()) + 1


def test_saved_and_loaded_policies_agree(tmp_path: Path) -> None:
    policy = Policy.from_base(tiny_base(tmp_path / "base"), WORDS)
    policy.save(tmp_path / "saved")
    loaded = Policy.load(tmp_path / "saved", WORDS)
    ids = torch.tensor([policy.encode_prompt(policy_prompt("an apple"))])
    assert torch.allclose(policy.model(ids).logits, loaded.model(ids).logits, atol=1e-6)
    assert policy.model(ids).logits.shape == (1, ids.shape[1], len(WORDS))


def test_a_space_with_unknown_words_is_refused(tmp_path: Path) -> None:
    Policy.from_base(tiny_base(tmp_path / "base"), WORDS).save(tmp_path / "saved")
    with pytest.raises(FlowtailorError, match="no token for 'steps=99'"):
        Policy.load(tmp_path / "saved", (*WORDS, "steps=99"))


def test_the_prompt_text_is_one_line_and_carries_the_wishes() -> None:
    assert policy_prompt("a red\n apple", budget_s=1.25, score=0.9) == (
        "a red apple\nSeconds: 1.2\nScore: 0.90\nWorkflow:"
    )
    assert (
        policy_prompt("an apple", labels={"category": ["food", "plants"]})
        == "an apple\nCategory: food or plants\nSeconds: any\nWorkflow:"
    )
    assert policy_prompt("an apple") == "an apple\nSeconds: any\nWorkflow:"
