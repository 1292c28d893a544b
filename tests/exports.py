"""Workflows as people export them from ComfyUI, in API format: no slots, their prompt typed in."""

from __future__ import annotations

from typing import Any

Api = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


SDXL: Api = {
    "4": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base.safetensors"),
    "5": node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
    "6": node("CLIPTextEncode", text="a cosy library, warm light", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="blurry, text", clip=["4", 1]),
    "3": node(
        "KSampler",
        seed=77,
        steps=25,
        cfg=7.0,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=1.0,
        model=["4", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
    ),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="ComfyUI"),
}
FLUX: Api = {
    "1": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "2": node(
        "DualCLIPLoader",
        clip_name1="t5xxl.safetensors",
        clip_name2="clip_l.safetensors",
        type="flux",
        device="default",
    ),
    "3": node("VAELoader", vae_name="ae.safetensors"),
    "4": node("PrimitiveStringMultiline", value="a lighthouse at dusk"),
    "5": node("CLIPTextEncode", text=["4", 0], clip=["2", 0]),
    "6": node("FluxGuidance", guidance=3.5, conditioning=["5", 0]),
    "7": node("BasicGuider", model=["1", 0], conditioning=["6", 0]),
    "8": node("RandomNoise", noise_seed=5),
    "9": node("KSamplerSelect", sampler_name="euler"),
    "10": node("BasicScheduler", model=["1", 0], scheduler="simple", steps=20, denoise=1.0),
    "11": node("EmptySD3LatentImage", width=1024, height=768, batch_size=1),
    "12": node(
        "SamplerCustomAdvanced",
        noise=["8", 0],
        guider=["7", 0],
        sampler=["9", 0],
        sigmas=["10", 0],
        latent_image=["11", 0],
    ),
    "13": node("VAEDecode", samples=["12", 0], vae=["3", 0]),
    "14": node("SaveImage", images=["13", 0], filename_prefix="flux"),
}


def cropping(**box: int) -> Api:
    cropped = node("ImageCropV2", image=["8", 0], crop_region=box)
    return SDXL | {"20": cropped, "9": node("SaveImage", images=["20", 0], filename_prefix="ComfyUI")}
