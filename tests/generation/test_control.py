"""ControlNets against diffusers' own pipelines, and the preprocessors."""

import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from tests.generation.nets import save_controlnet
from tests.training.helpers import noise_picture
from tintype.errors import ModelError, WeightsError
from tintype.generation.control.preprocess import INPAINT, PREPROCESSORS, preprocess
from tintype.generation.engine import draw
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import GeneratedImage, GenerateRequest

STEPS = 5


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("control") / "edges.png"
    noise_picture(7, (64, 64)).save(path)
    return path


def drawn(model: Model, *control: dict[str, object], **values: object) -> np.ndarray:
    fields: dict[str, object] = {"prompt": "a dog", "steps": STEPS, "seed": 2} | values
    request = GenerateRequest(control=control, **fields)
    [image] = [e for e in draw(model, request) if isinstance(e, GeneratedImage)]
    return np.asarray(image.image, dtype=int)


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_controlnets_equal_the_pipeline(
    kind: str, sd_folder: Path, sdxl_folder: Path, picture: Path, tmp_path: Path
) -> None:
    base = {"sd": sd_folder, "xl": sdxl_folder}[kind]
    pipeline = {
        "sd": diffusers.StableDiffusionControlNetPipeline,
        "xl": diffusers.StableDiffusionXLControlNetPipeline,
    }[kind]
    nets = [save_controlnet(tmp_path / str(seed), base, seed) for seed in (1, 2)]
    pipe = pipeline.from_pretrained(
        base, controlnet=[diffusers.ControlNetModel.from_pretrained(net) for net in nets]
    )
    pipe.set_progress_bar_config(disable=True)
    given = Image.open(picture)
    expected = pipe(
        "a dog",
        image=[given, given],
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        height=64,
        width=64,
        controlnet_conditioning_scale=[0.8, 0.5],
        control_guidance_start=[0.0, 0.4],
        control_guidance_end=[0.6, 1.0],
        generator=torch.Generator().manual_seed(2),
    ).images[0]
    model = load(base, device="cpu")
    ours = drawn(
        model,
        {"model": str(nets[0]), "image": str(picture), "weight": 0.8, "end": 0.6},
        {"model": str(nets[1]), "image": str(picture), "weight": 0.5, "start": 0.4},
    )
    assert np.abs(ours - np.asarray(expected, dtype=int)).max() <= 1
    assert np.abs(ours - drawn(model)).max() > 1


def test_what_is_embedded_follows_edges(tmp_path: Path) -> None:
    """Those of another thing, mirrored and moved, so that chance has no part in it."""
    pocket = load("pocket", device="cpu")
    thing = drawn(pocket, prompt="a photo of a car")[:, ::-1]
    path = tmp_path / "thing.png"
    Image.fromarray(np.roll(thing, (9, -8), (0, 1)).astype(np.uint8)).save(path)
    wanted = outlines(Image.open(path))

    def followed(*control: dict[str, object]) -> float:
        """The share of the lines wanted that a bus has within two pixels of its own."""
        bus = drawn(pocket, *control, prompt="a photo of a bus").astype(np.uint8)
        found = outlines(Image.fromarray(bus), ImageFilter.MaxFilter(5))
        return float(found[wanted].mean())

    led = followed({"model": "pocket-canny", "image": str(path), "preprocessor": "canny"})
    assert led > followed() + 0.2


def outlines(picture: Image.Image, widened: ImageFilter.Filter | None = None) -> np.ndarray:
    lines = preprocess(picture, "canny").convert("L")
    return np.asarray(lines.filter(widened) if widened else lines) > 0


def test_modes_weigh_the_prompt_or_the_picture(
    sd_folder: Path, picture: Path, tmp_path: Path
) -> None:
    net = save_controlnet(tmp_path / "net", sd_folder, 1)
    model = load(sd_folder, device="cpu")
    unit = {"model": str(net), "image": str(picture)}
    found = {
        mode: drawn(model, {**unit, "mode": mode}) for mode in ("balanced", "prompt", "control")
    }
    plain = drawn(model)
    pull = {mode: np.abs(one - plain).mean() for mode, one in found.items()}
    assert 0 < pull["prompt"] < pull["balanced"]
    assert pull["prompt"] != pytest.approx(pull["control"], rel=1e-3)
    nothing = drawn(model, {**unit, "weight": 0.0})
    assert np.abs(nothing - plain).max() <= 1


def test_a_controlnet_must_be_one_and_fit(
    sd_folder: Path, sdxl_folder: Path, picture: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    other = save_controlnet(tmp_path / "xl", sdxl_folder, 1)
    broken = save_controlnet(tmp_path / "broken", sd_folder, 1)
    weights = broken / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    for path, error, message in (
        (sd_folder, ModelError, "is no ControlNet"),
        (tmp_path / "none", ModelError, "there is no such file or folder"),
        ("sdxl-cany", ModelError, "Did you mean sdxl-canny"),
        ("sdxl-canny", ModelError, "is not .* in the hub's cache"),
        (other, ModelError, "for another family"),
        (broken, WeightsError, "can't be read"),
    ):
        with pytest.raises(error, match=message):
            drawn(model, {"model": str(path), "image": str(picture)})
    assert json.loads((other / "config.json").read_text())["_class_name"] == "ControlNetModel"


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_preprocessors_keep_the_size(name: str) -> None:
    photo = noise_picture(3, (90, 60))
    made = preprocess(photo, name)
    assert (made.size, made.mode) == ((90, 60), "RGB")
    assert (made.tobytes() == photo.tobytes()) == (name in ("none", INPAINT))
    assert made.tobytes() == preprocess(photo, name).tobytes()


def test_lines_are_found_where_they_are() -> None:
    square = Image.new("RGB", (80, 80), "white")
    ImageDraw.Draw(square).rectangle((20, 20, 59, 59), fill="black")
    for name in ("canny", "softedge", "scribble"):
        found = np.asarray(preprocess(square, name).convert("L")) > 60
        assert found[18:23, 30:50].any(axis=0).all(), name
        assert not found[35:45, 35:45].any(), name
        assert not found[:10].any(), name
