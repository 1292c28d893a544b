"""Sampling under a grammar, and the same mask for the loss.

Shapes: B rows, P prompts (B = P * repeat), R distinct rows, T words of a design, V words of the space.

Promises: every sampled sequence is one that the grammar accepts; a row depends on its own seed alone,
not on what else is in the batch (up to rounding); a word that the grammar forces costs neither a
random number nor a forward of its own, and rows that have said the same so far are computed once.
Knows nothing of what the words mean.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from peft import PeftModel
from torch import nn

from .prefix_tree import PromptReader
from .row_lora import BASE, with_rows


class TokenGrammar(Protocol):
    """A state machine over word ids 0..V-1; `allowed` is empty when the sequence is complete."""

    def start(self) -> Any: ...

    def allowed(self, state: Any) -> tuple[int, ...]: ...

    def advance(self, state: Any, token_id: int) -> Any: ...


class AllowedMasks:
    """What a grammar allows, as boolean tensors; computed once per set and per sequence."""

    def __init__(self, grammar: TokenGrammar, size: int) -> None:
        self.grammar = grammar
        self.size = size  # V
        self._sets: dict[tuple[int, ...], torch.Tensor] = {}
        self._replays: dict[tuple[int, ...], torch.Tensor] = {}

    def of(self, allowed: tuple[int, ...]) -> torch.Tensor:
        """(V,) bool."""
        if allowed not in self._sets:
            mask = torch.zeros(self.size, dtype=torch.bool)
            mask[list(allowed)] = True
            self._sets[allowed] = mask
        return self._sets[allowed]

    def replay(self, words: Sequence[int]) -> torch.Tensor:
        """(T, V) bool: what was allowed at each place of an accepted sequence."""
        key = tuple(words)
        if key not in self._replays:
            if len(self._replays) > 4096:  # a GRPO run makes new sequences for ever
                self._replays.clear()
            state, rows = self.grammar.start(), []
            for word in key:
                rows.append(self.of(self.grammar.allowed(state)))
                state = self.grammar.advance(state, word)
            self._replays[key] = torch.stack(rows)
        return self._replays[key]

    def batch(self, words: torch.Tensor) -> torch.Tensor:
        """(B, T) word ids, -1 where there is none -> (B, T, V) bool; all True where there is none."""
        masks = torch.ones((*words.shape, self.size), dtype=torch.bool)
        for row, ids in enumerate(words.tolist()):
            places = [place for place, word in enumerate(ids) if word >= 0]
            if places:
                masks[row, places] = self.replay([ids[place] for place in places])
        return masks.to(words.device)


def masked_log_softmax(logits: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """(..., V) log-probabilities among the allowed words, -inf elsewhere."""
    return logits.float().masked_fill(~allowed, float("-inf")).log_softmax(dim=-1)


def masked_entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """(..., V) log-probabilities with -inf -> (...,) entropy in nats."""
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isinf(), 0.0)).sum(dim=-1)


class Decoder(Protocol):
    """Next-word logits of a batch of rows that grow."""

    def start(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """P prompts as token ids -> (P, V)."""
        ...

    def feed(self, words: Sequence[Sequence[int]]) -> torch.Tensor:
        """One or more further words per row -> (R, V)."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; one that is named twice goes on as two."""
        ...


def prompt_reader(model: Any) -> PromptReader:
    """Of prompts that the model answers, or adapters of it: it reads with none of them."""
    return PromptReader(with_rows(model.get_base_model(), (BASE,)) if isinstance(model, PeftModel) else model)


