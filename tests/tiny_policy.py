"""A tiny random language model, its tokenizer and a toy grammar, for tests of the policy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flowtailor.models.constrained import AllowedMasks
from flowtailor.models.policy import Policy

WORDS = ("Save", "Steps", "steps=4", "steps=8", "steps=12", "Upscale", "again", "<end>")


class ToyState(NamedTuple):
    place: str
    rounds: int = 0


class ToyGrammar:
    """Save (Upscale again?)* Steps steps=N <end>: some words are forced, lengths differ."""

    _moves: ClassVar = {
        "start": ("Save",),
        "body": ("Steps", "Upscale"),
        "upscaled": ("again", "Steps"),
        "steps": ("steps=4", "steps=8", "steps=12"),
        "last": ("<end>",),
        "done": (),
    }

    def start(self) -> ToyState:
        return ToyState("start")

    def allowed(self, state: ToyState) -> tuple[int, ...]:
        words = self._moves[state.place]
        if state.rounds >= 3:
            words = tuple(word for word in words if word not in ("Upscale", "again"))
        return tuple(sorted(WORDS.index(word) for word in words))

    def advance(self, state: ToyState, token_id: int) -> ToyState:
        word = WORDS[token_id]
        rounds = state.rounds + (word in ("Upscale", "again"))
        place = {
            "Save": "body",
            "Upscale": "upscaled",
            "again": "upscaled",
            "Steps": "steps",
            "<end>": "done",
        }
        return ToyState(place.get(word, "last"), rounds)


def toy_masks() -> AllowedMasks:
    return AllowedMasks(ToyGrammar(), len(WORDS))


def tiny_base(folder: Path) -> Path:
    """A Hugging Face folder with a random two-layer Llama over single characters."""
    characters = {"<pad>": 0, "<eos>": 1} | {chr(code): code for code in range(10, 127)}
    characters |= {chr(code): code for code in range(2, 10)}
    tokenizer = Tokenizer(models.BPE(vocab=characters, merges=[], unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=127,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def tiny_policy(folder: Path) -> Policy:
    """The tiny model with the toy grammar's words; their rows lie apart, as after training."""
    policy = Policy.from_base(tiny_base(folder / "base"), WORDS)
    with torch.no_grad():
        rows = torch.randn(len(WORDS), 32, generator=torch.Generator().manual_seed(1))
        policy.model.get_input_embeddings().weight[policy.columns] = 0.3 * rows  # type: ignore[index]
    return policy
