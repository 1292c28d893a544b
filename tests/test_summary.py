"""The one-line summary of a workflow."""

from __future__ import annotations

from flowtailor.workflows.graph import Workflow
from flowtailor.workflows.summary import summary

FLOW = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd3\\general.ckpt"}},
    "2": {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["1", 0],
            "clip": ["1", 1],
            "lora_name": "pixel_style.safetensors",
            "strength_model": 0.8,
        },
    },
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": "{prompt}, detailed"}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": "blurry"}},
    "5": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 128, "height": 96, "batch_size": 1}},
    "6": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["2", 0],
            "positive": ["3", 0],
            "negative": ["4", 0],
            "sampler_name": "euler",
            "scheduler": "normal",
            "steps": 8,
            "cfg": 2.5,
            "denoise": 0.6,
        },
    },
    "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0]}},
    "8": {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["7", 0], "upscale_method": "lanczos", "scale_by": 2.0},
    },
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "{filename}"}},
}


def test_summary_names_what_a_person_would_choose():
    assert summary(Workflow.from_api(FLOW)) == (
        "general · LoRA pixel_style 0.8 · “{prompt}, detailed” · not “blurry” · 128×96 · "
        "euler/normal, 8 steps, cfg 2.5, denoise 0.6 · Image Scale By lanczos 2"
    )


def test_texts_and_slots_of_other_nodes_are_no_file_names():
    nodes = {
        "1": {
            "class_type": "CLIPTextEncodeFlux",
            "inputs": {"clip_l": "{prompt}, 3/4 view", "t5xxl": "{prompt}", "guidance": 3.5},
        },
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": "{seed}"}},
    }
    assert summary(Workflow.from_api(nodes)) == "CLIPText Encode Flux “{prompt}, 3/4 view” 3.5 · Random Noise"


def test_the_plain_prompt_says_nothing_and_long_texts_are_cut():
    nodes = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}"}}}
    assert summary(Workflow.from_api(nodes)) == ""
    nodes["1"]["inputs"]["text"] = "ugly " * 30
    assert len(summary(Workflow.from_api(nodes))) < 60
