"""TRL's trainers with the grammar's mask in sampling and in the loss.

Shapes: B rows, L tokens of prompt and design, T words of the longest design, V words of the space.

Promises: a log-probability in the loss is the one that sampling used, up to the rounding of a KV
cache; what the rows of a batch have in common is computed once, in sampling as in the loss.
`GRPOTrainer` has no place for a mask, so three private methods of TRL 1.16 are overridden; everything
else (groups, advantages, clipping, accumulation, logging) is TRL's own. The model must come from
`models/policy.py`: its logits are the V words only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from flowtailor.errors import FlowtailorError

from .constrained import (
    AllowedMasks,
    CachedDecoder,
    masked_entropy,
    masked_log_softmax,
    prompt_reader,
    sample,
)
from .policy import Policy
from .prefix_tree import PrefixTree, PromptReader


class WordIds:
    """Token ids of the language model -> word ids of the space, -1 for any other token."""

    def __init__(self, columns: torch.Tensor) -> None:
        self._table = torch.full((int(columns.max()) + 1,), -1)
        self._table[columns] = torch.arange(len(columns))

    def __call__(self, token_ids: torch.Tensor) -> torch.Tensor:
        known = (token_ids >= 0) & (token_ids < len(self._table))
        words = self._table.to(token_ids.device)[token_ids.masked_fill(~known, 0)]
        return words.masked_fill(~known, -1)


def score_words(
    logits: torch.Tensor, words: torch.Tensor, masks: AllowedMasks | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, T, V) and the words (B, T) they should say, -1 for none; without masks, among all words.

    Returns the log-probabilities of the words, (B, T), 0 where there is none, and all of them (B, T, V).
    """
    allowed = torch.ones_like(logits, dtype=torch.bool) if masks is None else masks.batch(words)
    logprobs = masked_log_softmax(logits, allowed)
    said = logprobs.gather(-1, words.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return said.masked_fill(words < 0, 0.0), logprobs


def tree_logits(
    model: Any,
    prompts: Sequence[list[int]],
    words_BT: torch.Tensor,
    columns: torch.Tensor,
    reader: PromptReader | None = None,
) -> torch.Tensor:
    """Logits (B, T, V) from which each word is drawn; beginnings that rows share are computed once.

    prompts: token ids. words_BT: word ids, -1 behind the end. columns: (V,), the token id of each word.
    reader: who reads the prompts up to their last token, without gradients; none: the model itself.
    """
    if reader:
        tree, paths = reader.read(prompts)
    else:
        tree = PrefixTree()
        paths = [tree.add(prompt[:-1]) for prompt in prompts]
    known = tree.seen
    sources = torch.full_like(words_BT, known)  # (B, T): the node from which each word was drawn
    for row, said in enumerate(_lists(words_BT, words_BT >= 0)):
        nodes = tree.add([prompts[row][-1], *columns[said[:-1]].tolist()], after=paths[row])
        sources[row, : len(said)] = torch.tensor(nodes)
    return tree.read(model)[0, sources - known]


SHARE_COLUMNS = ("share_words", "shares")


class ShareCollator(DataCollatorForLanguageModeling):
    """TRL's, and `shares_BTV`: of the words that may stand at each place of a design, 0 behind its end.

    An example has them in SHARE_COLUMNS, word ids and numbers, a list for each place.
    """

    def __init__(self, pad_token_id: int, words: int) -> None:
        super().__init__(pad_token_id)
        self._words = words

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        told = [list(zip(*(example[name] for name in SHARE_COLUMNS), strict=True)) for example in examples]
        shares_BTV = torch.zeros(len(told), max(map(len, told)), self._words)
        for row, places in enumerate(told):
            for place, (words, shares) in enumerate(places):
                shares_BTV[row, place, words] = torch.tensor(shares)
        return {**super().torch_call(examples), "shares_BTV": shares_BTV}


class MaskedSFTTrainer(SFTTrainer):
    """Imitates designs; a word that the grammar forces teaches nothing and costs nothing.

    The dataset has input_ids, labels and what `ShareCollator` reads.
    """

    def __init__(self, policy: Policy, masks: AllowedMasks, *, merged: bool = True, **kwargs: Any) -> None:
        """merged: whether the adapter will be folded into the weights, and so learns to read prompts too."""
        self.policy, self.masks, self.word_ids = policy, masks, WordIds(policy.columns)
        pad_id = int(policy.tokenizer.pad_token_id)  # type: ignore[arg-type]
        super().__init__(
            model=policy.model,  # type: ignore[arg-type]
            processing_class=policy.tokenizer,
            data_collator=ShareCollator(pad_id, len(policy.columns)),
            **kwargs,
        )
        self.reader = None if merged else prompt_reader(policy.model)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "labels", *SHARE_COLUMNS]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy to the shares per word, over the words of the completion."""
        ids, labels = inputs["input_ids"], self.word_ids(inputs["labels"])
        prompts = _lists(ids, (inputs["attention_mask"] > 0) & (labels < 0))
        designs = [torch.tensor(row) for row in _lists(labels, labels >= 0)]
        words = pad_sequence(designs, batch_first=True, padding_value=-1).to(ids.device)
        logits = tree_logits(model, prompts, words, self.policy.columns, self.reader)
        _, logprobs = score_words(logits, words, self.masks)
        count = (words >= 0).sum()
        with torch.no_grad():
            chosen = (words >= 0) & (masked_entropy(logprobs) > 0)  # places with a choice
            hit = (logprobs.argmax(dim=-1) == words) & chosen
            mode = "train" if model.training else "eval"
            self._metrics[mode]["choice_accuracy"].append((hit.sum() / chosen.sum().clamp(min=1)).item())
        shares = inputs["shares_BTV"]
        if len(refused := ((shares > 0) & logprobs.isinf()).nonzero()):
            word = self._token(int(refused[0, -1]))
            raise FlowtailorError(
                f"sft: a taught design says {word} where the grammar does not offer it; perhaps it is "
                "longer than space.max_tokens: raise that, or leave such rows out"
            )
        told = (shares * logprobs.masked_fill(shares == 0, 0.0)).sum()
        return -told / (count if num_items_in_batch is None else num_items_in_batch)

    def _token(self, word: int) -> str:
        """How the language model writes a word of the space: <|steps=12|>."""
        return str(self.policy.tokenizer.convert_ids_to_tokens(int(self.policy.columns[word])))


class MaskedGRPOTrainer(GRPOTrainer):
    """GRPO on designs. Also logs `kl` to the policy without the adapter, whether the loss uses it or not."""

    def __init__(self, policy: Policy, masks: AllowedMasks, *, mask_loss: bool = True, **kwargs: Any) -> None:
        """mask_loss: False leaves the grammar to sampling, so that the loss is that of another policy."""
        self.policy, self.masks, self.word_ids = policy, masks, WordIds(policy.columns)
        self.mask_loss = mask_loss
        super().__init__(model=policy.model, processing_class=policy.tokenizer, **kwargs)  # type: ignore[arg-type]
        if "ref" in getattr(policy.model, "peft_config", {}):
            # TRL's copy of the adapter as it was: of one that goes on, the reference would be no longer SFT.
            policy.model.delete_adapter("ref")  # type: ignore[operator]
        self.reader = prompt_reader(policy.model)
        self.eos_token_ids = [int(policy.columns[-1])]  # a space's last word is its end

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.policy.encode_prompt(text) for text in prompts], None, {}

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int, *_: Any
    ) -> tuple[list[list[int]], None]:
        """One design per prompt; TRL repeats each prompt `num_generations` times in a row."""
        model = self.accelerator.unwrap_model(self.model)
        decoder = CachedDecoder(model, self.policy.columns, reader=self.reader)
        first = f"{self.args.seed} {self.accelerator.process_index} {self.state.global_step} {self._step}"
        drawn = sample(
            decoder,
            self.masks,
            _first_of_each(prompt_ids, num_generations),
            seeds=[f"{first} {row}" for row in range(len(prompt_ids))],
            temperatures=[self.temperature] * len(prompt_ids),
        )
        return [self.policy.columns[one.words].tolist() for one in drawn], None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """(B, L) ids whose last `logits_to_keep` are the designs -> log-probabilities, entropies (B, T)."""
        words = self.word_ids(input_ids[:, -logits_to_keep:])
        prompts = _lists(input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep] > 0)
        size = batch_size or len(input_ids)
        parts = []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            parts.append(self._score(model, prompts[rows], words[rows]))
        said = torch.cat([part[0] for part in parts])
        if not compute_entropy:
            return said, None, None
        entropies = torch.cat([masked_entropy(part[1]) for part in parts])
        if self.beta == 0.0:
            self._log_kl(prompts[:size], words[:size], parts[0][1].detach())
        return said, entropies.masked_fill(words < 0, 0.0), None

    def _score(
        self, model: Any, prompts: Sequence[list[int]], words: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`score_words` of designs (B, T) after their prompts, at the sampling temperature."""
        with self.accelerator.autocast():
            logits = tree_logits(model, prompts, words, self.policy.columns, self.reader)
        masks = self.masks if self.mask_loss else None
        return score_words(logits / self.temperature, words, masks)

    @torch.no_grad()
    def _log_kl(self, prompts: Sequence[list[int]], words: torch.Tensor, logprobs: torch.Tensor) -> None:
        """Log the exact KL(policy || reference) per word."""
        model = self.accelerator.unwrap_model(self.model)
        if not isinstance(model, PeftModel):
            return
        with model.disable_adapter():
            reference = self._score(model, prompts, words)[1]
        kl = (logprobs.exp() * (logprobs - reference).masked_fill(logprobs.isinf(), 0.0)).sum(dim=-1)
        self._metrics["train" if model.training else "eval"]["kl"].append(kl[words >= 0].mean().item())


def _lists(values: torch.Tensor, real: torch.Tensor) -> list[list[int]]:
    """The real values (B, T) of each row."""
    return [row[keep].tolist() for row, keep in zip(values, real, strict=True)]


def _first_of_each(prompts: Sequence[list[int]], repeat: int) -> list[list[int]]:
    """One prompt per group; all of them where the groups are not whole (TRL's evaluation)."""
    groups = [list(prompts[start : start + repeat]) for start in range(0, len(prompts), repeat)]
    if len(prompts) % repeat or any(group != [group[0]] * repeat for group in groups):
        return list(prompts)
    return [group[0] for group in groups]
