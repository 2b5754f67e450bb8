"""Draw with the exported weights, through diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

GUIDANCE, STEPS = 5.0, 20


def load(folder: Path) -> StableDiffusionPipeline:
    """Load the pipeline from a folder of weights."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def draw(
    pipe: StableDiffusionPipeline,
    prompts: list[str],
    seed: int = 0,
    guidance: float = GUIDANCE,
    batch: int = 16,
) -> np.ndarray:
    """Draw a picture for each prompt, each from its own seed, (n, 128, 128, 3) uint8."""
    parts = []
    for i in range(0, len(prompts), batch):
        group = prompts[i : i + batch]
        noise = [torch.Generator().manual_seed(seed + i + k) for k in range(len(group))]
        out = pipe(
            group,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=noise,
            height=128,
            width=128,
            output_type="np",
        )
        parts.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(parts)
