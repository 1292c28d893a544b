"""A text encoder in CLIP-L's shape that needs no training: it looks words up, and averages them.

ComfyUI knows no smaller text encoder than CLIP-L (123 million weights). This one has its layout, but most of
it is zeros and the rest overlaps: matrices are strided views over short vectors, of which `torch.save` keeps
the vectors alone, 3 MB in all.

- Row i of the token embedding starts with token i's code: what MiniLM says of the word, in 32 numbers. It
  goes on with the codes of the tokens after it, which tell words apart that mean about the same.
- The first 16 positions add a mark of their own, outside the code: the order of words. All padding after
  them is alike, so that in training it counts as one token (`Captions`).
- All layers pass their input on, but the last. That one averages the words (queries and keys are zero) and
  so makes the pooled text a bag of words.

Shape legend: B captions, T tokens that differ, W = 768 width, V = 49,408 tokens of CLIP's vocabulary.

Promises: `Captions` equals what ComfyUI computes from `build`'s weights, for captions of up to T tokens.
Does not know grammar: "a cat on a dog" and "a dog on a cat" differ in the marks of order only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH, VOCABULARY, LENGTH, LAYERS = 768, 49_408, 77, 12
CODE = 32  # numbers that say what a word means
ORDERED = 16  # positions that differ
START, END = VOCABULARY - 2, VOCABULARY - 1  # END pads too
_MARK = 0.5  # size of a position's mark beside codes of size 1
_POOLING = 6.0  # how much louder the average is than the end token itself
_TOKENS = "text_model.embeddings.token_embedding.weight"
_POSITIONS = "text_model.embeddings.position_embedding.weight"

WordFeatures = Callable[[Sequence[str]], Tensor]


def load_tokenizer(comfyui: Path) -> Any:
    """CLIP's tokenizer as the engine in the folder `comfyui` has it."""
    from transformers import CLIPTokenizer  # here: the installed studio is found without it

    return CLIPTokenizer.from_pretrained(str(comfyui / "comfy" / "sd1_tokenizer"))


def build(word_features: WordFeatures, tokenizer: Any) -> dict[str, Tensor]:
    """Weights under CLIP's names, float16, to be kept with `torch.save`.

    `word_features` gives (N, any) features of N words; it is asked once, for the whole vocabulary.
    """
    codes = _codes(word_features, tokenizer)
    random = np.random.default_rng(0)
    after_the_last = random.standard_normal(WIDTH - CODE)
    base = torch.from_numpy(np.concatenate([codes.reshape(-1), after_the_last])).half()
    marks = torch.zeros(LENGTH, WIDTH).half()
    marks[:ORDERED, CODE:] = torch.from_numpy(_MARK * random.standard_normal((ORDERED, WIDTH - CODE)))
    state = {_TOKENS: base.as_strided((VOCABULARY, WIDTH), (CODE, 1)), _POSITIONS: marks}
    zero, one = torch.zeros(1).half(), torch.ones(1).half()
    for layer in range(LAYERS):
        state |= _layer(f"text_model.encoder.layers.{layer}.", zero, one, last=layer == LAYERS - 1)
    state["text_model.final_layer_norm.weight"] = one.as_strided((WIDTH,), (0,))
    state["text_model.final_layer_norm.bias"] = zero.as_strided((WIDTH,), (0,))
    return state


def _codes(word_features: WordFeatures, tokenizer: Any) -> np.ndarray:
    """(V, 32): principal components of the words' features, each of unit size; zero for START and END."""
    names = tokenizer.convert_ids_to_tokens(list(range(VOCABULARY)))
    words = [name.removesuffix("</w>") for name in names]
    unique = sorted(set(words[:START]))
    features = word_features(unique).double().numpy()
    row = {word: i for i, word in enumerate(unique)}
    # Of pieces and signs MiniLM knows little, and they are many: they are coded, but have no say.
    whole = sorted({w for w, name in zip(words, names, strict=True) if name.endswith("</w>") and w.isalpha()})
    known = features[[row[w] for w in whole if w.isascii() and len(w) > 2 and w in row]]
    mean = known.mean(0)
    _, axes = np.linalg.eigh(np.cov(known - mean, rowvar=False))
    axes = axes[:, ::-1][:, :CODE]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(CODE)])  # eigenvectors have no sign
    scale = ((known - mean) @ axes).std(0)
    codes = ((features - mean) @ axes / scale).clip(-4, 4)
    table = np.zeros((VOCABULARY, CODE))
    table[:START] = codes[[row[word] for word in words[:START]]]
    return table


