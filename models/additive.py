"""The part of a reward that has a closed form: what a workflow is worth to all prompts, and to some.

Shape legend: N rows, W workflows, K workflows of the training rows, T words, V words of the vocabulary
(with padding and unknown words), F = 2 V features of a workflow, P prompts, D = 384 sentence features,
Q traits of a prompt, O outputs.

    reward(w, p) = usual(w) + sum over words v and traits q of share(v, w) * worth(v, q) * trait(p, q)

where a word's share is that of the nodes of its class that say it.

`usual` is a Gaussian process on the words of workflows: of few hundred workflows a smooth function over
shared words knows more than a network that sees each of them a few times. `worth` is ridge regression:
which checkpoint suits which prompts is a small difference between long workflows, which a network is slow
to see and quick to make up (docs/EXPERIMENTS.md, 15). The networks of the ensemble learn what this leaves.

How far words set workflows apart in the first is learned (`relevance.py`). Words that name models start
closer than the rest, because models differ less in how well they draw, and their worth to a trait is
penalised less, because they differ more in what they know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .relevance import alike, matern, relevance
from .reward_features import Words
from .traits import Traits

SCALE, MODEL_SCALE = 0.5, 0.25  # where words start: workflows with four between them are alike by half
ROW_NOISE = 0.3  # where the variance of a row around its workflow starts, against that of the workflows
PROMPT_NOISE = 3.0  # the same for prompts, whose effect is told apart and left to the networks
WORTH_PENALTY, MODEL_PENALTY = 100.0, 10.0
SWEEPS = 6  # over the three effects in turn; more change the third digit

_MODEL = re.compile(r"\.(safetensors|sft|ckpt|pth|pt|bin|gguf)$")


class AdditiveModel(nn.Module):
    """Words, workflow of each row, features of its prompt -> (N, O)."""

    scale_F: Tensor
    known_KF: Tensor
    weight_KO: Tensor
    precision_KK: Tensor
    variance_O: Tensor
    worth_VQO: Tensor

    def __init__(self, vocabulary: int, outputs: int, traits: Traits, workflows: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.traits = traits
        self.register_buffer("scale_F", torch.ones(2 * (vocabulary + 2)))
        self.register_buffer("known_KF", torch.zeros(workflows, 2 * (vocabulary + 2)))
        self.register_buffer("weight_KO", torch.zeros(workflows, outputs))
        self.register_buffer("precision_KK", torch.zeros(workflows, workflows))
        self.register_buffer("variance_O", torch.ones(outputs))
        self.register_buffer("worth_VQO", torch.zeros(vocabulary + 2, self.traits.count, outputs))

    def forward(self, words: Words, workflow_N: Tensor, prompts_ND: Tensor) -> Tensor:
        usual_WO = alike(self._features(words) * self.scale_F, self.known_KF) @ self.weight_KO
        worth_WQO = torch.einsum("wv,vqo->wqo", self._shares(words), self.worth_VQO)
        suited_NO = torch.einsum("nqo,nq->no", worth_WQO[workflow_N], self.traits(prompts_ND))
        return usual_WO[workflow_N] + suited_NO

    def posterior_variance(self, words: Words) -> Tensor:
        """(W, O): the variance of `usual`.

        Near zero for workflows with many rows, as large as workflows vary for those that are unlike all that
        were trained on (Rasmussen and Williams 2006, equation 2.26).
        """
        alike_WK = alike(self._features(words) * self.scale_F, self.known_KF)
        left_W = 1 - torch.einsum("wk,kl,wl->w", alike_WK, self.precision_KK, alike_WK)
        return left_W.clamp(0, 1).unsqueeze(1) * self.variance_O

    def difference_variance(self, words: Words, one_M: Tensor, other_M: Tensor) -> Tensor:
        """(M, O): the variance of the difference in `usual` between two workflows, by their place in `words`.

        Less than both variances where the two are alike, because one's error is then the other's.
        """
        scaled_WF = self._features(words) * self.scale_F
        alike_WK = alike(scaled_WF, self.known_KF)
        distance_M = (scaled_WF[one_M] - scaled_WF[other_M]).norm(dim=1)
        apart_MK = alike_WK[one_M] - alike_WK[other_M]
        told_M = torch.einsum("mk,kl,ml->m", apart_MK, self.precision_KK, apart_MK)
        left_M = 2 * (1 - matern(distance_M)) - told_M
        return left_M.clamp(0, 2).unsqueeze(1) * self.variance_O

    @torch.no_grad()
    def fit(
        self,
        words: Words,
        vocabulary: Sequence[str],
        prompts_PD: Tensor,
        workflow_N: Tensor,
        prompt_N: Tensor,
        targets_NO: Tensor,
    ) -> Tensor:
        """Backfitting (Hastie and Tibshirani 1990): each effect on what the others leave, in turn.

        Returns (P, O): what each prompt adds, which is told apart here and left to the networks.
        Raises ValueError where no row has all scores.
        """
        targets_NO = self._completed(words, vocabulary, prompts_PD, workflow_N, prompt_N, targets_NO)
        models_V = torch.tensor([False, *(bool(_MODEL.search(word)) for word in vocabulary), False])
        start_F = torch.where(models_V, MODEL_SCALE, SCALE).repeat(2)
        features_KF = self._features(words)
        shares_KV = self._shares(words)
        # With a penalty of 1 for all, words in a larger unit are penalised less.
        unit_V = torch.where(models_V, MODEL_PENALTY, WORTH_PENALTY).double() ** -0.5
        traits_PQ = self.traits(prompts_PD).double()
        prompt = _Shrunk(len(prompts_PD), prompt_N)
        usual = _GaussianProcess(features_KF * start_F, workflow_N, ROW_NOISE)
        # Told from their mean, so that no word takes what the prompts of a trait have in common.
        worth = _Ridge((shares_KV - shares_KV.mean(0)) * unit_V, traits_PQ[prompt_N], workflow_N)
        usual_NO = suited_NO = torch.zeros_like(targets_NO, dtype=torch.double)
        for sweep in range(2 * SWEEPS):
            prompt_NO = prompt(targets_NO - usual_NO - suited_NO)
            if sweep == SWEEPS:  # the workflows' effects are told apart well enough to learn their scales
                mean_KO = usual.means(targets_NO - prompt_NO - suited_NO)
                scale_F, noise = relevance(features_KF, mean_KO, usual.count_K, start_F, ROW_NOISE)
                usual = _GaussianProcess(features_KF * scale_F, workflow_N, noise)
            usual_NO = usual(targets_NO - prompt_NO - suited_NO)
            suited_NO = worth(targets_NO - prompt_NO - usual_NO)
        self.scale_F.copy_(scale_F)
        self.known_KF.copy_(features_KF * scale_F)
        self.weight_KO.copy_(usual.weight_KO)
        self.precision_KK.copy_(usual.precision_KK)
        self.variance_O.copy_(usual.variance())
        self.worth_VQO.copy_(worth.worth_VQO * unit_V.view(-1, 1, 1))
        return prompt.effect_PO

    def _completed(
        self,
        words: Words,
        vocabulary: Sequence[str],
        prompts_PD: Tensor,
        workflow_N: Tensor,
        prompt_N: Tensor,
        targets_NO: Tensor,
    ) -> Tensor:
        """The targets with what a model of the rows with all scores foresees where a row lacks one (NaN).

        The prompt's level is part of it: else a workflow would gain by having been scored on easy prompts.
        Doubt will take it for measured: it is of the other scores, which the row has.
        """
        known_N = ~targets_NO.isnan().any(dim=1)
        if not known_N.any():
            raise ValueError("no row has all scores")
        if known_N.all():
            return targets_NO
        seen, workflow_n = workflow_N[known_N].unique(return_inverse=True)
        whole = AdditiveModel(self.vocabulary, targets_NO.shape[1], self.traits, len(seen))
        prompt_PO = whole.fit(
            words[seen], vocabulary, prompts_PD, workflow_n, prompt_N[known_N], targets_NO[known_N]
        )
        foreseen_NO = whole(words, workflow_N, prompts_PD[prompt_N]) + prompt_PO[prompt_N]
        return torch.where(targets_NO.isnan(), foreseen_NO.float(), targets_NO)

    def _features(self, words: Words) -> Tensor:
        """(W, F): how often each word occurs, and how often in a node that repeats a class.

        So that what the first of two samplers does is not taken for what the last one does.
        """
        there_WT = words.index_WT > 0
        return torch.cat(
            [self._bags(words, there_WT), self._bags(words, there_WT & words.repeating())], dim=1
        )

    def _shares(self, words: Words) -> Tensor:
        """(W, V): which share of the nodes of its class says a word; all of them for the class itself.

        So two checkpoints suit a prompt as the mean of both does, not as their sum.
        """
        return self._bags(words, (words.index_WT > 0) / words.siblings().clamp(min=1))

    def _bags(self, words: Words, weight_WT: Tensor) -> Tensor:
        """(W, V): the weights of each word's occurrences; unknown words share the last column."""
        index_WT = words.index_WT.clamp(max=self.vocabulary + 1)
        bags_WV = torch.zeros(len(index_WT), self.vocabulary + 2, device=index_WT.device)
        return bags_WV.scatter_add_(1, index_WT, weight_WT.float())


