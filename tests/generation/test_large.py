"""Large pictures: a VAE by tiles, against diffusers' own, and pictures made larger."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.helpers import noise_picture
from tintype.errors import ConfigError, InputError, PictureError
from tintype.generation import changes
from tintype.generation.engine import draw
from tintype.generation.images import read_request, save
from tintype.generation.upscale import upscale
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import GeneratedImage, GenerateRequest, UpscaleRequest

STEPS = 4


@pytest.fixture(scope="module")
def sd(sd_folder: Path) -> Model:
    return load(sd_folder, device="cpu")


def pictures(model: Model, **values: object) -> list[GeneratedImage]:
    fields = {"prompt": "a dog", "steps": STEPS, "seed": 2, "width": 96, "height": 128, **values}
    events = draw(model, GenerateRequest(**fields))
    return [e for e in events if isinstance(e, GeneratedImage)]


def drawn(model: Model, **values: object) -> np.ndarray:
    return np.asarray(pictures(model, **values)[0].image, dtype=int)


@pytest.mark.parametrize("begins", [False, True])
def test_tiles_equal_the_pipeline(begins: bool, sd: Model, sd_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    noise_picture(3, (96, 128)).save(path)
    pipeline, options = diffusers.StableDiffusionPipeline, {"height": 128, "width": 96}
    if begins:
        pipeline = diffusers.StableDiffusionImg2ImgPipeline
        options = {"image": Image.open(path), "strength": 0.75}
    pipe = pipeline.from_pretrained(sd_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.enable_tiling()
    expected = pipe(
        "a dog", generator=torch.Generator().manual_seed(2), num_inference_steps=STEPS, **options
    ).images[0]
    own = {"image": str(path), "strength": 0.75} if begins else {}
    ours = drawn(sd, vae_tiling="always", **own)
    assert np.abs(ours - np.asarray(expected, dtype=int)).max() <= 1
    assert np.abs(ours - drawn(sd, **own)).max() > 1
    assert not sd.vae.use_tiling
    assert not sd.vae.use_slicing


def test_large_pictures_are_tiled_and_small_ones_are_exact(
    sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_tiles(width: int, height: int, **values: object) -> bool:
        return changes.by_tiles(GenerateRequest(prompt="", **values), (width, height))

    assert not by_tiles(1536, 1536)
    assert by_tiles(1544, 1536)
    assert by_tiles(8, 8, vae_tiling="always")
    assert not by_tiles(4096, 4096, vae_tiling="never")
    assert not by_tiles(4096, 4096, tiling="x"), "a seam would open at each tile"
    with pytest.raises(ConfigError, match="vae_tiling 'always': doesn't go with seamless tiling"):
        drawn(sd, vae_tiling="always", tiling="both")
    exact, tiled = drawn(sd, vae_tiling="never"), drawn(sd, vae_tiling="always")
    assert np.array_equal(drawn(sd), exact)
    monkeypatch.setattr(changes, "PIXELS_AT_ONCE", 96 * 127)
    assert np.array_equal(drawn(sd), tiled)
    assert np.array_equal(np.asarray(pictures(sd, num_images=2)[0].image, dtype=int), tiled)


@pytest.mark.parametrize("upscaler", ["lanczos", "bicubic", "nearest"])
def test_a_larger_picture_says_how_it_was_drawn(upscaler: str, sd: Model, tmp_path: Path) -> None:
    [image] = pictures(sd)
    path = save(image, tmp_path)
    request = UpscaleRequest(pictures=(str(path),), scale=1.5, upscaler=upscaler)
    [larger] = upscale(request, tmp_path / "out")
    assert larger.name == f"{path.stem}-1.5x.png"
    with Image.open(larger) as opened:
        assert opened.size == (144, 192)
        resampling = Image.Resampling[upscaler.upper()]
        assert opened.tobytes() == image.image.resize((144, 192), resampling).tobytes()
        assert opened.info["parameters"] == Image.open(path).info["parameters"]
    assert read_request(larger) == image.request
    assert next(upscale(request, tmp_path / "out")).name == f"{path.stem}-1.5x-2.png"


def test_what_cannot_be_made_larger_is_named(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (5000, 8)).save(wide)

    def upscaled(**values: object) -> None:
        list(upscale(UpscaleRequest(**{"pictures": (str(wide),), **values}), tmp_path))

    for values, error, message in (
        ({"upscaler": "latent"}, ConfigError, "upscaler 'latent': no such upscaler.*bicubic"),
        ({"scale": 0.5}, ConfigError, "scale 0.5: "),
        ({"scale": 4.0}, InputError, "scale 4.0: would make"),
        ({"pictures": ()}, ConfigError, "pictures"),
        ({"pictures": ("none.png",)}, PictureError, "picture 'none.png': there is no such file"),
    ):
        with pytest.raises(error, match=message):
            upscaled(**values)
