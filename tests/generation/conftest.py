"""Models, and a picture with its mask."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.training.helpers import noise_picture
from tintype.models.load import load
from tintype.models.model import Model


@pytest.fixture(scope="module")
def sd(sd_folder: Path) -> Model:
    return load(sd_folder, device="cpu")


@pytest.fixture(scope="module")
def sdxl(sdxl_folder: Path) -> Model:
    return load(sdxl_folder, device="cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    noise_picture(5).resize((64, 64), Image.Resampling.BOX).save(path)
    return path


@pytest.fixture(scope="module")
def mask(picture: Path) -> Path:
    path = picture.with_name("mask.png")
    drawn = Image.new("L", (64, 64))
    ImageDraw.Draw(drawn).rectangle((16, 24, 47, 63), fill=255)
    drawn.save(path)
    return path