class _GaussianProcess:
    """The mean of each workflow given rows of it and of others that are alike.

    Where n rows have the mean y, the weights are (K + noise / n)^-1 y (Rasmussen and Williams 2006,
    equation 2.25).
    """

    def __init__(self, known_KF: Tensor, workflow_N: Tensor, noise: float) -> None:
        self._workflow_N, self._kernel_KK = workflow_N, alike(known_KF, known_KF).double()
        self.count_K = torch.bincount(workflow_N, minlength=len(known_KF)).double()
        self.precision_KK = torch.linalg.inv(self._kernel_KK + torch.diag(noise / self.count_K))

    def means(self, rest_NO: Tensor) -> Tensor:
        """(K, O): the means of the workflows' rows."""
        return _totals(rest_NO, self._workflow_N, len(self.count_K)) / self.count_K.unsqueeze(1)

    def variance(self) -> Tensor:
        """variance_O of workflows that was likeliest given the latest rows (as in `relevance`)."""
        return (self.mean_KO * self.weight_KO).mean(0)

    def __call__(self, rest_NO: Tensor) -> Tensor:
        self.mean_KO = self.means(rest_NO)
        self.weight_KO = self.precision_KK @ self.mean_KO
        return (self._kernel_KK @ self.weight_KO)[self._workflow_N]


