"""What a round of `refine` may render: the policy's designs, and designs that try what nobody has used.

Rows without results, of the round's prompts, with what the ensemble foresees of them. Promises: workflows
that are held out are never proposed to learn from, and nothing that the run has rendered is proposed again.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from tqdm import tqdm

from flowtailor.errors import FlowtailorError

from ..datasets.prompts import Prompt, choose_prompts, load_prompts
from ..workflows.space import Space
from .newcomers import trials
from .plan import designed_rows
from .rounds import Round

if TYPE_CHECKING:
    from ..models.designing import Design, Designer
    from ..models.reward import RewardEnsemble

PROMPTS_AT_ONCE = 8


def by_turns(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The first row of each, then the second of each, and so on; each id once."""
    if not frames:
        return pd.DataFrame()
    turned = pd.concat([frame.assign(turn=range(len(frame))) for frame in frames])
    turned = turned.sort_values("turn", kind="stable").drop(columns="turn")
    return turned.drop_duplicates("row_id", ignore_index=True)


@dataclass(frozen=True)
class Proposer:
    """Proposes for one round with the policy and the ensemble that it starts from."""

    one: Round
    space: Space
    designer: Designer
    ensemble: RewardEnsemble

    def answers(self) -> pd.DataFrame:
        """Rows of different designs for each validation prompt; `first` marks the policy's own choice."""
        config, pairs = self.one.config, []
        for prompts in self._batches("validation"):
            wishes = {
                "guidance": [self.one.guidance] * len(prompts),
                "temperature": [config.design.temperature] * len(prompts),
                "budget_s": [None] * len(prompts),
                "seed": [config.run.seed] * len(prompts),
            }
            texts = [prompt.text for prompt in prompts]
            drawn = self.designer.distinct(texts, n=config.refine.validation_designs, **wishes)
            pairs += [(p, d.tokens) for p, designs in zip(prompts, drawn, strict=True) for d in designs]
        rows = self._planned(pairs).drop_duplicates("row_id")
        return rows.assign(first=rows.groupby("prompt").cumcount() == 0)

    def candidates(self, new: Sequence[str] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What the policy designs for training prompts and nobody has rendered, as `picks.pick` wants it;
        and such designs with the words `new` put in, by turns, none where there are no such words.

        Raises FlowtailorError where no design has a place for any of them: the round would try nothing.
        """
        drawn = self._drawn()
        counts = Counter((prompt.text, " ".join(design.tokens)) for prompt, design in drawn)
        pairs = {(prompt.text, tuple(design.tokens)): (prompt, design.tokens) for prompt, design in drawn}
        rows = self._planned(list(pairs.values()))
        rows["drawn"] = [counts[key] for key in zip(rows["prompt"], rows["tokens"], strict=True)]
        rows["said"] = rows.groupby("workflow_key")["drawn"].transform("sum")
        size, longest = self.one.config.refine.renders, self.one.config.space.max_tokens
        tried = trials(drawn, new, self.space, count=size, max_tokens=longest) if new else []
        # Planned apart, for a plan has all prompts once before any twice, whatever the words.
        trying = by_turns([self._foreseen(self._planned(each)) for each in tried if each])
        if new and trying.empty:
            raise FlowtailorError(
                f"{', '.join(new)}: no design has a place for them; take them out of the space, or put in "
                "the nodes that they go with"
            )
        return self._foreseen(rows), trying

    def _drawn(self) -> list[tuple[Prompt, Design]]:
        """All designs of the guided policy for the training prompts, equal ones too."""
        config, pairs = self.one.config, []
        for prompts in self._batches("train"):
            drawn = self.designer.design(
                [prompt.text for prompt in prompts],
                n=config.refine.draws,
                guidance=self.one.guidance,
                temperature=config.design.temperature,
                seed=config.run.seed + self.one.number,
            )
            pairs += [(p, design) for p, designs in zip(prompts, drawn, strict=True) for design in designs]
        return pairs

    def _foreseen(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those to learn from, once each, with the predicted score and the doubt about it."""
        known = self.one.run.dataset.rows()["row_id"]
        rows = rows.drop_duplicates("row_id")
        rows = rows.loc[(rows["workflow_split"] == "train") & ~rows["row_id"].isin(known)]
        predictions = self.ensemble.predict_rows(rows)
        weights = self.one.config.scorers.weights
        return rows.assign(predicted=predictions.score(weights)[0], doubt=predictions.doubted(weights))

    def _planned(self, pairs: Sequence[tuple[Prompt, Sequence[str]]]) -> pd.DataFrame:
        engine = self.one.run.engine()
        return designed_rows(pairs, self.space, engine=engine, seeds=1, seed=self.one.config.run.seed)

    def _batches(self, split: str) -> Iterator[Sequence[Prompt]]:
        config = self.one.config
        prompts = choose_prompts(load_prompts(config.prompts.file), {split: getattr(config.prompts, split)})
        title = f"{self.one.name}, designs of {split} prompts"
        with tqdm(total=len(prompts), desc=title, unit="prompt", file=sys.stderr) as bar:
            for first in range(0, len(prompts), PROMPTS_AT_ONCE):
                batch = prompts[first : first + PROMPTS_AT_ONCE]
                yield batch
                bar.update(len(batch))
