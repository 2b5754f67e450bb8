"""The metrics: CLIP's own embeddings, and arithmetic that can be checked by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel
from transformers.models.clip import CLIPImageProcessorPil

from tintype.errors import ModelError
from tintype.models.clip import (
    Preprocess,
    SubjectMetrics,
    diversity,
    prior_preservation,
    prompt_fidelity,
    subject_similarity,
)


def noise(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_embeddings_are_those_of_the_clip_itself(clip_folder: Path) -> None:
    metrics = SubjectMetrics.load(clip_folder)
    images = [noise(0), noise(1), noise(2)]
    prompts = ["a photo of a dog", "cat"]
    clip = CLIPModel.from_pretrained(clip_folder)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    with torch.inference_mode():
        expected = clip(
            pixel_values=processor(images, return_tensors="pt").pixel_values,
            **metrics.tokenizer(prompts, padding=True, return_tensors="pt"),
        )
    torch.testing.assert_close(
        metrics.image_embeddings(images, batch=2), expected.image_embeds, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        metrics.text_embeddings(prompts), expected.text_embeds, atol=1e-5, rtol=0
    )


def test_preprocess_reads_the_folder_and_takes_the_centre_square(tmp_path: Path) -> None:
    config = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    wide = Image.new("RGB", (64, 32), "black")
    wide.paste("white", (16, 0, 48, 32))
    pixels = Preprocess.read(tmp_path, 32)([wide])
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels.min() == 1.0


def test_cosines_by_hand() -> None:
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    both = torch.stack([x, y])
    assert subject_similarity(both, x[None]) == pytest.approx(0.5)
    assert prompt_fidelity(both, torch.stack([x, x])) == pytest.approx(0.5)
    assert prior_preservation(both, both) == pytest.approx(1.0)
    assert prior_preservation(both, both.flip(0)) == pytest.approx(0.0)
    assert diversity(both) == pytest.approx(1.0)
    assert diversity(torch.stack([x, x, x])) == pytest.approx(0.0)
    assert diversity(x[None]) == 0.0


def test_a_folder_without_a_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        SubjectMetrics.load(tmp_path)
