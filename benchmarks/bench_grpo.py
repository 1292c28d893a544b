"""A GRPO step with the grammar's mask against plain TRL, on the same model and lengths.

Plain: TRL's own GRPOTrainer samples and scores the same number of tokens of the whole vocabulary,
no grammar. Masked: `models/masked_trainer.py`, which computes what rows have in common once. Both
train the same LoRA on the real backbone, untrained: the designs of a trained one have more in common.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from datasets import Dataset
from policy_bench import MAX_WORDS, PROMPTS, random_policy, studio_masks
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from flowtailor.markdown import markdown_table
from flowtailor.models.masked_trainer import MaskedGRPOTrainer
from flowtailor.models.policy import lora_config, policy_prompt
from flowtailor.models.weights import resolve
from flowtailor.precision import compute_dtype


def options(steps: int, rows: int) -> GRPOConfig:
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        per_device_train_batch_size=rows,
        num_generations=rows // len(PROMPTS),
        max_completion_length=MAX_WORDS,
        learning_rate=1e-5,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        generation_kwargs={"min_new_tokens": MAX_WORDS},  # as long as the designs, at the least
    )


def shorter_is_better(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [-float(len(set(ids))) for ids in completion_ids]


def measured(trainer: GRPOTrainer) -> tuple[float, float]:
    """(seconds a step, tokens a step), the first step left out."""
    trainer.callback_handler.callbacks = [
        c for c in trainer.callback_handler.callbacks if type(c).__name__ != "PrinterCallback"
    ]
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "step_time" in entry][1:]
    rows = trainer.args.per_device_train_batch_size
    seconds = sum(entry["step_time"] for entry in steps) / len(steps)
    return seconds, rows * sum(entry["completions/mean_length"] for entry in steps) / len(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one step of 8 designs instead of three of 16")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    steps, rows = (2, 8) if quick else (4, 16)
    questions = Dataset.from_dict({"prompt": [policy_prompt(text) for text in PROMPTS] * steps})
    masks, space = studio_masks()
    shared: dict[str, Any] = {"reward_funcs": shorter_is_better, "train_dataset": questions}

    masked, designs = measured(
        MaskedGRPOTrainer(random_policy(space), masks, args=options(steps, rows), **shared)
    )
    base = resolve("smollm2-135m-instruct")
    plain, tokens = measured(
        GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(str(base), dtype=compute_dtype()),
            processing_class=AutoTokenizer.from_pretrained(str(base)),
            peft_config=lora_config(16),
            args=options(steps, rows),
            **shared,
        )
    )
    print(f"{rows} designs a step, {steps - 1} steps, one thread.\n")
    lines = [
        [name, f"{seconds:.1f}", f"{count:.0f}", f"{60 / seconds:.1f}", f"{plain / seconds:.2f}"]
        for name, seconds, count in (("plain TRL", plain, tokens), ("masked", masked, designs))
    ]
    print(markdown_table(["step", "s", "tokens", "steps/min", "steps/min against plain"], lines, "lr"))


if __name__ == "__main__":
    main()
