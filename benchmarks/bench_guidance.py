"""Guided decoding against decoding with one policy, under the same grammar.

Both decode the same prompts with the same seeds; guided rows carry the base policy and the adapter in
one forward of twice the rows. Words differ from run to run with the policy, so rates count words.
One policy is the adapter alone. Weights have eight bits, as on a CPU they do (`models/int8.py`), and, to
compare, 32. The backbone is the real one, untrained: its designs agree less than a trained one's, and have
fewer beginnings that are computed once.
"""

from __future__ import annotations

import argparse
import time

import torch
from policy_bench import PROMPTS, random_policy, studio_masks

from flowtailor.markdown import markdown_table
from flowtailor.models.constrained import CachedDecoder, Decoder, sample
from flowtailor.models.guidance import GuidedDecoder
from flowtailor.models.int8 import shrink
from flowtailor.models.policy import Policy, policy_prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    rounds = 1 if parser.parse_args().quick else 5
    torch.set_num_threads(1)
    masks, space = studio_masks()
    full, policy = random_policy(space), random_policy(space)
    for one in (full, policy):
        one.model.eval()
    shrink(policy.model)
    prompts = [policy.encode_prompt(policy_prompt(text)) for text in PROMPTS]

    def alone(of: Policy) -> Decoder:
        return CachedDecoder(of.model, of.columns, adapters=("default",))

    def guided(of: Policy, size: int) -> Decoder:
        return GuidedDecoder(of.model, of.columns, adapter="default", w=[1.5] * size)

    def seconds_per_word(decoder: Decoder, size: int, rows: int, first_seed: int) -> float:
        started = time.perf_counter()
        seeds = range(first_seed, first_seed + rows)
        drawn = sample(decoder, masks, prompts[:size], seeds=seeds, temperatures=[1.0] * rows)
        return (time.perf_counter() - started) / sum(len(one.words) for one in drawn)

    seconds_per_word(guided(policy, 1), 1, 1, 0)
    print(f"Best of {rounds} rounds, one thread; words/s.\n")
    head = [
        "prompts x designs",
        "one policy, 32 bits",
        "one policy",
        "guided",
        "guided, time against one policy",
    ]
    lines = []
    for size, designs in ((1, 1), (1, 4), (4, 2)):
        # Side by side in each round, because other work on the machine comes and goes.
        trials = [
            [
                seconds_per_word(decoder, size, size * designs, 1 + i)
                for decoder in (alone(full), alone(policy), guided(policy, size))
            ]
            for i in range(rounds)
        ]
        best = [min(trial[side] for trial in trials) for side in range(3)]
        lines.append(
            [f"{size} x {designs}", *(f"{1 / each:.0f}" for each in best), f"{best[2] / best[1]:.2f}"]
        )
    print(markdown_table(head, lines, "lr"))


if __name__ == "__main__":
    main()
