"""Requests in, designs out: the guided policy and the reward ensemble of one run folder.

Promises: an answer does not depend on which other requests share its batch; every workflow in it
is API JSON with prompt and seed filled in. Knows nothing of HTTP or Ray Serve.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..models.designing import Design, Designer
from ..models.reward import RewardEnsemble
from ..pipelines.catalog import read_world
from ..pipelines.comparison import predicted_score
from ..pipelines.config import Config
from ..pipelines.trained import load_designer, load_ensemble, open_run
from ..workflows.codec import decode
from ..workflows.space import Space
from .api import DesignedWorkflow, DesignRequest, DesignResponse, Estimate, Forecast


class Designs:
    """Holds the models; one call at a time computes."""

    def __init__(self, designer: Designer, ensemble: RewardEnsemble, space: Space, config: Config) -> None:
        self._designer = designer
        self._ensemble = ensemble
        self._space = space
        self._config = config

    @classmethod
    def load(cls, run_dir: str | Path) -> Designs:
        """Raises FlowtailorError when a stage of the run is missing."""
        run = open_run(run_dir)
        _, space = read_world(run)
        return cls(load_designer(run, space), load_ensemble(run), space, run.config)

    def answer(self, requests: list[DesignRequest]) -> list[DesignResponse]:
        """One response a request, in their order."""
        drawn = self._draw(requests)
        pairs = [(r.prompt, design) for r, designs in zip(requests, drawn, strict=True) for design in designs]
        forecasts = iter(self._forecast(pairs))
        return [
            self._response(request, [(design, next(forecasts)) for design in designs])
            for request, designs in zip(requests, drawn, strict=True)
        ]

    def _draw(self, requests: list[DesignRequest]) -> list[list[Design]]:
        """The designer takes one n a call, so requests are grouped by theirs."""
        usual = self._config.design
        drawn: list[list[Design]] = [[] for _ in requests]
        for n in sorted({request.n for request in requests}):
            places = [i for i, request in enumerate(requests) if request.n == n]
            group = [requests[i] for i in places]
            designs = self._designer.distinct(
                [request.prompt for request in group],
                n=n,
                guidance=[_or(request.guidance, usual.guidance) for request in group],
                temperature=[_or(request.temperature, usual.temperature) for request in group],
                budget_s=[request.budget_s for request in group],
                seed=[request.seed for request in group],
            )
            for place, found in zip(places, designs, strict=True):
                drawn[place] = found
        return drawn

    def _forecast(self, pairs: list[tuple[str, Design]]) -> list[Forecast]:
        """What the ensemble expects of each (prompt, design)."""
        prediction = self._ensemble.predict([p for p, _ in pairs], [design.tokens for _, design in pairs])
        weights, options = self._config.scorers.weights, self._config.reward
        mean, std = predicted_score(prediction, weights)
        reward = self._ensemble.reward(prediction, weights, options.kappa, options.lambda_seconds)
        return [
            Forecast(
                score=_estimate(mean[i], std[i]),
                scores={
                    name: _estimate(prediction.mean[i, s], prediction.std[i, s])
                    for s, name in enumerate(prediction.scorers)
                },
                seconds=_estimate(prediction.seconds[i], prediction.seconds_std[i]),
                reward=float(reward[i]),
            )
            for i in range(len(pairs))
        ]

    def _response(self, request: DesignRequest, found: list[tuple[Design, Forecast]]) -> DesignResponse:
        best_first = sorted(found, key=lambda pair: -pair[1].reward)
        return DesignResponse(
            prompt=request.prompt,
            designs=[
                DesignedWorkflow(
                    workflow=decode(design.tokens, self._space).bind(request.prompt, request.seed).to_api(),
                    tokens=design.tokens,
                    logprob=design.logprob,
                    forecast=forecast,
                )
                for design, forecast in best_first
            ],
        )


def _estimate(mean: np.floating, std: np.floating) -> Estimate:
    return Estimate(mean=float(mean), std=float(std))


def _or(wish: float | None, usual: float) -> float:
    return usual if wish is None else wish
