"""Large pictures: a VAE by tiles, against diffusers' own, and pictures made larger."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.models.test_upscalers import compact
from tests.training.helpers import noise_picture
from tintype.errors import ConfigError, InputError, PictureError
from tintype.generation import changes
from tintype.generation.engine import draw
from tintype.generation.images import read_request, save
from tintype.generation.upscale import upscale
from tintype.models.load import load
from tintype.models.model import Model
from tintype.models.upscalers.load import load_upscaler
from tintype.service import Service
from tintype.settings import Settings
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


@pytest.fixture
def upscalers(tmp_path: Path) -> Path:
    """A folder of one upscaler, "sharp"."""
    folder = tmp_path / "upscalers"
    folder.mkdir()
    save_file(compact(2), folder / "sharp.safetensors")
    return folder


def test_an_upscaler_file_by_name_or_path(upscalers: Path, tmp_path: Path) -> None:
    picture = noise_picture(4, (40, 24))
    picture.save(tmp_path / "photo.png")
    service = Service(Settings(upscalers_dir=upscalers, out_dir=tmp_path / "out", device="cpu"))
    assert list(service.upscalers()) == ["lanczos", "bicubic", "nearest", "sharp"]
    expected = load_upscaler(upscalers / "sharp.safetensors").to_size(picture, (120, 72))
    for upscaler in ("sharp", str(upscalers / "sharp.safetensors")):
        request = UpscaleRequest(
            pictures=(str(tmp_path / "photo.png"),), scale=3, upscaler=upscaler
        )
        [larger] = service.upscale(request)
        assert np.array_equal(np.asarray(Image.open(larger)), np.asarray(expected))
    plain = picture.resize((120, 72), Image.Resampling.LANCZOS)
    assert not np.array_equal(np.asarray(plain), np.asarray(expected))
    with pytest.raises(ConfigError, match=r"upscaler 'sharpp': no such.* Did you mean sharp\?"):
        service.upscale(UpscaleRequest(pictures=("x.png",), upscaler="sharpp"))


def test_a_second_pass_over_what_an_upscaler_file_made(
    upscalers: Path, sd: Model, sd_folder: Path, tmp_path: Path
) -> None:
    hires = {"scale": 1.5, "strength": 0.5, "upscaler": "sharp"}
    request = GenerateRequest(
        prompt="a dog", model=str(sd_folder), steps=STEPS, seed=2, width=64, height=64, hires=hires
    )
    service = Service(Settings(upscalers_dir=upscalers, device="cpu"))
    [drawn_larger] = [e for e in service.generate(request) if isinstance(e, GeneratedImage)]
    small = pictures(sd, width=64, height=64)[0].image
    network = load_upscaler(upscalers / "sharp.safetensors")
    network.to_size(small, (96, 96)).save(tmp_path / "larger.png")
    again = drawn(sd, image=str(tmp_path / "larger.png"), strength=0.5, width=96, height=96)
    ours = np.asarray(drawn_larger.image, dtype=int)
    assert np.abs(ours - again).max() <= 1
    path = save(drawn_larger, tmp_path)
    assert "Hires upscaler: sharp" in Image.open(path).info["parameters"]
    assert read_request(path) == drawn_larger.request
    with pytest.raises(ConfigError, match=r"hires.upscaler 'sharp': no such.*latent-nearest"):
        pictures(sd, hires=hires)


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
