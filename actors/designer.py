"""A designer as an actor: it holds the policy on its node and answers batches of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..models.designing import Design
from ..models.designing import Designer as LocalDesigner
from ..workflows.catalog import Catalog
from ..workflows.space import Space


class Designer:
    """Loads the policy of a run folder; wrap it with `ray.remote` or a Serve deployment."""

    def __init__(self, run_dir: str, *, max_tokens: int = 64, device: str = "cpu", threads: int = 1) -> None:
        import torch

        torch.set_num_threads(threads)
        run = Path(run_dir)
        policy = run / "policy"
        found = {name: policy / name for name in ("grpo", "score_conditioned") if (policy / name).is_dir()}
        self._designer = LocalDesigner.load(
            policy / "sft",
            found.get("grpo"),
            Space.load(run / "space.toml", Catalog.load(run / "catalog.json")),
            score_conditioned_dir=found.get("score_conditioned"),
            max_tokens=max_tokens,
            device=device,
        )

    def design(self, prompts: list[str], **wishes: Any) -> list[list[Design]]:
        """See `models.designing.Designer.design`."""
        return self._designer.design(prompts, **wishes)
