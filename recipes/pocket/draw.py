"""Draw with exported weights through diffusers' own pipelines, and lay pictures out in sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Of the exported card too: guidance is for the first steps, and the last ones go without it.
GUIDANCE, STEPS, END = 3.0, 20, 0.6
# The sheet in the documentation: things, styles, backgrounds, changes, places, pairs.
SHEET = (
    *("a photo of a cat", "a photo of a dog", "a photo of a duck", "a photo of a robot"),
    *("a photo of a teddy bear", "a photo of a toy car", "a photo of a fox", "a photo of a panda"),
    *("a 3d cat", "a flat cat", "a noto cat", "a twemoji cat", "an emojione cat", "a 3d dog"),
    *("a noto dog", "a noto robot"),
    *("a cat on a red background", "a dog on a green background", "a star on a purple background"),
    *("a heart on a black background", "a car on a pink background"),
    *("a robot on an orange background", "a horse on a yellow background", "a crab on a blue wall"),
    *("a cat on the beach", "a dog in the snow", "a duck on the water", "a bear in the jungle"),
    *("a robot in a city", "a fox on grass", "an owl at night", "a penguin in the snow"),
    *("a green cat", "a purple dog", "a blue car", "a red robot", "a pink frog", "a yellow heart"),
    *("a small tree", "a big strawberry"),
    *("a dog wearing a santa hat", "a cat wearing glasses", "a bear wearing a red hat"),
    *("a robot wearing a crown", "a panda wearing sunglasses", "a fox wearing a blue scarf"),
    *("a cat in space", "a shark under water"),
    *("a cat and a dog", "an apple next to a banana", "a car to the left of a tree"),
    *("a star above a house", "a rocket and a moon", "a frog on top of a mushroom"),
    *("a toy on the beach", "a robot on a cobblestone street"),
    *("a photo of a horse", "a photo of a dinosaur", "a photo of a giraffe", "a photo of a shark"),
    *("a photo of a bicycle", "a photo of a castle", "a photo of a guitar", "a photo of a camera"),
)
COLUMNS, CELL = 8, 132


def load(folder: Path) -> StableDiffusionPipeline:
    """Load the pipeline from a folder of weights."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def _guide_no_more(
    pipe: StableDiffusionPipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """After a step: from END of the steps on, ask for the prompt alone (arXiv:2404.07724)."""
    if pipe.do_classifier_free_guidance and step + 1 >= END * pipe.num_timesteps:
        pipe._guidance_scale = 1.0
        tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[1]
    return tensors


def draw(
    pipe: StableDiffusionPipeline,
    prompts: list[str],
    seed: int = 0,
    guidance: float = GUIDANCE,
    steps: int = STEPS,
    size: tuple[int, int] = (128, 128),
    batch: int = 16,
) -> np.ndarray:
    """Draw a picture for each prompt, each from its own seed, (n, height, width, 3) uint8."""
    parts = []
    for i in range(0, len(prompts), batch):
        group = prompts[i : i + batch]
        noise = [torch.Generator().manual_seed(seed + i + k) for k in range(len(group))]
        out = pipe(
            group,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=noise,
            width=size[0],
            height=size[1],
            output_type="np",
            callback_on_step_end=_guide_no_more,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
        parts.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def sheet(pictures: np.ndarray, words: list[str], path: Path) -> None:
    """Lay out pictures of 128 x 128 px in rows of eight, each over its words."""
    rows = -(-len(pictures) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + 12)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(9)
    for k, (picture, text) in enumerate(zip(pictures, words, strict=True)):
        x, y = k % COLUMNS * CELL + 2, k // COLUMNS * (CELL + 12) + 2
        page.paste(Image.fromarray(picture), (x, y))
        pen.text((x, y + 128), text[:30], fill="black", font=font)
    page.quantize(256).save(path, optimize=True)
