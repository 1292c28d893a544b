"""Pictures that the reward ensemble foresees a second against pictures that an engine renders.

The same prompts and workflows both ways. The ensemble is of the size of the studio profile's, with random
weights, which take as long as fitted ones. New prompts have their sentence features computed first.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence

import numpy as np
import torch
from bench_collect import bare_loop

from flowtailor.actors.comfy import EngineConfig, engine
from flowtailor.markdown import markdown_table
from flowtailor.models.reward import RewardEnsemble
from flowtailor.models.reward_fit import Scale
from flowtailor.models.reward_net import RewardNet
from flowtailor.models.traits import Traits
from flowtailor.pipelines.catalog import survey
from flowtailor.pipelines.collect import plan
from flowtailor.pipelines.config import Config
from flowtailor.workflows.rules import END

SCORERS = ("alignment", "fidelity", "sharpness")
MEMBERS, CATEGORIES, STYLES, WORKFLOWS = 5, 10, 4, 1300
QUESTIONS = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=24, help="pictures to render")
    count = parser.parse_args().rows
    torch.set_num_threads(1)
    with engine(EngineConfig()) as client:
        config = Config(engine=EngineConfig(kind="urls", urls=(client.base_url,)))
        world = survey(config, client)
        rows = plan(config, world)
        bare_loop(client, rows.head(4))  # the models are loaded before the clock starts
        rendered = count / bare_loop(client, rows.tail(count))
    ensemble = random_ensemble([word for word in world.space.vocabulary if word != END])
    prompts, tokens = list(rows["prompt"].astype(str)), [str(text).split() for text in rows["tokens"]]
    rates = {
        "rendered, one engine": rendered,
        "foreseen, new prompts": rate(ensemble, prompts, tokens),
        "foreseen, prompts seen before": rate(ensemble, prompts, tokens),
    }
    print(f"{MEMBERS} members, one thread; {count} pictures on one studio engine.\n")
    lines = [[name, f"{value:.3g}", f"{value / rendered:.0f}"] for name, value in rates.items()]
    print(markdown_table(["pictures", "a second", "against rendering"], lines, "lr"))


def rate(ensemble: RewardEnsemble, prompts: Sequence[str], tokens: Sequence[Sequence[str]]) -> float:
    """Predictions a second, each of a prompt with a workflow of the plan."""
    chance = random.Random(0)
    asked = chance.choices(prompts, k=QUESTIONS), chance.choices(tokens, k=QUESTIONS)
    started = time.perf_counter()
    ensemble.predict(*asked)
    return QUESTIONS / (time.perf_counter() - started)


def random_ensemble(words: Sequence[str]) -> RewardEnsemble:
    torch.manual_seed(0)
    outputs = len(SCORERS) + 1  # log-seconds come last
    nets = [RewardNet(len(words), outputs, Traits(CATEGORIES, STYLES), WORKFLOWS) for _ in range(MEMBERS)]
    return RewardEnsemble(nets, words, SCORERS, Scale(np.zeros(outputs), np.ones(outputs)), "minilm-l6")


if __name__ == "__main__":
    main()
