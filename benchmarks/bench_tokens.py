"""Tokens of a workflow in flowtailor's words, and of its compact API JSON, same base tokenizer.

A word is one token of the policy's tokenizer, the end word included. The JSON is that of the
canonical workflow (short node ids, no titles, no spaces), the least that an engine would accept.
"""

from __future__ import annotations

from transformers import AutoTokenizer

from flowtailor.datasets.flows import load_seed_flows
from flowtailor.markdown import markdown_table
from flowtailor.models.weights import resolve
from flowtailor.pipelines.catalog import look
from flowtailor.pipelines.config import Config
from flowtailor.workflows.codec import encode


def main() -> None:
    config = Config()
    world = look(config)
    tokenizer = AutoTokenizer.from_pretrained(resolve(config.sft.base))
    words: list[int] = []
    json_tokens: list[int] = []
    lines = []
    for name, flow in load_seed_flows().items():
        words.append(len(encode(flow, world.space)))
        json_tokens.append(len(tokenizer(flow.canonical(world.catalog).dumps())["input_ids"]))
        shorter = f"1/{json_tokens[-1] / words[-1]:.1f}"
        lines.append([name, str(words[-1]), str(json_tokens[-1]), shorter])
    mean_words, mean_json = sum(words) / len(words), sum(json_tokens) / len(json_tokens)
    shorter = f"**1/{mean_json / mean_words:.1f}**"
    lines.append(["**mean**", f"{mean_words:.1f}", f"{mean_json:.1f}", shorter])
    print(markdown_table(["seed workflow", "words", "JSON tokens", "words / JSON"], lines, "lr"))


if __name__ == "__main__":
    main()
