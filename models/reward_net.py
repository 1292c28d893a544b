"""One member of the reward ensemble: prompt and workflow in, scores and log-seconds out.

Shape legend: N rows, W distinct workflows among them, T words, M words in the table,
D = 384 sentence features, H = hidden width, O = outputs (the scorers, then log-seconds).

The workflow is read by a small transformer once, whatever the number of prompts it is asked for;
the prompt then says which words of it to look at. A prediction is the sum of what the prompt, the
workflow and the two together are worth: with few prompts the third part is learned last, and the
second alone ranks workflows already. A fourth part is the prompt's taste for single words, as in a
factorization machine (Rendle 2010): which checkpoint suits a prompt is a small difference between long
workflows, which the transformer is slow to see. It counts as far as the workflow is any good.

All of that starts at zero and is added to the model of `additive.py`, which is solved beforehand.

Outputs are in units of the training rows' standard deviation; `reward.py` turns them back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .additive import AdditiveModel
from .reward_features import FEATURES, Words
from .text import WIDTH
from .traits import Traits

MAX_WORDS = 256
PROMPT_DROPOUT = 0.2


class RewardNet(nn.Module):
    """mean_NO and logvar_NO of the standardised targets."""

    def __init__(
        self,
        vocabulary: int,
        outputs: int,
        traits: Traits,
        workflows: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.vocabulary, self.outputs = vocabulary, outputs
        self.additive = AdditiveModel(vocabulary, outputs, traits, workflows)  # fitted before the rest
        self.learned = nn.Embedding(vocabulary + 2, width, padding_idx=0)  # the last row: unknown words
        self.named = nn.Sequential(nn.Linear(FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.owner = nn.Linear(width, width)
        self.position = nn.Embedding(MAX_WORDS, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.prompt = nn.Sequential(nn.Dropout(0.3), nn.Linear(WIDTH, width), nn.GELU())
        self.look = nn.MultiheadAttention(width, heads, batch_first=True)
        self.of_prompt = nn.Linear(width, outputs)
        self.of_workflow = _head(width, outputs)
        self.of_both = _head(3 * width, outputs)
        self.part = nn.Linear(width, width, bias=False)
        self.taste = nn.Sequential(nn.Dropout(0.3), nn.Linear(WIDTH, width))
        self.of_taste = nn.Linear(width, outputs, bias=False)
        self.gate = nn.Linear(width, outputs)
        self.spread = nn.Linear(3 * width, outputs)
        self.word_dropout = 0.1
        for small in (self.learned, self.position):
            nn.init.normal_(small.weight, std=0.1)
        for last in (self.of_prompt, self.of_workflow[-1], self.of_both[-1], self.of_taste):
            for parameter in last.parameters():  # it starts as the additive model
                nn.init.zeros_(parameter)

    def embed(self, features: Tensor, words: Words) -> Tensor:
        """The workflows' words one by one, (W, T, H); `features` is the word table (M, FEATURES)."""
        index_WT = words.index_WT
        known_WT = index_WT.clamp(max=self.vocabulary + 1)
        if self.training:  # now and then a word is only its name: what unknown words will be
            hidden_WT = torch.rand(index_WT.shape, device=index_WT.device) < self.word_dropout
            known_WT = torch.where(hidden_WT & (index_WT > 0), self.vocabulary + 1, known_WT)
        return self.learned(known_WT) + self.named(features)[index_WT]

    def read(self, words_WTH: Tensor, words: Words) -> Tensor:
        """The embedded words in context, (W, T, H)."""
        owner_WTH = words_WTH.gather(1, words.owner_WT.unsqueeze(-1).expand_as(words_WTH))
        place_TH = self.position.weight[: words_WTH.shape[1]]
        return self.norm(
            self.encoder(
                words_WTH + self.owner(owner_WTH) + place_TH, src_key_padding_mask=words.index_WT == 0
            )
        )

    def forward(
        self, features: Tensor, words: Words, workflow_N: Tensor, prompts_ND: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Row n is about workflow `workflow_N[n]` of `words` and the prompt with features `prompts_ND[n]`."""
        words_WTH = self.embed(features, words)
        context_WTH = self.read(words_WTH, words)
        padding_WT = words.index_WT == 0
        length_W1 = (~padding_WT).sum(1, keepdim=True).clamp(min=1)
        pooled_WH = context_WTH.masked_fill(padding_WT.unsqueeze(-1), 0).sum(1) / length_W1
        parts_WH = self.part(words_WTH.masked_fill(padding_WT.unsqueeze(-1), 0).sum(1))
        pooled_NH = pooled_WH[workflow_N]
        prompt_NH, taste_NH = self._of_prompts(prompts_ND * WIDTH**0.5)  # features of unit variance
        seen_NH = self._look(prompt_NH, context_WTH[workflow_N], padding_WT[workflow_N])
        both_N3H = torch.cat([seen_NH, pooled_NH * prompt_NH, prompt_NH], dim=-1)
        liked_NO = self.of_taste(parts_WH[workflow_N] * taste_NH) * torch.sigmoid(self.gate(pooled_NH))
        alone_NO = self.of_workflow(pooled_NH) + self.of_prompt(prompt_NH)
        told_NO = self.additive(words, workflow_N, prompts_ND)
        logvar_NO = self.spread(torch.cat([seen_NH, pooled_NH, prompt_NH], dim=-1).detach())
        return told_NO + alone_NO + self.of_both(both_N3H) + liked_NO, logvar_NO.clamp(-6, 3)

    def _of_prompts(self, prompts_ND: Tensor) -> tuple[Tensor, Tensor]:
        prompt_NH, taste_NH = self.prompt(prompts_ND), self.taste(prompts_ND)
        if self.training:  # some rows must do without: few prompts are easily learned by heart
            kept_N1 = torch.rand(len(prompt_NH), 1, device=prompt_NH.device) >= PROMPT_DROPOUT
            prompt_NH, taste_NH = prompt_NH * kept_N1, taste_NH * kept_N1
        return prompt_NH, taste_NH

    def _look(self, prompt_NH: Tensor, context_NTH: Tensor, padding_NT: Tensor) -> Tensor:
        seen_N1H, _ = self.look(
            prompt_NH.unsqueeze(1), context_NTH, context_NTH, key_padding_mask=padding_NT, need_weights=False
        )
        return seen_N1H.squeeze(1)


def _head(inputs: int, outputs: int) -> nn.Sequential:
    hidden = inputs // 2
    return nn.Sequential(nn.Dropout(0.1), nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
