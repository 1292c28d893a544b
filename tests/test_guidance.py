"""Guided decoding against two separate models without cache or padding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from tiny_policy import WORDS, tiny_base, tiny_policy, toy_masks
from transformers import DynamicCache

from flowtailor.models.constrained import CachedDecoder, masked_log_softmax, sample
from flowtailor.models.guidance import GuidedDecoder, mix
from flowtailor.models.policy import Policy, lora_config
from flowtailor.models.policy_file import write_description

PROMPTS = ("an apple", "a much longer prompt than the first one", "x")


def adapted(policy: Policy, folder: Path) -> tuple[Policy, Policy, Policy]:
    """(both in one model, the base alone, the adapted one alone) with a random LoRA "grpo"."""
    policy.save(folder / "sft")
    words = tuple(policy.vocabulary.ids)
    wrapped = get_peft_model(Policy.load(folder / "sft", words).model, lora_config(4))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(str(folder / "grpo"))
    write_description(folder / "grpo")
    adapters = {"grpo": folder / "grpo"}
    both, alone = (Policy.load(folder / "sft", words, adapters) for _ in range(2))
    alone.model.merge_adapter()  # type: ignore[operator]
    return both, Policy.load(folder / "sft", words), alone


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Policy, Policy, Policy]]:
    folder = Path(tmp_path_factory.mktemp("guided"))
    yield adapted(tiny_policy(folder), folder)


def after(reader: Policy, speaker: Policy, prefix: list[int], words: list[int]) -> torch.Tensor:
    """(T, V): what the speaker would say at each place, after a prompt that the reader has read."""
    cache = DynamicCache(config=reader.model.config)
    for token in prefix[:-1]:
        reader.model(torch.tensor([[token]]), past_key_values=cache)
    said = [prefix[-1], *words[:-1]]
    steps = [speaker.model(torch.tensor([[token]]), past_key_values=cache).logits[0] for token in said]
    return torch.cat(steps)


@torch.no_grad()
def naive(sft: Policy, grpo: Policy, prompt: str, words: list[int], w: float) -> torch.Tensor:
    """(T, V) guided masked log-probabilities from two models, word by word.

    Both say what they do after a prompt that the policy without the adapter has read but for its last token.
    """
    prefix = sft.encode_prompt(prompt)
    base, tuned = (after(sft, p, prefix, sft.columns[words].tolist()) for p in (sft, grpo))
    return masked_log_softmax(base + w * (tuned - base), toy_masks().replay(words))


@pytest.mark.parametrize("w", [0.0, 1.0, 1.5, 3.0, -1.0])
def test_guided_logprobs_equal_two_models(trio: tuple[Policy, Policy, Policy], w: float) -> None:
    both, sft, grpo = trio
    decoder = GuidedDecoder(both.model, both.columns, adapter="grpo", w=[w] * len(PROMPTS))
    prompts = [both.encode_prompt(text) for text in PROMPTS]
    drawn = sample(decoder, toy_masks(), prompts, seeds=range(6), temperatures=[1.0] * 6)
    for index, one in enumerate(drawn):
        expected = naive(sft, grpo, PROMPTS[index // 2], one.words, w)[range(len(one.words)), one.words]
        assert torch.allclose(torch.tensor(one.logprobs), expected, atol=1e-4)


@pytest.mark.parametrize(("w", "name"), [(0.0, "__base__"), (1.0, "grpo")])
def test_the_ends_of_the_scale_are_the_two_policies(
    trio: tuple[Policy, Policy, Policy], w: float, name: str
) -> None:
    both = trio[0]
    single = CachedDecoder(both.model, both.columns, adapters=(name,))
    guided = GuidedDecoder(both.model, both.columns, adapter="grpo", w=[w])
    prompt = [both.encode_prompt("an apple")]
    for words in ([0], [1, 2]):
        for decoder in (single, guided):
            decoder.start(prompt)
        assert torch.allclose(single.feed([words]), guided.feed([words]), atol=1e-5)


def test_each_prompt_has_its_own_w(trio: tuple[Policy, Policy, Policy]) -> None:
    both = trio[0]
    prompts = [both.encode_prompt(text) for text in PROMPTS[:2]]
    decoder = GuidedDecoder(both.model, both.columns, adapter="grpo", w=[0.0, 2.0])
    together = decoder.start(prompts)
    for row, w in enumerate((0.0, 2.0)):
        alone = GuidedDecoder(both.model, both.columns, adapter="grpo", w=[w])
        assert torch.allclose(together[row], alone.start([prompts[row]])[0], atol=1e-4)


def test_mixing_comes_before_the_mask() -> None:
    base, tuned = torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, -5.0]])
    guided = mix(base, tuned, torch.tensor([2.0]))
    assert torch.equal(guided, torch.tensor([[2.0, -15.0]]))
    assert masked_log_softmax(guided, torch.tensor([[True, False]]))[0, 0] == 0


@pytest.mark.slow
def test_guided_logprobs_equal_two_models_on_the_real_backbone(tmp_path: Path) -> None:
    from flowtailor.models.weights import resolve

    policy = Policy.from_base(resolve("smollm2-135m-instruct"), WORDS)
    both, sft, grpo = adapted(policy, tmp_path)
    decoder = GuidedDecoder(both.model, both.columns, adapter="grpo", w=[1.5] * 2)  # type: ignore[arg-type]
    prompts = [both.encode_prompt(text) for text in PROMPTS[:2]]
    drawn = sample(decoder, toy_masks(), prompts, seeds=range(4), temperatures=[1.0] * 4)
    for index, one in enumerate(drawn):
        expected = naive(sft, grpo, PROMPTS[index // 2], one.words, 1.5)[range(len(one.words)), one.words]
        assert torch.allclose(torch.tensor(one.logprobs), expected, atol=1e-4)


def test_tiny_base_is_deterministic(tmp_path: Path) -> None:
    one, other = (Policy.from_base(tiny_base(tmp_path / name), WORDS) for name in "ab")
    ids = torch.tensor([one.encode_prompt("an apple")])
    assert torch.equal(one.model(ids).logits, other.model(ids).logits)


@torch.no_grad()
def test_decoding_leaves_the_model_as_it_was(trio: tuple[Policy, Policy, Policy]) -> None:
    both, ids = trio[0], torch.tensor([[5, 6, 7]])
    modules, before = list(both.model.modules()), both.model(ids).logits
    decoder = CachedDecoder(both.model, both.columns)  # the active adapter
    decoder.start([[5, 6, 7]])
    assert list(both.model.modules()) == modules
    assert torch.equal(both.model(ids).logits, before)
    assert torch.equal(both.model(ids).logits, before)
