"""Cached latents have the distribution of uncached ones; class pictures are drawn once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.helpers import make_config, make_pictures, noise_picture
from tintype.models.load import load
from tintype.models.model import Model
from tintype.training.batch import Where
from tintype.training.data.cache import cache_latents
from tintype.training.data.crops import crops
from tintype.training.data.prompts import PromptTable
from tintype.training.prior import class_pictures
from tintype.training.resolve import resolve
from tintype.types import Event, Note, Progress
from tintype.types.base import merged


def test_mean_and_deviation_are_those_of_the_vae(sd_folder: Path) -> None:
    vae = load(sd_folder, device="cpu").vae
    squares = [crops(noise_picture(seed), 64, count=1, seed=0) for seed in range(3)]
    told: list[int] = []
    cache = cache_latents(vae, squares, flip_probability=0.5, on_progress=told.append)
    assert told[-1] == 3
    with torch.no_grad():
        for row, [crop] in enumerate(squares):
            for flip, pixels in enumerate((crop.pixels, crop.pixels.flip(-1))):
                expected = vae.encode(pixels[None]).latent_dist
                scale = vae.config.scaling_factor
                torch.testing.assert_close(cache.mean[row, 0, flip], expected.mean[0] * scale)
                torch.testing.assert_close(cache.std[row, 0, flip], expected.std[0] * scale)
    draws = [cache.draw(3, where=Where(seed=0, step=step), name="instance") for step in range(400)]
    latents = torch.stack([draw.latents for draw in draws]).flatten(0, 1)
    deviation = latents - latents.mean(dim=0)
    within = cache.std.pow(2).mean(dim=(0, 1, 2)) + cache.mean.var(dim=(0, 1, 2), unbiased=False)
    torch.testing.assert_close(deviation.pow(2).mean(dim=0), within, rtol=0.35, atol=1e-3)


def test_every_picture_is_seen_once_before_any_twice(sd_folder: Path) -> None:
    vae = load(sd_folder, device="cpu").vae
    squares = [
        crops(Image.new("RGB", (64, 64), (50 * seed,) * 3), 64, count=1, seed=0)
        for seed in range(5)
    ]
    cache = cache_latents(vae, squares, flip_probability=0, on_progress=lambda done: None)
    rows = [
        cache._rows(2, seed=3, first=(step * 2 + rank) * 2, name="x")
        for step in range(5)
        for rank in range(2)
    ]
    seen = torch.cat(rows).view(4, 5)
    assert seen.sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 4
    assert len({tuple(row) for row in seen.tolist()}) > 1


def test_cached_prompts_carry_the_pooled_embedding(sdxl_folder: Path) -> None:
    found = PromptTable.of(load(sdxl_folder, device="cpu"), ("a", "b", ""), frozen=True).cached
    assert found is not None
    assert found.tokens.shape == (3, 24, 48)
    assert found.pooled is not None
    assert found.pooled.shape == (3, 32)


def drawn(
    root: Path, model: Model, **values: object
) -> tuple[list[Path], list[Event], Iterator[object]]:
    values = merged({"prior": {"steps": 2}}, values)
    config = resolve(make_config(root, model.card.path, **values), model)
    events: list[Event] = []
    paths: list[Path] = []
    stream = class_pictures(
        model, config, config.all_subjects[0], "a photo of a dog", cache_dir=root / "cache"
    )
    for event in stream:
        if isinstance(event, list):
            paths = event
        else:
            events.append(event)
    return paths, events, stream


def test_class_pictures_are_drawn_once_and_go_on_after_a_kill(
    sd_folder: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    values = {"class_dir": None, "prior": {"pictures": 6}}
    paths, events, _ = drawn(tmp_path, model, **values)
    assert len(paths) == 6
    last = events[-1]
    assert isinstance(last, Progress)
    assert (last.phase, last.step, last.total) == ("class pictures", 6, 6)
    first = {path: path.read_bytes() for path in paths}
    assert len(set(first.values())) == 6
    assert drawn(tmp_path, model, **values)[:2] == (paths, [])
    for path in (paths[1], paths[4]):
        path.unlink()
    _, events, _ = drawn(tmp_path, model, **values)
    assert [event.step for event in events if isinstance(event, Progress)] == [4, 5, 6]
    for path, content in first.items():  # to rounding: another batch size
        again = torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8)
        path.write_bytes(content)
        before = torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8)
        assert (again.int() - before.int()).abs().max() <= 1
    others = drawn(tmp_path, model, **merged(values, {"prior": {"guidance_scale": 2.0}}))[0]
    assert others[0].parent != paths[0].parent


def test_pictures_of_the_class_folder_come_first(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    folder = make_pictures(tmp_path / "class", 3, first=100)
    paths, _, _ = drawn(tmp_path, model, prior={"pictures": 5})
    assert [path.parent == folder for path in paths] == [True, True, True, False, False]
    paths, events, _ = drawn(tmp_path, model, prior={"pictures": 2})
    assert [path.name for path in paths] == ["0.png", "1.png"]
    assert [type(event) for event in events] == [Note]
    assert "first 2 of 3" in str(events[0])
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flips_are_as_likely_as_asked(probability: float, sd_folder: Path) -> None:
    vae = load(sd_folder, device="cpu").vae
    [crop] = crops(noise_picture(0), 64, count=1, seed=0)
    cache = cache_latents(
        vae, [[crop]], flip_probability=probability, on_progress=lambda done: None
    )
    draw = cache.draw(1, where=Where(seed=0, step=0), name="x")
    distance = (draw.latents - cache.mean[0, 0]).abs().amax(dim=(1, 2, 3))
    assert distance.argmin() == int(probability)
