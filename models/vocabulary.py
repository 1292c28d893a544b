"""The workflow words inside a language model: one added token per word of a space.

Shapes: N tokens of the language model, V words, H hidden size.

Promises: a word is one token whatever stands around it; plain text never becomes such a token when
it is tokenised with `split_special_tokens=True`; words added later leave the rows of earlier words as
they are. Knows nothing of grammars: which word may follow which is `constrained.py`'s business.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from flowtailor.errors import FlowtailorError

VOCABULARY_FILE = "vocabulary.json"
# Rows of the same pieces in another order ("steps=12", "steps=21") must start apart.
NOISE = 0.1


@dataclass(frozen=True)
class Vocabulary:
    """Word -> token id of the language model."""

    ids: Mapping[str, int]

    def columns(self, words: Sequence[str]) -> torch.Tensor:
        """Token ids of `words` in their order, (V,) int64: column c of the logits is word c."""
        missing = [word for word in words if word not in self.ids]
        if missing:
            raise FlowtailorError(
                f"the policy has no token for {missing[0]!r} ({len(missing)} words missing); "
                "it was trained in another space: run `flowtailor sft` again, or take in what is new with "
                "`flowtailor refine --new-models`"
            )
        return torch.tensor([self.ids[word] for word in words], dtype=torch.long)

    def save(self, folder: Path) -> None:
        (folder / VOCABULARY_FILE).write_text(json.dumps(dict(self.ids), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Raises FlowtailorError where there is none."""
        found = cls.find(folder)
        if found is None:
            raise FlowtailorError(f"{folder}: holds no {VOCABULARY_FILE}, so no policy; run `flowtailor sft`")
        return found

    @classmethod
    def find(cls, folder: Path) -> Vocabulary | None:
        file = folder / VOCABULARY_FILE
        return cls(json.loads(file.read_text())) if file.is_file() else None


def token_of(word: str) -> str:
    """The token that stands for a word: marked, because a prompt may well contain the bare word."""
    return f"<|{word}|>"


def input_of(word: str) -> str:
    """The input that a value word answers: "ckpt_name=a.ckpt" -> "ckpt_name"; other words are their own."""
    return word.partition("=")[0]


def name_pieces(word: str) -> list[str]:
    """The plain words in a name: "sampler_name=dpmpp_2m" -> ["sampler", "name", "dpmpp", "2", "m"]."""
    return [piece.lower() for piece in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", word)]


def add_words(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    words: Iterable[str],
    known: Vocabulary | None = None,
) -> Vocabulary:
    """Give every word a token and an embedding row; words that have one already keep it unchanged.

    A new row is the mean of the embeddings of the pieces of its name plus a small noise that depends
    on the word alone. In a model that knows other values of the same input ("ckpt_name=..."), it is the
    mean of theirs: a new value is about as likely as the known ones. The model must tie its word
    embeddings: the same row is what the word means and how likely it is.
    """
    if not model.config.get_text_config().tie_word_embeddings:
        raise FlowtailorError(
            f"{model.config.name_or_path or type(model).__name__}: the policy's base must tie its word "
            "embeddings (tie_word_embeddings = true), as SmolLM2 and the small Qwen2.5 do; take one of those"
        )
    ids = dict(known.ids) if known else {}
    new = [word for word in words if word not in ids]
    tokens = [AddedToken(token_of(word), special=True, normalized=False) for word in new]
    old_size = len(tokenizer)
    if tokenizer.add_tokens(tokens, special_tokens=True) != len(new):
        raise ValueError("a word of the space is already a token of the language model")
    rows = {word: _start_row(model, tokenizer, word, ids) for word in new}
    # Some models carry spare rows past the tokenizer's end; never shrink them.
    size = max(len(tokenizer), _rows(model).shape[0])
    model.resize_token_embeddings(size, mean_resizing=False)
    weight = _rows(model)
    with torch.no_grad():
        for offset, word in enumerate(new):
            ids[word] = old_size + offset
            weight[ids[word]] = rows[word].to(weight)
    return Vocabulary(ids)


def _rows(model: PreTrainedModel) -> torch.Tensor:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding.weight


def _start_row(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, word: str, ids: Mapping[str, int]
) -> torch.Tensor:
    """(H,) float32."""
    weight = _rows(model).detach()
    pieces = [row for other, row in ids.items() if "=" in word and input_of(other) == input_of(word)]
    if not pieces:
        text = "".join(f" {piece}" for piece in name_pieces(word)) or word
        pieces = tokenizer(text, add_special_tokens=False)["input_ids"]
    known = weight[torch.tensor(pieces, device=weight.device)].float().cpu()
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:7], "big")
    noise = torch.randn(known.shape[1], generator=torch.Generator().manual_seed(seed))
    return known.mean(dim=0) + NOISE * known.std() * noise
