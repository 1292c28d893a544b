"""One line that says what a workflow does, for people: `general · 128×128 · euler/normal, 8 steps, cfg 2`.

Plumbing that every workflow has (decode, save, the plain prompt) is left out. The line is for
reading; it does not hold enough to build the workflow again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .graph import PROMPT, Link, Workflow, is_slot
from .slots import TEXTS, is_negative

PLUMBING = frozenset({"VAEDecode", "VAEEncode", "SaveImage", "PreviewImage", "ImageUpscaleWithModel"})
LONGEST_TEXT = 48


def summary(workflow: Workflow, within: Workflow | None = None) -> str:
    """The parts of a workflow in the order they run, joined by ` · `.

    within: the workflow that it is a part of, if it is no whole one; it tells what is to be avoided.
    """
    parts: list[str] = []
    for node_id, node in workflow.nodes.items():
        values = {name: value for name, value in node.inputs.items() if not isinstance(value, Link)}
        part = _part(node.class_type, values)
        if part.startswith("“") and is_negative(within or workflow, node_id):
            part = f"not {part}"
        if part and part not in parts:
            parts.append(part)
    return " · ".join(parts)


def _part(class_type: str, values: Mapping[str, Any]) -> str:
    match class_type, values:
        case (name, _) if name in PLUMBING:
            return ""
        case "CheckpointLoaderSimple", {"ckpt_name": name}:
            return _stem(name)
        case "LoraLoader" | "LoraLoaderModelOnly", {"lora_name": name, "strength_model": strength}:
            return f"LoRA {_stem(name)} {_number(strength)}"
        case "UpscaleModelLoader", {"model_name": name}:
            return f"upscaler {_stem(name)}"
        case "CLIPTextEncode", {"text": str(text)}:
            return _text(text)
        case "KSampler", {"sampler_name": sampler, "scheduler": scheduler, "steps": steps, "cfg": cfg}:
            denoise = values.get("denoise", 1.0)
            tail = "" if denoise == 1.0 else f", denoise {_number(denoise)}"
            return f"{sampler}/{scheduler}, {steps} steps, cfg {_number(cfg)}{tail}"
        case name, {"width": width, "height": height} if name.startswith("Empty"):
            return f"{width}×{height}"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", class_type)
    told = [_text(value) if name in TEXTS else _value(value) for name, value in values.items()]
    return " ".join([words, *filter(None, told)])


def _text(text: str) -> str:
    if text.strip() in ("", PROMPT):
        return ""
    short = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    return f"“{short}”"


def _value(value: Any) -> str:
    if is_slot(value):
        return ""
    if isinstance(value, str):
        return _stem(value)
    return _number(value) if isinstance(value, float) else str(value)


def _stem(file_name: str) -> str:
    """A model's file name without its folder and ending."""
    return re.sub(r"\.(safetensors|ckpt|pt|pth)$", "", str(file_name).replace("\\", "/").rsplit("/", 1)[-1])


def _number(value: float) -> str:
    return f"{value:g}"
