"""Requests of every mode, read back from the pictures that they drew."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from tests.generation.nets import save_controlnet
from tests.training.helpers import noise_picture
from tintype.generation.engine import draw
from tintype.generation.images import read_request, save
from tintype.generation.infotext import infotext, parse_infotext, request_from_infotext
from tintype.models.load import load
from tintype.types import GeneratedImage, GenerateRequest


def test_requests_with_pictures_are_repeated(sd_folder: Path, tmp_path: Path) -> None:
    noise_picture(5, (64, 64)).save(tmp_path / "picture.png")
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 24, 47, 63), fill=255)
    mask.save(tmp_path / "mask.png")
    net = save_controlnet(tmp_path / "net", sd_folder, 1)
    picture, hole = str(tmp_path / "picture.png"), str(tmp_path / "mask.png")
    model = load(sd_folder, device="cpu")
    control = ({"model": str(net), "image": picture, "weight": 0.5, "end": 0.6},)
    for values in (
        {"image": picture, "strength": 0.5, "control": control},
        {"image": picture, "mask": hole, "inpaint": {"invert": True, "blur": 0}},
        {"variation": {"seed": 5, "strength": 0.3}, "vae_tiling": "always", "num_images": 2},
        {"negative_prompt": "a cat", "guidance": {"perpendicular": 1.0, "start": 0.3}},
    ):
        request = GenerateRequest(prompt="a dog", steps=4, seed=3, **values)
        for drawn in [e for e in draw(model, request) if isinstance(e, GeneratedImage)]:
            again = read_request(save(drawn, tmp_path / "out"))
            assert again == drawn.request
            [repeated] = [e for e in draw(model, again) if isinstance(e, GeneratedImage)]
            pixels = [np.asarray(one.image, dtype=int) for one in (drawn, repeated)]
            assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_a1111_reads_our_modes_and_we_read_its() -> None:
    request = GenerateRequest(
        prompt="a dog",
        variation={"seed": 5, "strength": 0.25},
        hires={"scale": 1.5, "upscaler": "latent-antialiased", "strength": 0.6, "steps": 9},
        tiling="both",
        guidance={"start": 0.1},
        refiner="xl-refiner",
        refiner_at=0.7,
        model="base",
    )
    text = infotext(request, model_name="base")
    for field in (
        "Variation seed: 5, Variation seed strength: 0.25, Denoising strength: 0.6, Tiling: True",
        "Hires upscale: 1.5, Hires steps: 9, Hires upscaler: Latent (antialiased)",
        "Skip Early CFG: 0.1, Refiner: xl-refiner, Refiner switch at: 0.7",
    ):
        assert field in text
    assert request_from_infotext(text) == request
    theirs = text.replace("Latent (antialiased)", "R-ESRGAN 4x+").replace("Steps: 9", "Steps: 0")
    hires = request_from_infotext(theirs).hires
    assert hires is not None
    assert hires.upscaler == "lanczos"


def test_masks_and_controls_are_told_in_its_words(tmp_path: Path) -> None:
    request = GenerateRequest(
        prompt="a dog",
        image="a.png",
        mask="b.png",
        inpaint={"invert": True, "region": "masked", "padding": 16, "fill": "noise"},
        noise_multiplier=1.1,
        control=({"model": "nets/canny", "image": "c.png", "preprocessor": "canny"},),
    )
    fields = parse_infotext(infotext(request)).fields
    expected = {
        "Mask mode": "Inpaint not masked",
        "Masked content": "latent noise",
        "Inpaint area": "Only masked",
        "Masked area padding": "16",
        "Noise multiplier": "1.1",
        "ControlNet 0": "Module: canny, Model: canny, Weight: 1.0, Guidance Start: 0.0, "
        "Guidance End: 1.0, Control Mode: Balanced",
    }
    assert {name: fields[name] for name in expected} == expected
    info = PngInfo()
    info.add_text("parameters", infotext(request))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_request(tmp_path / "a.png").image is None, "a text names no picture"
