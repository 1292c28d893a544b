"""Sampling under a grammar with a KV cache."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tiny_policy import WORDS, ToyGrammar, tiny_policy, toy_masks

from flowtailor.models.constrained import (
    CachedDecoder,
    Sample,
    masked_entropy,
    masked_log_softmax,
    sample,
)
from flowtailor.models.policy import Policy

PROMPTS = ("an apple", "a much longer prompt than that", "x")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policy]:
    yield tiny_policy(Path(tmp_path_factory.mktemp("policy")))


def draw(
    policy: Policy, prompts: tuple[str, ...], seeds: list[int], temperature: float = 1.0
) -> list[Sample]:
    return sample(
        CachedDecoder(policy.model, policy.columns),
        toy_masks(),
        [policy.encode_prompt(text) for text in prompts],
        seeds=seeds,
        temperatures=[temperature] * len(seeds),
    )


def slow_logprobs(policy: Policy, prompt: str, words: list[int], temperature: float = 1.0) -> torch.Tensor:
    """(T,) without cache, padding or batch: one forward over the whole sequence."""
    prefix = policy.encode_prompt(prompt)
    ids = torch.tensor([prefix + policy.columns[words].tolist()])
    with torch.no_grad():
        logits = policy.model(ids).logits[0, len(prefix) - 1 : -1] / temperature
    return masked_log_softmax(logits, toy_masks().replay(words))[range(len(words)), words]


@torch.no_grad()
def word_by_word(policy: Policy, prompt: str, seed: int) -> tuple[list[int], list[float]]:
    """Words and log-probabilities from one plain forward a word, forced or not."""
    masks, rng = toy_masks(), random.Random(seed)
    state, ids = masks.grammar.start(), policy.encode_prompt(prompt)
    words, logprobs = [], []
    while allowed := masks.grammar.allowed(state):
        scores = masked_log_softmax(policy.model(torch.tensor([ids])).logits[0, -1], masks.of(allowed))
        ends = scores.double().exp().cumsum(dim=0)
        point = rng.random() if len(allowed) > 1 else 0.0
        words.append(int((ends <= point * ends[-1]).sum()))
        logprobs.append(float(scores[words[-1]]))
        ids = [*ids, int(policy.columns[words[-1]])]
        state = masks.grammar.advance(state, words[-1])
    return words, logprobs


def test_samples_are_accepted_by_the_grammar(policy: Policy) -> None:
    grammar = ToyGrammar()
    for drawn in draw(policy, PROMPTS, list(range(60))):
        state = grammar.start()
        for word in drawn.words:
            assert word in grammar.allowed(state)
            state = grammar.advance(state, word)
        assert not grammar.allowed(state)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logprobs_are_those_of_one_plain_forward(policy: Policy, temperature: float) -> None:
    drawn = draw(policy, PROMPTS, list(range(12)), temperature)
    for index, one in enumerate(drawn):
        prompt = PROMPTS[index // 4]
        plain, heated = (slow_logprobs(policy, prompt, one.words, t) for t in (1.0, temperature))
        assert torch.allclose(torch.tensor(one.logprobs), plain, atol=1e-5)
        assert torch.allclose(torch.tensor(one.sampled_logprobs), heated, atol=1e-5)


def test_designs_are_those_of_word_by_word_decoding(policy: Policy) -> None:
    for seed, one in enumerate(draw(policy, PROMPTS, list(range(30)))):
        words, logprobs = word_by_word(policy, PROMPTS[seed // 10], seed)
        assert one.words == words
        assert one.logprobs == pytest.approx(logprobs, abs=1e-4)


def test_a_row_depends_on_its_seed_and_not_on_its_batch(policy: Policy) -> None:
    together = draw(policy, PROMPTS, list(range(9)))
    alone = [draw(policy, (PROMPTS[i // 3],), [i])[0] for i in range(9)]
    assert [one.words for one in together] == [one.words for one in alone]


def test_frequencies_follow_the_probabilities(policy: Policy) -> None:
    drawn = draw(policy, ("an apple",), list(range(2000)))
    counts = Counter(tuple(one.words) for one in drawn)
    by_words = {tuple(one.words): math.exp(sum(one.logprobs)) for one in drawn}
    for words, count in counts.most_common(5):
        expected = by_words[words]
        assert abs(count / 2000 - expected) < 4 * math.sqrt(expected / 2000)


def test_temperature_zero_takes_the_likeliest_word(policy: Policy) -> None:
    drawn = draw(policy, ("an apple",), [1, 2, 3], temperature=0.0)
    assert len({tuple(one.words) for one in drawn}) == 1


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each forward so far."""
    rows: list[int] = []
    original = CachedDecoder._say

    def say(self: CachedDecoder, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        rows.append(len(chunks))
        return original(self, chunks)

    monkeypatch.setattr(CachedDecoder, "_say", say)
    return rows


def test_forced_words_cost_no_forward(policy: Policy, fed: list[int]) -> None:
    (one,) = draw(policy, ("an apple",), [4])
    choices = sum(logprob != 0 for logprob in one.logprobs)
    assert len(fed) == 1 + choices  # the prompt, the forced opening, and each choice but the last
    assert len(one.words) > choices


def test_rows_that_said_the_same_so_far_are_computed_once(policy: Policy, fed: list[int]) -> None:
    drawn = draw(policy, PROMPTS[:2], list(range(40)))
    assert fed[:2] == [2, 2]  # the prompts and the forced opening
    for step, rows in enumerate(fed[2:], start=1):  # after the first choice, the second, ...
        assert rows == len(
            {(row // 20, *said) for row, one in enumerate(drawn) if (said := begun(one, step))}
        )


def begun(one: Sample, choices: int) -> list[int]:
    """The words of a design up to the next choice, after some; none where the design ends before it."""
    places = [place for place, logprob in enumerate(one.logprobs) if logprob != 0]
    return one.words[: places[choices]] if choices < len(places) else []


def test_entropy_and_softmax_under_a_mask_stay_finite() -> None:
    allowed = torch.tensor([[True, False, True], [False, True, False]])
    logprobs = masked_log_softmax(torch.tensor([[1.0, 9.0, 1.0], [3.0, 2.0, 1.0]]), allowed)
    assert torch.allclose(masked_entropy(logprobs), torch.tensor([math.log(2), 0.0]), atol=1e-6)


def test_batched_masks_equal_the_replay() -> None:
    masks = toy_masks()
    words = [WORDS.index(word) for word in ("Save", "Steps", "steps=8", "<end>")]
    batch = masks.batch(torch.tensor([[*words, -1], [-1, *words]]))
    assert torch.equal(batch[0, :4], masks.replay(words))
    assert torch.equal(batch[1, 1:], masks.replay(words))
    assert batch[0, 4].all()
