"""The reward ensemble as an actor: several trainers or replicas ask one copy, on whatever node it is."""

from __future__ import annotations

from collections.abc import Sequence

from ..models.reward import Predictions, RewardEnsemble


class Reward:
    """Loads the ensemble of a run folder; wrap it with `ray.remote` or a Serve deployment."""

    def __init__(self, run_dir: str, *, threads: int = 1) -> None:
        import torch

        torch.set_num_threads(threads)
        self._ensemble = RewardEnsemble.load(f"{run_dir}/reward")

    def predict(self, prompts: Sequence[str], tokens: Sequence[Sequence[str]]) -> Predictions:
        """See `models.reward.RewardEnsemble.predict`."""
        return self._ensemble.predict(prompts, tokens)
