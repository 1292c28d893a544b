"""Guided decoding against decoding with one policy, under the same grammar.

Both decode the same prompts with the same seeds; guided rows carry the base policy and the adapter in
one forward of twice the rows. Words differ from run to run with the policy, so rates count words.
One policy is the adapter alone. The backbone is the real one, untrained: its designs agree less than
a trained one's, and have fewer beginnings that are computed once.
"""

from __future__ import annotations

import argparse
import time

import torch
from policy_bench import PROMPTS, random_policy, studio_masks

from flowtailor.markdown import markdown_table
from flowtailor.models.constrained import CachedDecoder, Decoder, sample
from flowtailor.models.guidance import GuidedDecoder
from flowtailor.models.policy import policy_prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    rounds = 1 if parser.parse_args().quick else 5
    torch.set_num_threads(1)
    masks, space = studio_masks()
    policy = random_policy(space)
    policy.model.eval()
    prompts = [policy.encode_prompt(policy_prompt(text)) for text in PROMPTS]

    def decoder(guided: bool, size: int) -> Decoder:
        if guided:
            w = [1.5] * size
            return GuidedDecoder(policy.model, policy.columns, adapter="default", w=w)
        return CachedDecoder(policy.model, policy.columns, adapters=("default",))

    def seconds_per_word(guided: bool, size: int, rows: int, first_seed: int) -> float:
        started = time.perf_counter()
        seeds = range(first_seed, first_seed + rows)
        drawn = sample(decoder(guided, size), masks, prompts[:size], seeds=seeds, temperatures=[1.0] * rows)
        return (time.perf_counter() - started) / sum(len(one.words) for one in drawn)

    seconds_per_word(True, 1, 1, 0)
    print(f"Best of {rounds} rounds, one thread.\n")
    head = ["prompts x designs", "one policy, words/s", "guided, words/s", "time against one policy"]
    lines = []
    for size, designs in ((1, 1), (1, 4), (4, 2)):
        # Side by side in each round, because other work on the machine comes and goes.
        pairs = [
            [seconds_per_word(guided, size, size * designs, 1 + i) for guided in (False, True)]
            for i in range(rounds)
        ]
        alone, both = (min(pair[side] for pair in pairs) for side in (0, 1))
        lines.append([f"{size} x {designs}", f"{1 / alone:.0f}", f"{1 / both:.0f}", f"{both / alone:.2f}"])
    print(markdown_table(head, lines, "lr"))


if __name__ == "__main__":
    main()
