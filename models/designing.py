"""The designer: prompts in, workflows as words out.

Shapes: P prompts, n designs for each, B = P * n rows.

Promises: every design is a workflow of the space, in its canonical words however the policy put it; the
same prompt, wishes and seed give the same designs, whatever else is asked for at the same time (in bfloat16
up to rounding, which may tip a draw). Does not judge designs: the choice of the best of n is the caller's,
with a reward ensemble.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from flowtailor.errors import FlowtailorError
from flowtailor.precision import compute_dtype

from ..workflows.codec import respelled
from ..workflows.grammar import Grammar
from ..workflows.space import Space
from .constrained import AllowedMasks, CachedDecoder, Decoder, Sample, prompt_reader, sample
from .guidance import GuidedDecoder
from .int8 import shrink
from .policy import Policy
from .row_lora import BASE

ROUNDS, HOTTER = 2, 2.0  # of drawing until designs differ, and by what the temperature grows

T = TypeVar("T")
Guidance = float | Literal["sft"]


@dataclass(frozen=True)
class Design:
    """The words of one workflow without the end word; logprob of what the policy said, at temperature 1
    and under the mask."""

    tokens: list[str]
    logprob: float


class Designer:
    """The SFT policy with its adapters, ready to design. Calls from several threads wait for each other."""

    def __init__(self, policy: Policy, space: Space, *, max_tokens: int = 64) -> None:
        self.policy, self.space = policy, space
        self.masks = AllowedMasks(Grammar(space, max_tokens=max_tokens), len(space.vocabulary))
        self.adapters = tuple(getattr(policy.model, "peft_config", {}))
        self._reader = prompt_reader(policy.model)
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        sft_dir: Path,
        grpo_dir: Path | None,
        space: Space,
        *,
        score_conditioned_dir: Path | None = None,
        max_tokens: int = 64,
        device: str = "cpu",
    ) -> Designer:
        """Read a trained policy, on a CPU with weights of eight bits; a directory that is None leaves its
        adapter out."""
        given = {"grpo": grpo_dir, "score_conditioned": score_conditioned_dir}
        adapters = {name: folder for name, folder in given.items() if folder is not None}
        for folder in adapters.values():
            if not (folder / "adapter_config.json").is_file():
                raise FlowtailorError(
                    f"{folder}: holds no adapter; run `flowtailor sft` and `flowtailor grpo`"
                )
        policy = Policy.load(sft_dir, space.vocabulary, adapters, compute_dtype(device))
        policy.model.to(device)  # type: ignore[arg-type]
        if device == "cpu":
            shrink(policy.model)
        return cls(policy, space, max_tokens=max_tokens)

    def design(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        guidance: Guidance | Sequence[Guidance] = 1.0,
        temperature: float | Sequence[float] = 1.0,
        budget_s: float | Sequence[float | None] | None = None,
        seed: int | Sequence[int] = 0,
        score: float | None = None,
        adapter: str = "grpo",
    ) -> list[list[Design]]:
        """n designs per prompt. Wishes are one for all prompts or one per prompt.

        guidance: w of `models/guidance.py`, or "sft" for the policy without an adapter (the same as 0).
        score: the score that a score-conditioned adapter is asked for.
        """
        if not prompts:
            return []
        size = len(prompts)
        strengths = [0.0 if w == "sft" else float(w) for w in _each(guidance, size)]
        budgets, seeds = _each(budget_s, size), _each(seed, size)
        with self._lock:
            texts = [self.policy.prompt(text, b, score) for text, b in zip(prompts, budgets, strict=True)]
            samples = sample(
                self._decoder(adapter, strengths),
                self.masks,
                [self.policy.encode_prompt(text) for text in texts],
                seeds=[f"{s} {text} {i}" for s, text in zip(seeds, texts, strict=True) for i in range(n)],
                temperatures=[heat for heat in _each(temperature, size) for _ in range(n)],
            )
        designs = [self._design(one) for one in samples]
        return [designs[start : start + n] for start in range(0, len(designs), n)]

    def distinct(
        self,
        prompts: Sequence[str],
        *,
        n: int,
        guidance: Sequence[Guidance],
        temperature: Sequence[float],
        budget_s: Sequence[float | None],
        seed: Sequence[int],
    ) -> list[list[Design]]:
        """Up to n different designs per prompt, with wishes as in `design`, one per prompt.

        A sure policy says the same thing again and again, so what is missing is drawn hotter, ROUNDS
        times at most. At temperature 0 there is one design.
        """
        found: list[dict[tuple[str, ...], Design]] = [{} for _ in prompts]
        for again in range(ROUNDS):
            short = [p for p in range(len(prompts)) if len(found[p]) < (n if temperature[p] else 1)]
            drawn = self.design(
                [prompts[p] for p in short],
                n=n,
                guidance=[guidance[p] for p in short],
                temperature=[temperature[p] * HOTTER**again for p in short],
                budget_s=[budget_s[p] for p in short],
                seed=[seed[p] + again * 2**64 for p in short],  # beyond the seeds that a person gives
            )
            for p, designs in zip(short, drawn, strict=True):
                for one in designs:
                    found[p].setdefault(tuple(one.tokens), one)
        return [list(of_prompt.values())[:n] for of_prompt in found]

    def _decoder(self, adapter: str, strengths: list[float]) -> Decoder:
        model, columns = self.policy.model, self.policy.columns
        if not any(strengths):
            names = (BASE,) if self.adapters else ()
            return CachedDecoder(model, columns, adapters=names, reader=self._reader)
        if adapter not in self.adapters:
            raise FlowtailorError(
                f"adapter {adapter!r}: this policy has {', '.join(self.adapters) or 'none'}; "
                'train it first, or ask with guidance "sft"'
            )
        if all(w == 1.0 for w in strengths):
            return CachedDecoder(model, columns, adapters=(adapter,), reader=self._reader)
        return GuidedDecoder(model, columns, adapter=adapter, w=strengths, reader=self._reader)

    def _design(self, one: Sample) -> Design:
        words = [self.space.vocabulary[word] for word in one.words]
        return Design([*respelled(words, self.space)], sum(one.logprobs))


def _each(value: T | Sequence[T], size: int) -> list[T]:
    """One value per prompt; a single one is repeated."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != size:
            raise ValueError(f"{len(value)} values for {size} prompts")
        return list(value)
    return [value] * size  # type: ignore[list-item]
