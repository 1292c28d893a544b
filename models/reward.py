"""The reward ensemble: what a workflow's picture for a prompt would score, and how sure that is.

Shape legend: K members, N questions, S scorers, O = S + 1 outputs (the last is log-seconds).

Promises: a mean and a deviation per scorer, and render seconds, for any prompt and any words; the
deviation holds doubt, which more rows would lessen, disagreement and the scatter of single pictures,
scaled so that on validation prompts 68% of measured scores lie within it. Nothing is rendered. It knows
the engine and the machine that its rows came from; seconds do not carry over to another one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..datasets.rows import score_column, text_hash, unscored
from .attribution import Differences
from .calibration import (
    NORMALLY_LATE,
    Bars,
    difference_widths,
    error_correlation,
    fit_bars,
    late_deviations,
    pairs_within_prompts,
    row_weights,
)
from .predictions import Predictions
from .reward_features import Words, WordTable
from .reward_file import DESCRIPTION, FORMAT, no_ensemble, read_description
from .reward_fit import Scale, targets
from .reward_net import RewardNet
from .text import TextEncoder
from .traits import Traits

QUESTIONS_AT_ONCE = 256


class RewardEnsemble:
    """K fitted networks and what turns their outputs into scores."""

    def __init__(
        self,
        nets: Sequence[RewardNet],
        vocabulary: Sequence[str],
        scorers: Sequence[str],
        scale: Scale,
        backbone: str,
        bars: Sequence[Bars] | None = None,
        correlation_SS: np.ndarray | None = None,
        widths_O: np.ndarray | None = None,
        late: float = NORMALLY_LATE,
        known: Collection[str] = (),
    ) -> None:
        """Without `correlation_SS` the scorers are taken to err together, which never understates a bar.

        `widths_O`: by how much the deviations of differences are widened. `late`: how many deviations above
        the foreseen logarithm of its seconds 19 of 20 renders end. `known`: the `text_hash` of each prompt
        that members were trained on.
        """
        self.scorers, self.scale, self.backbone = tuple(scorers), scale, backbone
        self.bars = tuple(bars or [Bars()] * len(scale.mean_O))
        together_SS = np.ones((len(self.scorers), len(self.scorers)))
        self.correlation_SS = together_SS if correlation_SS is None else correlation_SS
        self.widths_O = np.ones(len(self.bars)) if widths_O is None else widths_O
        self.late = late
        self.known = frozenset(known)
        self.encoder = TextEncoder.load(backbone)
        self._table = WordTable(vocabulary, self.encoder)
        self._nets = [net.eval().requires_grad_(False) for net in nets]

    def predict(self, prompts: Sequence[str], tokens: Sequence[Sequence[str]]) -> Predictions:
        """Question n is prompt `prompts[n]` with the workflow of words `tokens[n]`.

        Raises ValueError where the two are not of the same length.
        """
        answers = self._outputs(prompts, tokens)
        known_N = np.array([text_hash(prompt) in self.known for prompt in prompts], dtype=bool)
        std_NO = self._std(answers, known_N)
        doubt_NO = np.stack(
            [
                bars.doubt(posterior_N)
                for bars, posterior_N in zip(self.bars, answers.posterior_NO.T, strict=True)
            ],
            axis=1,
        )
        seconds_N = np.exp(answers.mean_NO[:, -1])
        return Predictions(
            answers.mean_NO[:, :-1],
            std_NO[:, :-1],
            doubt_NO[:, :-1],
            seconds_N,
            seconds_N * std_NO[:, -1],
            seconds_N * np.exp(self.late * std_NO[:, -1]),
            self.scorers,
            self.correlation_SS,
        )

    def predict_rows(self, rows: pd.DataFrame) -> Predictions:
        """What `predict` says of rows of a dataset: columns prompt and tokens, joined by spaces."""
        return self.predict(list(rows["prompt"]), [str(text).split() for text in rows["tokens"]])

    def filled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with what `predict_rows` says where a picture was not seen by a scorer."""
        names = [score_column(name) for name in self.scorers]
        gaps = unscored(rows, self.scorers)
        foreseen = pd.DataFrame(self.predict_rows(rows[gaps]).mean, rows.index[gaps], names)
        return rows.fillna(foreseen)

    def differences(
        self,
        prompts: Sequence[str],
        tokens: Sequence[Sequence[str]],
        one_M: np.ndarray,
        other_M: np.ndarray,
    ) -> Differences:
        """Question `one_M[m]` beside question `other_M[m]`, questions as in `predict`."""
        answers = self._outputs(prompts, tokens)
        wide_KNO = answers.mean_NO + self.widths_O * (answers.member_KNO - answers.mean_NO)
        posterior_MO = self.widths_O * self._difference_std(tokens, one_M, other_M)
        seconds_KN = np.exp(wide_KNO[..., -1])
        usual_M = np.sqrt(seconds_KN[:, one_M] * seconds_KN[:, other_M]).mean(0)
        return Differences(
            wide_KNO[:, one_M, :-1] - wide_KNO[:, other_M, :-1],
            seconds_KN[:, one_M] - seconds_KN[:, other_M],
            posterior_MO[:, :-1],
            posterior_MO[:, -1] * usual_M,  # of the logarithm
            self.scorers,
            self.correlation_SS,
        )

    def calibrate(self, frame: pd.DataFrame) -> None:
        """Fit the error bars on rows of prompts that no member has seen (columns as in the dataset).

        Each output's on the rows that have it; how far the scorers err together on those that have all. What
        no row tells stays as it is.
        """
        if frame.empty:
            return
        tokens = [str(text).split() for text in frame["tokens"]]
        answers = self._outputs(list(frame["prompt"]), tokens)
        target_NO = targets(frame, self.scorers)
        error_NO = answers.mean_NO - target_NO
        prompt_N = frame["prompt"].to_numpy(dtype=str)
        new_N = (frame["workflow_split"] == "test").to_numpy()
        known_NO = ~np.isnan(error_NO)
        columns = zip(error_NO.T, *answers.deviations(), strict=True)
        self.bars = tuple(
            fit_bars(*(values[known_N] for values in (*column, new_N, prompt_N))) if known_N.any() else bars
            for bars, column, known_N in zip(self.bars, columns, known_NO.T, strict=True)
        )
        distance_NO = error_NO / np.maximum(self._std(answers), 1e-12)
        self.late = late_deviations(distance_NO[:, -1], row_weights(new_N, prompt_N))
        whole_N = known_NO.all(axis=1)
        if whole_N.any():
            weight_N = row_weights(new_N[whole_N], prompt_N[whole_N])
            self.correlation_SS = error_correlation(distance_NO[whole_N, :-1], weight_N)
        one_M, other_M = pairs_within_prompts(prompt_N, frame["tokens"].to_numpy())
        if len(one_M) and len(self._nets) > 1:
            error_KNO = answers.member_KNO - target_NO
            gap_KMO = error_KNO[:, one_M] - error_KNO[:, other_M]
            spread_MO = np.hypot(gap_KMO.std(0, ddof=1), self._difference_std(tokens, one_M, other_M))
            self.widths_O = difference_widths(gap_KMO.mean(0), spread_MO)

    def _std(self, answers: _Answers, known_N: np.ndarray | bool = False) -> np.ndarray:
        """std_NO by the bars, in the targets' own units."""
        columns = zip(self.bars, *answers.deviations(), strict=True)
        return np.stack(
            [bars.std(scatter, spread, posterior, known_N) for bars, scatter, spread, posterior in columns],
            axis=1,
        )

    @torch.inference_mode()
    def _difference_std(
        self, tokens: Sequence[Sequence[str]], one_M: np.ndarray, other_M: np.ndarray
    ) -> np.ndarray:
        """(M, O): what no rendered workflow tells of differences between workflows, as a deviation."""
        words, workflow_N = self._read(tokens)
        additive = self._nets[0].additive  # the same in all members
        variance_MO = additive.difference_variance(words, workflow_N[one_M], workflow_N[other_M])
        return np.sqrt(variance_MO.double().numpy()) * self.scale.std_O

    def _outputs(self, prompts: Sequence[str], tokens: Sequence[Sequence[str]]) -> _Answers:
        mean_KNO, logvar_KNO, variance_NO = self._ask(prompts, tokens)
        member_KNO = mean_KNO * self.scale.std_O + self.scale.mean_O
        return _Answers(
            member_KNO,
            member_KNO.mean(0),
            np.sqrt(np.exp(logvar_KNO).mean(0)) * self.scale.std_O,
            member_KNO.std(0),
            np.sqrt(variance_NO) * self.scale.std_O,
        )

    @torch.inference_mode()
    def _ask(
        self, prompts: Sequence[str], tokens: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """mean_KNO and logvar_KNO of the members and variance_NO of the process, all standardised."""
        if len(prompts) != len(tokens):
            raise ValueError(f"{len(prompts)} prompts, {len(tokens)} workflows: must be as many")
        if not prompts:
            nothing_KNO = np.zeros((len(self._nets), 0, len(self.bars)))
            return nothing_KNO, nothing_KNO, nothing_KNO[0]
        prompts_ND = self.encoder.encode(prompts)
        words, workflow_N = self._read(tokens)
        parts = []
        for rows in torch.arange(len(prompts)).split(QUESTIONS_AT_ONCE):
            seen, workflow_n = workflow_N[rows].unique(return_inverse=True)
            answers = [
                net(self._table.features, words[seen], workflow_n, prompts_ND[rows]) for net in self._nets
            ]
            parts.append(map(torch.stack, zip(*answers, strict=True)))
        mean_KNO, logvar_KNO = (torch.cat(part, dim=1).double().numpy() for part in zip(*parts, strict=True))
        additive = self._nets[0].additive  # the same in all members
        variance_NO = additive.posterior_variance(words)[workflow_N].double().numpy()
        return mean_KNO, logvar_KNO, variance_NO

    def _read(self, tokens: Sequence[Sequence[str]]) -> tuple[Words, torch.Tensor]:
        """The distinct workflows, and workflow_N, which of them each question is about."""
        place: dict[tuple[str, ...], int] = {}
        workflow_N = [place.setdefault(tuple(words), len(place)) for words in tokens]
        return self._table.read(list(place)), torch.tensor(workflow_N, dtype=torch.long)

    def save(self, folder: Path) -> None:
        """Write `ensemble.json` and one `member-K.safetensors` per member."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, net in enumerate(self._nets):
            save_file(net.state_dict(), folder / f"member-{k}.safetensors")
        traits = self._nets[0].additive.traits
        content = {
            "format": FORMAT,
            "members": len(self._nets),
            "traits": {"categories": traits.category.out_features, "styles": traits.styles},
            "workflows": len(self._nets[0].additive.known_KF),
            "backbone": self.backbone,
            "scorers": self.scorers,
            "outputs": {"mean": self.scale.mean_O.tolist(), "std": self.scale.std_O.tolist()},
            "bars": [asdict(bars) for bars in self.bars],
            "correlation": self.correlation_SS.tolist(),
            "widths": self.widths_O.tolist(),
            "late": self.late,
            "known": sorted(self.known),
            "vocabulary": self._table.vocabulary,
        }
        (folder / DESCRIPTION).write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, folder: Path | str) -> RewardEnsemble:
        """Raises FlowtailorError where there is no ensemble of this format."""
        folder = Path(folder)
        content = read_description(folder)
        try:
            nets = []
            for k in range(content["members"]):
                net = RewardNet(
                    len(content["vocabulary"]),
                    len(content["bars"]),
                    Traits(**content["traits"]),
                    content["workflows"],
                )
                net.load_state_dict(load_file(folder / f"member-{k}.safetensors"))
                nets.append(net)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise no_ensemble(folder, error) from None
        scale = Scale(np.array(content["outputs"]["mean"]), np.array(content["outputs"]["std"]))
        return cls(
            nets,
            content["vocabulary"],
            content["scorers"],
            scale,
            content["backbone"],
            [Bars(**bars) for bars in content["bars"]],
            np.array(content["correlation"]),
            np.array(content["widths"]),
            content["late"],
            content["known"],
        )


@dataclass(frozen=True)
class _Answers:
    """What the members say, in the targets' own units, before the bars; log-seconds come last.

    scatter: of single pictures; spread: how far the members disagree; posterior: what they cannot
    know, because no workflow like it was rendered. All are deviations.
    """

    member_KNO: np.ndarray
    mean_NO: np.ndarray
    scatter_NO: np.ndarray
    spread_NO: np.ndarray
    posterior_NO: np.ndarray

    def deviations(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transposed, in the order of `Bars`: a row of each is an output's."""
        return self.scatter_NO.T, self.spread_NO.T, self.posterior_NO.T
