"""Requests in, designs out: the guided policy and the reward ensemble of one run folder.

Promises: an answer does not depend on which other requests share its batch, but for rounding in bfloat16;
every workflow in it is API JSON with prompt and seed filled in. Knows nothing of HTTP or Ray Serve.
"""

from __future__ import annotations

from pathlib import Path

from ..models.designing import Designer
from ..models.reward import RewardEnsemble
from ..pipelines.catalog import read_world
from ..pipelines.config import Config
from ..pipelines.judging import Judged, Wish, draw
from ..pipelines.trained import load_designer, load_ensemble, open_run
from ..pipelines.why import Contribution, contributions
from ..workflows.codec import decode
from ..workflows.space import Space
from ..workflows.summary import summary
from .api import Component, DesignedWorkflow, DesignRequest, DesignResponse, Estimate, Forecast


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
        wishes = [self._wish(request) for request in requests]
        drawn = draw(wishes, self._designer, self._ensemble, self._config)
        pairs = [
            (wish.prompt, one.tokens) for wish, designs in zip(wishes, drawn, strict=True) for one in designs
        ]
        weights = self._config.scorers.weights
        parts = iter(contributions(pairs, self._ensemble, self._space, weights))
        return [
            DesignResponse(
                prompt=wish.prompt, designs=[self._designed(wish, one, next(parts)) for one in designs]
            )
            for wish, designs in zip(wishes, drawn, strict=True)
        ]

    def _wish(self, request: DesignRequest) -> Wish:
        asked = request.model_dump(include={"n", "guidance", "temperature", "budget_s", "seed"})
        return Wish.of(request.prompt, self._config.design, **asked)

    def _designed(self, wish: Wish, one: Judged, parts: list[Contribution]) -> DesignedWorkflow:
        workflow = decode(one.tokens, self._space)
        return DesignedWorkflow(
            workflow=workflow.bind(wish.prompt, wish.seed).to_api(),
            summary=summary(workflow),
            tokens=list(one.tokens),
            logprob=one.logprob,
            forecast=Forecast(
                score=Estimate(mean=one.score, std=one.score_std),
                scores={name: Estimate(mean=mean, std=std) for name, (mean, std) in one.scores.items()},
                seconds=Estimate(mean=one.seconds, std=one.seconds_std),
                reward=one.reward,
                keeps_budget=one.keeps_budget,
            ),
            components=[
                Component(
                    component=part.component,
                    change=part.change,
                    score=Estimate(mean=part.score, std=part.score_std),
                    seconds=Estimate(mean=part.seconds, std=part.seconds_std),
                )
                for part in parts
            ],
        )
