"""Workflows worth rendering next: variants of good ones that may be better, by the reward ensemble of a run.

    python benchmarks/explore.py runs/studio exploration --flows 320
    flowtailor collect --config studio --set run.name=exploration --set space.flows=exploration \\
        --set collect.flows=320 --set collect.flows_per_prompt=4
    python benchmarks/ship_rows.py runs/exploration

Edits the run's best workflows and writes, as seed workflows in ComfyUI's API format, those whose foreseen
score plus doubt is highest (an upper confidence bound: what is good or may be). Each choice lessens the
doubt about the variants that are like it, so that not all are of one kind (batches by hallucination;
Desautels et al. 2014).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import script

from flowtailor.datasets.prompts import choose_prompts, load_prompts
from flowtailor.errors import told_in_one_line
from flowtailor.models.reward import RewardEnsemble
from flowtailor.pipelines.catalog import read_world
from flowtailor.pipelines.config import Config
from flowtailor.pipelines.known import workflows_of
from flowtailor.pipelines.objective import Words
from flowtailor.pipelines.repertoire import unrendered
from flowtailor.pipelines.stage import Run
from flowtailor.pipelines.trained import load_ensemble, open_run
from flowtailor.workflows.codec import decode
from flowtailor.workflows.similarity import similarity
from flowtailor.workflows.space import Space

PROMPTS = 30  # to judge workflows on
ALIKE = 0.8  # similarity from which a choice takes doubt off another


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for the workflows; it must not exist")
    parser.add_argument("--flows", type=int, default=320)
    parser.add_argument("--seeds", type=int, default=120, help="best workflows to edit")
    parser.add_argument("--edits", type=int, default=4000, help="variants to try")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    _, space = read_world(run)
    ensemble = load_ensemble(run)
    known = known_workflows(run)
    score_W, _ = judged(known, ensemble, run.config)
    best = [known[i] for i in np.argsort(-score_W)[: arguments.seeds]]
    new = unrendered(best, known, space, arguments.edits, run.config)
    chosen = promising(new, *judged(new, ensemble, run.config), arguments.flows)
    write([new[i] for i in chosen], space, arguments.folder)
    print(f"{arguments.folder}: {len(chosen)} of {len(new)} variants of {len(best)} workflows")


def known_workflows(run: Run) -> list[Words]:
    rows = run.dataset.rows()
    return workflows_of(rows.loc[rows["prompt_split"] == "train"])


def judged(flows: list[Words], ensemble: RewardEnsemble, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """reward_W, seconds counted and doubt not, and doubt_W; means over prompts."""
    prompts = [p.text for p in choose_prompts(load_prompts(config.prompts.file), {"train": PROMPTS})]
    weights, per_second = config.scorers.weights, config.reward.lambda_seconds
    told = [ensemble.predict(prompts, [words] * len(prompts)) for words in flows]
    reward_W = [one.reward(weights, 0.0, per_second).mean() for one in told]
    return np.array(reward_W), np.array([one.doubted(weights).mean() for one in told])


def promising(flows: list[Words], reward_W: np.ndarray, doubt_W: np.ndarray, count: int) -> list[int]:
    """Indices of `count` workflows with the highest upper bounds, each chosen with the others in mind."""
    doubt_W, chosen = doubt_W.copy(), []
    for _ in range(min(count, len(flows))):
        bound_W = reward_W + doubt_W
        bound_W[chosen] = -np.inf
        best = int(bound_W.argmax())
        chosen.append(best)
        for i in np.argsort(-bound_W)[: 4 * count]:  # no other will be chosen soon
            if similarity(flows[i], flows[best]) >= ALIKE:
                doubt_W[i] *= 0.7
    return chosen


def write(flows: list[Words], space: Space, folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, words in enumerate(flows):
        api = decode(words, space).to_api()
        (folder / f"flow-{number:03d}.json").write_text(json.dumps(api, indent=1))


if __name__ == "__main__":
    with told_in_one_line("explore"):
        main()
