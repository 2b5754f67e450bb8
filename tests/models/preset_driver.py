"""Draws with every preset from the hub that HF_ENDPOINT names; prints what came of it as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from tests.models.preset_layouts import STATED
from tintype.generation.engine import draw, resolve
from tintype.models.load import load
from tintype.models.model import Model
from tintype.models.presets import PRESETS, Preset
from tintype.types import GeneratedImage, GenerateRequest, Progress

STEPS = 4


def main(folders: dict[str, str]) -> None:
    print(json.dumps({row.name: outcome(row, folders) for row in PRESETS.values()}))


def outcome(row: Preset, folders: dict[str, str]) -> dict[str, Any]:
    """What the model says of itself, what a bare request becomes, and how far the picture is from
    diffusers' own, in 1/255."""
    heard: list[Progress] = []
    model = load(row.name, device="cpu", on_event=heard.append)
    whole = resolve(model, GenerateRequest(prompt="a dog"))
    steps = min(STEPS, whole.steps)
    # as much of it as fits the small text encoder, past which diffusers cuts off
    negative = whole.negative_prompt.partition(",")[0]
    asked = GenerateRequest(
        prompt="a dog", negative_prompt=negative, steps=steps, width=64, height=64, seed=7
    )
    (ours,) = [e.image for e in draw(model, asked) if isinstance(e, GeneratedImage)]
    expected = theirs(row, model, folders, asked, whole.guidance_scale)
    difference = np.abs(np.asarray(ours, dtype=int) - expected)
    tagged = resolve(model, GenerateRequest(prompt="a dog", quality=True)).prompt
    return {
        "id": model.card.id,
        "family": model.family.name,
        "request": whole.model_dump(mode="json", exclude={"seed", "num_images"}),
        "tagged": tagged,
        "difference": int(difference.max()),
        "downloaded": any(event.phase == "download" for event in heard),
        "files": sorted(p.name for p in model.card.path.rglob("*.safetensors")),
    }


def theirs(
    row: Preset,
    model: Model,
    folders: dict[str, str],
    asked: GenerateRequest,
    guidance_scale: float,
) -> np.ndarray:
    folder = Path(folders[row.repo])
    if row.file is not None:
        # the file was made of this folder, and holds no tokenizer or config of its own
        folder = Path(folders["stabilityai/stable-diffusion-xl-base-1.0"])
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, variant=row.variant, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    if row.file is not None:
        pipeline.tokenizer, pipeline.tokenizer_2 = model.tokenizers
        pipeline.scheduler = diffusers.DDIMScheduler.from_config(model.scheduler_config)
    if row.adapter is not None:
        pipeline.load_lora_weights(folders[row.adapter.repo], weight_name=row.adapter.file)
    if row.name in STATED:
        pipeline.scheduler = STATED[row.name](dict(pipeline.scheduler.config))
    source = torch.Generator().manual_seed(7)
    size: dict[str, Any] = {"width": 64, "height": 64}
    if row.family == "sdxl_refiner":
        latents = torch.randn(1, 4, 8, 8, generator=source)
        pipeline.scheduler.set_timesteps(asked.steps)
        size = {"image": latents * pipeline.scheduler.init_noise_sigma, "denoising_start": 1e-9}
        size |= {"original_size": (64, 64), "target_size": (64, 64)}
    images = pipeline(
        "a dog",
        negative_prompt=asked.negative_prompt or None,
        guidance_scale=guidance_scale,
        num_inference_steps=asked.steps,
        eta=row.generate.get("eta", 0.0),
        generator=source,
        **size,
    ).images
    return np.asarray(images[0], dtype=int)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
