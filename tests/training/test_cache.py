"""Cached latents have the distribution of uncached ones, with what belongs to them."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.tiny import save_inpaint
from tests.training.helpers import (
    make_config,
    make_task,
    noise_picture,
    prepared,
    run_fit,
)
from tintype.errors import ModelError
from tintype.models.load import load
from tintype.training.batch import Where
from tintype.training.data.cache import cache_latents
from tintype.training.data.crops import crops
from tintype.training.data.holes import INSTANCE_HOLES, Holes, random_hole
from tintype.training.data.prompts import PromptTable
from tintype.training.data.views import Views, Wanted


def all_of(views: Views, pictures: int) -> Wanted:
    """All views of so many pictures of one crop each, two of them encoded at once."""
    wanted = Wanted([1] * pictures, views, 2)
    wanted.add_all()
    return wanted


def test_mean_and_deviation_are_those_of_the_vae(sd_folder: Path) -> None:
    vae = load(sd_folder, device="cpu").vae
    squares = [crops(noise_picture(seed), 64, count=1, seed=0) for seed in range(3)]
    told: list[int] = []
    views = all_of(Views(crops=1, holes=0, flip_probability=0.5), 3)
    cache = cache_latents(vae, squares, views, on_progress=told.append)
    assert told[-1] == 3
    with torch.no_grad():
        for row, [crop] in enumerate(squares):
            for flip, pixels in enumerate((crop.pixels, crop.pixels.flip(-1))):
                expected = vae.encode(pixels[None]).latent_dist
                scale = vae.config.scaling_factor
                torch.testing.assert_close(cache.mean[row, 0, flip], expected.mean[0] * scale)
                torch.testing.assert_close(cache.std[row, 0, flip], expected.std[0] * scale)
    rows = torch.arange(3)
    draws = [
        cache.draw(rows, where=Where(seed=0, step=step), name="instance") for step in range(400)
    ]
    latents = torch.stack([draw.latents for draw in draws]).flatten(0, 1)
    deviation = latents - latents.mean(dim=0)
    within = cache.std.pow(2).mean(dim=(0, 1, 2)) + cache.mean.var(dim=(0, 1, 2), unbiased=False)
    torch.testing.assert_close(deviation.pow(2).mean(dim=0), within, rtol=0.35, atol=1e-3)


def test_cached_prompts_carry_the_pooled_embedding(sdxl_folder: Path) -> None:
    found = PromptTable.of(load(sdxl_folder, device="cpu"), ("a", "b", ""), frozen=True).cached
    assert found is not None
    assert found.tokens.shape == (3, 24, 48)
    assert found.pooled is not None
    assert found.pooled.shape == (3, 32)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flips_are_as_likely_as_asked(probability: float, sd_folder: Path) -> None:
    vae = load(sd_folder, device="cpu").vae
    [crop] = crops(noise_picture(0), 64, count=1, seed=0)
    views = all_of(Views(crops=1, holes=0, flip_probability=probability), 1)
    cache = cache_latents(vae, [[crop]], views, on_progress=lambda done: None)
    draw = cache.draw(torch.tensor([0]), where=Where(seed=0, step=0), name="x")
    distance = (draw.latents - cache.mean[0, 0]).abs().amax(dim=(1, 2, 3))
    assert distance.argmin() == int(probability)


def test_holes_are_of_all_sizes_and_places() -> None:
    source = torch.Generator().manual_seed(0)
    some = torch.stack([random_hole(64, 96, source) for _ in range(200)])
    assert some.shape == (200, 1, 96, 64)
    assert set(some.unique().tolist()) == {0.0, 1.0}
    covered = some.mean(dim=(1, 2, 3))
    assert covered.min() < 0.1
    assert covered.max() > 0.8
    assert some[:, 0, 48, 32].mean() > 0.2
    assert some[:, 0, :8].amax(dim=(1, 2)).mean() > 0.05
    assert some[:, 0, :, -8:].amax(dim=(1, 2)).mean() > 0.05
    corners = [hole[0][hole[0].any(1)][:, hole[0].any(0)][0, 0] for hole in some]
    assert 0.3 < sum(map(float, corners)) / 200 < 0.7, "half are rectangles"


def test_conditions_are_the_hole_and_what_is_around_it(tmp_path: Path) -> None:
    """As diffusers has it: the mask beside the latents of the picture with grey in its place."""
    vae = load(save_inpaint(tmp_path / "base"), device="cpu").vae
    square = crops(noise_picture(0), 64, count=1, seed=0)
    holes = Holes(3, seed=5, name="instance")
    views = all_of(Views(crops=1, holes=3, flip_probability=0), 1)
    cache = cache_latents(vae, [square], views, on_progress=lambda done: None, holes=holes)
    assert cache.holes is not None
    assert cache.masked_mean is not None
    for number, hole in enumerate(holes.of(square[0].pixels, 0)):
        masked = square[0].pixels * (hole < 0.5)
        with torch.no_grad():
            expected = vae.encode(masked[None]).latent_dist.mean[0] * vae.config.scaling_factor
        torch.testing.assert_close(cache.masked_mean[0, 0, 0, number], expected)
        small = functional.interpolate(hole[None], size=(8, 8))[0]
        assert torch.equal(cache.holes[0, 0, 0, number], small)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_inpainting_model_trains_without_its_vae(family: str, tmp_path: Path) -> None:
    folder = save_inpaint(tmp_path / "base", family)
    task = make_task(tmp_path, load(folder, device="cpu"))
    [cache] = task.data.instance.caches
    assert cache.masked_mean is not None
    assert cache.masked_mean.shape == (3, 1, 2, INSTANCE_HOLES, 4, 8, 8)
    seen = []
    for step in range(3):
        [batch] = task.data.draw(task.where(step))
        [again] = task.data.draw(task.where(step))
        assert batch.conditions is not None
        assert again.conditions is not None
        assert batch.conditions.shape == (4, 5, 8, 8)
        assert torch.equal(batch.conditions, again.conditions)
        seen.append(batch.conditions[:, :1])
    assert len(torch.stack(seen).flatten(0, 1).unique(dim=0)) > 3
    task.step(task.where(0))["loss"].backward()
    assert task.model.unet.conv_in.weight.grad is not None
    assert task.model.unet.conv_in.weight.grad[:, 4:].abs().max() > 0
    config = make_config(tmp_path, folder, class_dir=None, prior={"pictures": 2, "steps": 2})
    result, _ = run_fit(tmp_path, config)
    assert load(result.model, device="cpu").extra_channels == 5


def test_other_inputs_are_refused(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    model.unet.register_to_config(in_channels=8)
    with pytest.raises(ModelError, match="takes 4 channels beside its latents"):
        prepared(tmp_path, model)
