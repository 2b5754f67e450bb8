"""Perpendicular negative prompts, against the paper's formula written out."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from tintype.errors import ConfigError
from tintype.generation.engine import draw, draw_many
from tintype.generation.guiding import across
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import GeneratedImage, GenerateRequest

PROMPT, NEGATIVE, STEPS, SCALE, AWAY = "a dog on a hill", "a cat on a tree", 5, 6.0, 1.5


@pytest.fixture(scope="module")
def sd(sd_folder: Path) -> Model:
    return load(sd_folder, device="cpu")


def request(**values: object) -> GenerateRequest:
    guidance = {"perpendicular": AWAY}
    fields = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance": guidance, **values}
    return GenerateRequest(steps=STEPS, seed=3, guidance_scale=SCALE, **fields)


def drawn(model: Model, **values: object) -> np.ndarray:
    [image] = [e for e in draw(model, request(**values)) if isinstance(e, GeneratedImage)]
    return np.asarray(image.image, dtype=int)


def test_a_perpendicular_part_is_one() -> None:
    chance = torch.Generator().manual_seed(0)
    vectors, along = (torch.randn(2, 3, 4, 4, generator=chance) for _ in range(2))
    found = across(vectors, along)
    torch.testing.assert_close((found * along).sum((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    rest = (vectors - found) / along
    torch.testing.assert_close(rest, rest[:, :1, :1, :1].expand_as(rest), atol=1e-4, rtol=1e-3)
    assert not across(along, along).abs().max() > 1e-5


def test_perpendicular_guidance_equals_its_formula(sd: Model, sd_folder: Path) -> None:
    """arXiv:2304.04968, with diffusers' parts."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    texts = torch.cat([pipe.encode_prompt(t, "cpu", 1, False)[0] for t in ("", NEGATIVE, PROMPT)])
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    for timestep in scheduler.timesteps:
        with torch.no_grad():
            rows: Tensor = pipe.unet(torch.cat([latents] * 3), timestep, texts).sample
        nothing, negative, positive = rows.chunk(3)
        main, other = positive - nothing, negative - nothing
        sideways = other - (main * other).sum() / main.norm() ** 2 * main
        guided = nothing + SCALE * (main - AWAY * sideways)
        latents = scheduler.step(guided, timestep, latents).prev_sample
    with torch.no_grad():
        pixels = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    expected = ((pixels[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).round().numpy()
    ours = drawn(sd)
    assert np.abs(ours - expected).max() <= 1
    assert np.abs(ours - drawn(sd, guidance={})).max() > 1


def test_without_a_negative_prompt_it_is_plain_guidance(sd: Model, sdxl_folder: Path) -> None:
    for model in (sd, load(sdxl_folder, device="cpu")):
        plain = drawn(model, negative_prompt="", guidance={})
        assert np.array_equal(drawn(model, negative_prompt=""), plain)


def test_it_goes_with_joined_prompts_intervals_and_neighbours(sd: Model) -> None:
    requests = [
        request(),
        request(negative_prompt=""),
        request(prompt="a dog AND a hill :0.5"),
        request(guidance={"perpendicular": AWAY, "start": 0.5, "rescale": 0.3}),
    ]
    together = {e.index: e for e in draw_many(sd, requests) if isinstance(e, GeneratedImage)}
    for index, one in enumerate(requests):
        [alone] = [e for e in draw(sd, one) if isinstance(e, GeneratedImage)]
        found = np.asarray(together[index].image, dtype=int)
        assert np.abs(found - np.asarray(alone.image, dtype=int)).max() <= 1
    with pytest.raises(ConfigError, match=r"guidance\.perpendicular"):
        drawn(sd, guidance={"perpendicular": 1.0, "perturbed_attention": 3.0})