class CachedDecoder:
    """A model that reads every beginning once (`prefix_tree.py`); of a PEFT model's adapters the active one,
    as they are now.

    With `adapters`, names of them, all is said once per name (`BASE` is no adapter) in the one batch: logits
    are then (len(adapters) * R, V), the rows of the first name first. Adapters act from the last token of a
    prompt on; the rest is read by the model without them, or by `reader`, which does so too.
    """

    def __init__(
        self,
        model: nn.Module,
        columns: torch.Tensor,
        *,
        adapters: Sequence[str] = (),
        reader: PromptReader | None = None,
    ) -> None:
        names = adapters or getattr(model, "active_adapters", ())
        self._model = with_rows(model.get_base_model(), names) if isinstance(model, PeftModel) else model
        self._reader = reader or prompt_reader(model)
        self._columns, self._copies = columns.tolist(), max(1, len(adapters))
        self.device = next(model.parameters()).device

    def start(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        self._tree, self._paths = self._reader.read(prompts)
        return self._say([prompt[-1:] for prompt in prompts])

    def feed(self, words: Sequence[Sequence[int]]) -> torch.Tensor:
        return self._say([[self._columns[word] for word in row] for row in words])

    def keep(self, rows: Sequence[int]) -> None:
        self._paths = [self._paths[row] for row in rows]

    @torch.no_grad()
    def _say(self, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
        """What each row says next, after it has said its chunk."""
        known = self._tree.seen
        said = [self._tree.add(row, after=path) for row, path in zip(chunks, self._paths, strict=True)]
        self._paths = [path + nodes for path, nodes in zip(self._paths, said, strict=True)]
        logits = self._tree.read(self._model, self._copies)
        return logits[:, [path[-1] - known for path in self._paths]].flatten(0, 1)


@dataclass
class Sample:
    """One sampled design: word ids, the last one the end, and their log-probabilities.

    logprobs: under the mask at temperature 1. sampled_logprobs: at the temperature of the sampling.
    """

    words: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled_logprobs: list[float] = field(default_factory=list)


class _Row:
    """A sample on its way through the grammar."""

    def __init__(self, grammar: TokenGrammar, seed: int | str) -> None:
        self.grammar, self.sample = grammar, Sample()
        self.state = grammar.start()
        self.rng = random.Random(seed)

    def allowed(self) -> tuple[int, ...]:
        return self.grammar.allowed(self.state)

    def push(self, word: int, logprob: float, sampled_logprob: float) -> None:
        self.state = self.grammar.advance(self.state, word)
        self.sample.words.append(word)
        self.sample.logprobs.append(logprob)
        self.sample.sampled_logprobs.append(sampled_logprob)

    def push_forced(self) -> list[int]:
        """Follow the grammar as long as it leaves no choice; the words that this added."""
        begin = len(self.sample.words)
        while len(allowed := self.allowed()) == 1:
            self.push(allowed[0], 0.0, 0.0)
        return self.sample.words[begin:]


def sample(
    decoder: Decoder,
    masks: AllowedMasks,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int | str],
    temperatures: Sequence[float],
) -> list[Sample]:
    """Draw one design per seed; prompt p owns the seeds p * repeat .. (p + 1) * repeat - 1.

    prompts: P lists of token ids. temperatures: one per row; 0 takes the likeliest word.
    """
    repeat = len(seeds) // len(prompts)
    rows = [_Row(masks.grammar, seed) for seed in seeds]
    heat = torch.tensor(temperatures, dtype=torch.float32)
    samples = [row.sample for row in rows]
    logits = decoder.start(prompts)
    opening = [row.push_forced() for row in rows]
    if opening[0]:
        logits = decoder.feed(opening[: len(prompts)])
    held = [index // repeat for index in range(len(rows))]  # by which of the decoder's rows
    while True:
        chunks = _choose(rows, logits[held], masks, heat)
        alive = [index for index, row in enumerate(rows) if row.allowed()]
        if not alive:
            return samples
        rows, heat = [rows[index] for index in alive], heat[alive]
        places: dict[tuple[int, tuple[int, ...]], int] = {}  # of what was held and has now been said
        held = [places.setdefault((held[index], tuple(chunks[index])), len(places)) for index in alive]
        decoder.keep([parent for parent, _ in places])
        logits = decoder.feed([chunk for _, chunk in places])


def _choose(
    rows: Sequence[_Row], logits: torch.Tensor, masks: AllowedMasks, heat: torch.Tensor
) -> list[list[int]]:
    """Draw a word for every row, then follow what it forces; the words that each row gained."""
    allowed = torch.stack([masks.of(row.allowed()) for row in rows])
    logits = logits.float().cpu()
    plain = masked_log_softmax(logits, allowed)
    heated = masked_log_softmax(logits / heat.clamp(min=1e-6)[:, None], allowed)
    drawn = _inverse_cdf(heated, torch.tensor([row.rng.random() for row in rows], dtype=torch.float64))
    words = torch.where(heat > 0, drawn, plain.argmax(dim=-1))[:, None]
    scores = zip(plain.gather(1, words)[:, 0].tolist(), heated.gather(1, words)[:, 0].tolist(), strict=True)
    chunks = []
    for row, word, (logprob, sampled) in zip(rows, words[:, 0].tolist(), scores, strict=True):
        row.push(word, logprob, sampled)
        chunks.append([word, *row.push_forced()])
    return chunks


def _inverse_cdf(logprobs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(B, V) log-probabilities, (B,) numbers in [0, 1) -> (B,) drawn indices of positive probability."""
    ends = logprobs.double().exp().cumsum(dim=-1)
    target = (uniform.clamp(max=1 - 1e-12) * ends[:, -1])[:, None]
    return torch.searchsorted(ends, target, right=True)[:, 0]