def _layer(prefix: str, zero: Tensor, one: Tensor, last: bool) -> dict[str, Tensor]:
    """A layer that passes its input on; the last adds the average of what came before each token."""
    shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("q", "k", "v", "out")}
    shapes |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
    state = {}
    for name, (rows, columns) in shapes.items():
        state[f"{prefix}{name}.weight"] = zero.as_strided((rows, columns), (0, 0))
        state[f"{prefix}{name}.bias"] = zero.as_strided((rows,), (0,))
    if last:  # two reversals: an identity has no such view
        state[f"{prefix}self_attn.v_proj.weight"] = _reversal(1.0)
        state[f"{prefix}self_attn.out_proj.weight"] = _reversal(_POOLING)
    for name in ("layer_norm1", "layer_norm2"):
        state[f"{prefix}{name}.weight"] = one.as_strided((WIDTH,), (0,))
        state[f"{prefix}{name}.bias"] = zero.as_strided((WIDTH,), (0,))
    return state


def _reversal(scale: float) -> Tensor:
    """(W, W) that turns a vector round, over 2 W - 1 numbers."""
    base = torch.zeros(2 * WIDTH - 1).half()
    base[WIDTH - 1] = scale
    return base.as_strided((WIDTH, WIDTH), (1, 1))


class Captions:
    """The same encoder in a form for training: padding counts as one token, and words are remembered."""

    def __init__(self, state: dict[str, Tensor], tokenizer: Any, tokens: int = ORDERED, device: str = "cpu"):
        """`tokens` is T: longer captions are cut, as CLIP cuts after 77."""
        assert ORDERED <= tokens < LENGTH, "padding must start where positions are alike"
        self.tokens, self._tokenizer = tokens, tokenizer
        self._ids: dict[str, list[int]] = {}
        self._table = state[_TOKENS].float().contiguous().to(device)
        self._marks = state[_POSITIONS][:tokens].float().to(device)
        self.device = device

    def tokenize(self, caption: str) -> list[int]:
        """Ids of the words, without START and END. Each word is looked up once: no token spans a space."""
        ids: list[int] = []
        for word in caption.split():
            if word not in self._ids:
                self._ids[word] = self._tokenizer(word)["input_ids"][1:-1]
            ids += self._ids[word]
        return ids

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Context (B, T + 1, W), whose last token stands for all padding, and pooled text (B, W)."""
        ids = torch.full((len(captions), self.tokens), END)
        ends = torch.empty(len(captions), dtype=torch.long)
        for i, caption in enumerate(captions):
            words = self.tokenize(caption)[: self.tokens - 2]
            ids[i, : len(words) + 1] = torch.tensor([START, *words])
            ends[i] = len(words) + 1
        ids, ends = ids.to(self.device), ends.to(self.device)
        words = F.embedding(ids, self._table) + self._marks
        padding = self._table[END].expand(len(captions), 1, WIDTH)
        return torch.cat((words, padding), 1), _pool(words, ends)

    def key_bias(self, picture_tokens: int) -> Tensor:
        """For MMDiT: the last text token gets the attention of all the padding that it stands for."""
        bias = torch.zeros(self.tokens + 1 + picture_tokens, device=self.device)
        bias[self.tokens] = math.log(LENGTH - self.tokens)
        return bias


def _pool(words: Tensor, ends: Tensor) -> Tensor:
    """What the last layer makes of the end token."""
    read = torch.arange(words.shape[1], device=words.device) <= ends[:, None]
    weights = read.float() / (ends[:, None] + 1)
    average = torch.bmm(weights[:, None], F.layer_norm(words, (WIDTH,)))[:, 0]
    end = words[torch.arange(len(ends), device=words.device), ends]
    return F.layer_norm(end + _POOLING * average, (WIDTH,))
