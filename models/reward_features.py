"""Workflow words as what the reward networks read: names, numbers and the node they belong to.

Shape legend: W workflows, T words of the longest one, M words in the table, D = 384 name features.

Promises: any word can be read. One outside the vocabulary has no learned row, but its name and its
number still speak for it, so that a new checkpoint or another step count is not a blank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..workflows.components import owners
from ..workflows.rules import END
from .text import WIDTH, TextEncoder
from .vocabulary import name_pieces

NUMBERS = 2  # features of a word's number: is there one, and its signed logarithm
FEATURES = WIDTH + NUMBERS


@dataclass(frozen=True)
class Words:
    """Workflows as padded indices."""

    index_WT: Tensor  # int64, rows of the table; 0 is padding
    owner_WT: Tensor  # int64, position in the row of the node class that the word belongs to

    def to(self, device: torch.device | str) -> Words:
        return Words(self.index_WT.to(device), self.owner_WT.to(device))

    def repeating(self) -> Tensor:
        """(W, T): whether a word belongs to a node of a class that the workflow has named before.

        Workflows are told from their output, so of two samplers that is the first to run.
        """
        place_T = torch.arange(self.index_WT.shape[1], device=self.index_WT.device)
        return (self._same_class() & (place_T < self.owner_WT.unsqueeze(2))).any(2)

    def siblings(self) -> Tensor:
        """(W, T): how many nodes there are of the class that a word's node is of; 0 for padding."""
        return self._same_class().sum(2) * (self.index_WT > 0)

    def _same_class(self) -> Tensor:
        """(W, T, T): is the node of the first word of the class that the second one names?"""
        place_T = torch.arange(self.index_WT.shape[1], device=self.index_WT.device)
        node_WT = (self.owner_WT == place_T) & (self.index_WT > 0)
        class_WT = self.index_WT.gather(1, self.owner_WT)
        return (class_WT.unsqueeze(2) == class_WT.unsqueeze(1)) & node_WT.unsqueeze(1)

    def __getitem__(self, rows: Tensor) -> Words:
        """The chosen workflows, cut to the longest of them."""
        index_WT = self.index_WT[rows]
        longest = int((index_WT > 0).sum(1).max()) if len(index_WT) else 0
        return Words(index_WT[:, :longest], self.owner_WT[rows][:, :longest])


class WordTable:
    """Numbers the words; the vocabulary comes first (1..V), words met later follow."""

    def __init__(self, vocabulary: Sequence[str], encoder: TextEncoder) -> None:
        self.vocabulary = tuple(vocabulary)
        self._encoder = encoder
        self._index = {word: i for i, word in enumerate(self.vocabulary, start=1)}
        self._features = torch.cat([torch.zeros(1, FEATURES), word_features(self.vocabulary, encoder)])

    @property
    def features(self) -> Tensor:
        """(M, FEATURES): row i describes word i; row 0 is padding."""
        return self._features

    def read(self, workflows: Sequence[Sequence[str]]) -> Words:
        """Index the words of workflows; `<end>` is left out, since every workflow has it."""
        texts = [[word for word in words if word != END] for words in workflows]
        self._add(sorted({word for words in texts for word in words} - self._index.keys()))
        longest = max(map(len, texts), default=0)
        index_WT = torch.zeros(len(texts), longest, dtype=torch.long)
        owner_WT = torch.zeros(len(texts), longest, dtype=torch.long)
        for row, words in enumerate(texts):
            index_WT[row, : len(words)] = torch.tensor([self._index[word] for word in words])
            owner_WT[row, : len(words)] = torch.tensor(owners(words))
        return Words(index_WT, owner_WT)

    def _add(self, words: Sequence[str]) -> None:
        if words:
            self._index.update({word: i for i, word in enumerate(words, start=len(self._features))})
            self._features = torch.cat([self._features, word_features(words, self._encoder)])


def word_features(words: Sequence[str], encoder: TextEncoder) -> Tensor:
    """(N, FEATURES): sentence features of the plain words in the name, then what number it says."""
    names = encoder.encode([" ".join(name_pieces(word)) or word for word in words])
    numbers = torch.tensor([_number(word) for word in words], dtype=torch.float32)
    return torch.cat([names * WIDTH**0.5, numbers.reshape(-1, NUMBERS)], dim=1)  # unit variance


def _number(word: str) -> tuple[float, float]:
    """Is there one, and its signed logarithm."""
    try:
        value = float(word.replace("@", "=").partition("=")[2])
    except ValueError:  # no number
        value = math.nan
    return (1.0, math.copysign(math.log1p(abs(value)), value)) if math.isfinite(value) else (0.0, 0.0)
