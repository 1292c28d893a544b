"""The policy: a language model that writes workflow words after a prompt text.

Shapes: B rows, T positions, V words of the space, H hidden size, N tokens of the language model.

Promises: the model has logits for the V workflow words only, in sampling as in the loss. Under the
grammar's mask this equals the softmax over all N tokens exactly, and spares most of the last layer.
Does not know which word may follow which; `constrained.py` masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .labels import Labels
from .policy_file import read_description, write_description
from .vocabulary import Vocabulary, add_words

PROMPT_TOKENS = 160
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def policy_prompt(
    prompt: str,
    budget_s: float | None = None,
    score: float | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The text that the policy reads: the prompt, its labels where they are known (category: food or plants),
    what it may cost, and (if asked for) a score to reach.

    Kept short, because each of its tokens is paid for in every training step.
    """
    lines = [" ".join(prompt.split())]
    lines += [f"{label.capitalize()}: {' or '.join(told)}" for label, told in (labels or {}).items()]
    lines.append(f"Seconds: {'any' if budget_s is None else f'{budget_s:.2g}'}")
    if score is not None:
        lines.append(f"Score: {score:.2f}")
    return "\n".join([*lines, "Workflow:"])


class WordHead(nn.Module):
    """The last layer cut down to the words of a space: hidden (..., H) -> logits (..., V) float32.

    Reads its rows through the model's (tied) input embedding, so that rows in training count.
    """

    columns: torch.Tensor

    def __init__(self, embedding: nn.Module, columns: torch.Tensor) -> None:
        super().__init__()
        self._embedding = (embedding,)  # a tuple, lest it be registered as a second owner
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = self._embedding[0](self.columns)
        return hidden.float() @ rows.float().T


@dataclass
class Policy:
    """A model, its tokenizer, the words it knows, which of them are the space's, and how it tells labels.

    columns: (V,) int64, the token id of each word of the space; logits come in this order.
    labels: None for a policy that reads the prompt alone.
    budgets_s: the tightest and the loosest budget that it was taught; None for one that never read any.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    vocabulary: Vocabulary
    columns: torch.Tensor
    labels: Labels | None = None
    budgets_s: tuple[float, float] | None = None

    @classmethod
    def from_base(
        cls, folder: Path, words: Sequence[str], dtype: torch.dtype | Literal["auto"] = torch.float32
    ) -> Policy:
        """A plain language model, or an earlier policy, that has learnt the space's words by name; dtype
        "auto" is that of its file."""
        model, tokenizer = _read(folder, dtype)
        known = Vocabulary.find(folder)
        vocabulary = add_words(model, tokenizer, words, known)
        columns = vocabulary.columns(words)
        budgets_s = _budgets_of(folder) if known else None
        return cls(model, tokenizer, vocabulary, columns, Labels.find(folder), budgets_s).narrowed()

    @classmethod
    def load(
        cls,
        folder: Path,
        words: Sequence[str],
        adapters: dict[str, Path] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Policy:
        """What `save` wrote, for a space with `words`, with LoRA adapters {name: folder}, in eval mode.

        Raises FlowtailorError where one of the folders is of another version.
        """
        budgets_s = _budgets_of(folder)
        for made in (adapters or {}).values():
            read_description(made)
        vocabulary = Vocabulary.load(folder)
        columns = vocabulary.columns(words)
        model, tokenizer = _read(folder, dtype)
        for name, path in (adapters or {}).items():
            if isinstance(model, PeftModel):
                model.load_adapter(str(path), adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, str(path), adapter_name=name)
        policy = cls(model, tokenizer, vocabulary, columns, Labels.find(folder), budgets_s).narrowed()
        policy.model.eval()
        return policy

    def add_adapter(self, rank: int, *, train_words: bool = False) -> None:
        """Wrap the model in a fresh LoRA adapter; with `train_words` the words' rows learn too."""
        config = lora_config(rank, self.columns.tolist() if train_words else ())
        self.model = get_peft_model(self.model, config)  # type: ignore[arg-type]
        # A path of this machine has no place in a saved adapter, and PEFT would look there for a
        # vocabulary of another size and then save the whole embedding.
        self.model.peft_config["default"].base_model_name_or_path = ""
        self.narrowed()

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter alone, without the empty model card that PEFT adds."""
        self.model.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)
        write_description(folder)

    def merge_adapter(self) -> None:
        """Fold the adapter into the weights, which is what `save` can write."""
        assert isinstance(self.model, PeftModel)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # PEFT wonders at WordHead
            self.model = self.model.merge_and_unload()  # type: ignore[operator]
        self.narrowed()

    def narrowed(self) -> Policy:
        """Give the model a `WordHead`, which must read the embedding that is there now."""
        base = self._base
        base.lm_head = WordHead(base.get_input_embeddings(), self.columns)
        return self

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder with the full last layer; the model must carry no adapter."""
        base = self._base
        head = nn.Linear(base.config.hidden_size, len(self.tokenizer), bias=False)
        head.weight = base.get_input_embeddings().weight  # type: ignore[assignment]
        base.lm_head = head
        folder.mkdir(parents=True, exist_ok=True)
        base.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.vocabulary.save(folder)
        if self.labels:
            self.labels.save(folder)
        write_description(folder, budgets_s=self.budgets_s)
        self.narrowed()

    def prompt(self, text: str, budget_s: float | None = None, score: float | None = None) -> str:
        """The `policy_prompt` for what a person asks for.

        A budget outside of those that were taught would be a text that the policy has never read: a looser
        one is as good as none, for a tighter one the tightest is the nearest.
        """
        if budget_s is not None and self.budgets_s is not None:
            tightest, loosest = self.budgets_s
            budget_s = None if budget_s > loosest else max(budget_s, tightest)
        return policy_prompt(text, budget_s, score, self.labels_of(text))

    def labels_of(self, text: str) -> dict[str, tuple[str, ...]]:
        """What a prompt's text tells, by label; nothing for a policy that reads the prompt alone."""
        return self.labels.of(text) if self.labels else {}

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a `policy_prompt`, at most PROMPT_TOKENS; of a longer one the end of the first line,
        which is the person's, is cut.

        What a user types never becomes a workflow word, even if it spells one.
        """
        ids: list[int] = self.tokenizer(text, split_special_tokens=True)["input_ids"]  # type: ignore[assignment]
        if len(ids) <= PROMPT_TOKENS:
            return ids
        _, newline, facts = text.partition("\n")
        kept = len(self.tokenizer(newline + facts)["input_ids"])  # type: ignore[arg-type]
        return ids[: PROMPT_TOKENS - kept] + ids[len(ids) - kept :]

    @property
    def _base(self) -> Any:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model


def _budgets_of(folder: Path) -> tuple[float, float] | None:
    told = read_description(folder)["budgets_s"]
    return (float(told[0]), float(told[1])) if told else None


def _read(folder: Path, dtype: torch.dtype | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    logging.disable_progress_bar()  # reading 0.3 GB takes a second
    # On a CPU, plain attention over these short texts trains a third faster than the fused one.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, attn_implementation=attention)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def lora_config(rank: int, token_ids: Sequence[int] = ()) -> LoraConfig:
    """LoRA on every linear layer; with `token_ids` the embedding rows of these tokens learn too."""
    rows: dict[str, Any] = {"trainable_token_indices": {"embed_tokens": list(token_ids)}} if token_ids else {}
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LORA_TARGETS, task_type="CAUSAL_LM", **rows)
