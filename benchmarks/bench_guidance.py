"""Guided decoding against decoding with one policy, under the same grammar.

Both decode the same prompts with the same seeds; guided rows carry the base policy and the adapter in
one forward of twice the rows. Words differ from run to run with the policy, so rates count words.
The first line of the table is the adapter alone. The backbone is the real one, untrained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from policy_bench import PROMPTS, random_policy, studio_masks

from flowtailor.models.constrained import CachedDecoder, Decoder, sample
from flowtailor.models.guidance import GuidedDecoder
from flowtailor.models.policy import policy_prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one design for each prompt")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    masks, space = studio_masks()
    policy = random_policy(space)
    policy.model.eval()
    designs, rounds = (1, 1) if quick else (2, 3)
    rows = designs * len(PROMPTS)
    prompts = [policy.encode_prompt(policy_prompt(text)) for text in PROMPTS]
    pad_id = int(policy.tokenizer.pad_token_id)  # type: ignore[arg-type]

    def single() -> Decoder:
        return CachedDecoder(policy.model, policy.columns, pad_id=pad_id, adapters=("default",))

    def guided() -> Decoder:
        return GuidedDecoder(policy.model, policy.columns, pad_id=pad_id, adapter="default", w=[1.5] * rows)

    def seconds_per_word(decoder: Callable[[], Decoder], first_seed: int) -> float:
        started = time.perf_counter()
        seeds = range(first_seed, first_seed + rows)
        drawn = sample(decoder(), masks, prompts, seeds=seeds, temperatures=[1.0] * rows)
        return (time.perf_counter() - started) / sum(len(one.words) for one in drawn)

    seconds_per_word(guided, 0)
    # Side by side in each round, because other work on the machine comes and goes.
    pairs = [(seconds_per_word(single, 1 + i), seconds_per_word(guided, 1 + i)) for i in range(rounds)]
    alone, both = (min(pair[side] for pair in pairs) for side in (0, 1))
    print(f"{rows} designs at once, best of {rounds} rounds, one thread.\n")
    print("| decoding | words/s | time against one policy |\n| --- | ---: | ---: |")
    print(f"| one policy | {1 / alone:.0f} | 1.00 |\n| guided | {1 / both:.0f} | {both / alone:.2f} |")


if __name__ == "__main__":
    main()