class _Shrunk:
    """The mean of each prompt, shrunk towards none."""

    def __init__(self, prompts: int, prompt_N: Tensor) -> None:
        self._prompt_N = prompt_N
        self._count_P1 = torch.bincount(prompt_N, minlength=prompts).double().unsqueeze(1)

    def __call__(self, rest_NO: Tensor) -> Tensor:
        total_PO = _totals(rest_NO, self._prompt_N, len(self._count_P1))
        self.effect_PO = total_PO / (self._count_P1 + PROMPT_NOISE)
        return self.effect_PO[self._prompt_N]


class _Ridge:
    """Regression on word times trait, with no matrix of N rows: words are a workflow's."""

    def __init__(self, bags_KV: Tensor, traits_NQ: Tensor, workflow_N: Tensor) -> None:
        self._bags_KV, self._traits_NQ, self._workflow_N = bags_KV, traits_NQ, workflow_N
        squares_NQQ = traits_NQ.unsqueeze(2) * traits_NQ.unsqueeze(1)
        squares_KQQ = _totals(squares_NQQ, workflow_N, len(bags_KV))
        words, traits = bags_KV.shape[1], traits_NQ.shape[1]
        gram_VQVQ = bags_KV.new_empty(words, traits, words, traits)
        for q in range(traits):
            for r in range(q + 1):  # one product at a time: all at once would take K V^2 numbers
                gram_VQVQ[:, q, :, r] = bags_KV.T @ (bags_KV * squares_KQQ[:, q, r, None])
                gram_VQVQ[:, r, :, q] = gram_VQVQ[:, q, :, r]
        size = words * traits
        penalised = gram_VQVQ.reshape(size, size) + torch.eye(size, dtype=torch.double)
        self._factor = torch.linalg.cholesky(penalised)

    def __call__(self, rest_NO: Tensor) -> Tensor:
        weighted_NQO = self._traits_NQ.unsqueeze(2) * rest_NO.unsqueeze(1)
        sums_KQO = _totals(weighted_NQO, self._workflow_N, len(self._bags_KV))
        right_VQO = torch.einsum("kv,kqo->vqo", self._bags_KV, sums_KQO)
        self.worth_VQO = torch.cholesky_solve(right_VQO.flatten(0, 1), self._factor).view_as(right_VQO)
        worth_KQO = torch.einsum("kv,vqo->kqo", self._bags_KV, self.worth_VQO)
        return torch.einsum("nqo,nq->no", worth_KQO[self._workflow_N], self._traits_NQ)


def _totals(value_N: Tensor, group_N: Tensor, groups: int) -> Tensor:
    """Sums of the rows of each group, (groups, ...)."""
    zeros = torch.zeros(groups, *value_N.shape[1:], dtype=torch.double)
    return zeros.index_add_(0, group_N, value_N.double())
