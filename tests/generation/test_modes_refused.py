"""What a mode can't do is an error that names it."""

from pathlib import Path

import pytest
from PIL import Image

from tests.generation.test_modes import request
from tintype.errors import ConfigError, InputError, PictureError
from tintype.generation.engine import draw
from tintype.models.model import Model


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"mask": "m.png"}, ConfigError, "mask: is given without a picture"),
        ({"strength": 0.5}, ConfigError, "strength: is given without a picture"),
        ({"image": "nowhere.png"}, PictureError, "no such file"),
        ({"image": "data:image/png;base64,AAAA"}, PictureError, "holds no picture"),
        ({"hires": {"upscaler": "lanczo"}}, ConfigError, "Did you mean lanczos"),
        ({"control": [{"model": "x", "image": "y", "preprocessor": "cany"}]}, ConfigError, "canny"),
        ({"strength": 1.5, "image": "x"}, ConfigError, "strength"),
        ({"guidance": {"start": 0.6, "end": 0.5}}, ConfigError, "end comes before start"),
        ({"outpaint": {"left": 8}}, ConfigError, "outpaint: is given without a picture"),
        ({"aspect": "3:2", "width": 64}, ConfigError, "aspect is given together with a width"),
        ({"styles": ("none",)}, ConfigError, "styles 'none': styles are applied before"),
        ({"refiner_at": 1.0}, ConfigError, "refiner_at 1.0"),
        ({"tiling": "z"}, ConfigError, "tiling 'z': not one of.*both"),
    ],
)
def test_bad_options_are_named(
    values: dict[str, object], error: type[Exception], message: str, sd: Model
) -> None:
    with pytest.raises(error, match=message):
        list(draw(sd, request(**values)))


def test_what_contradicts_itself_is_named(
    sd: Model, sdxl: Model, picture: Path, mask: Path, tmp_path: Path
) -> None:
    """Fields that are right by themselves, and models that don't share their latents."""
    named = {"sd": sd, "sdxl": sdxl}

    def refused(model: Model, **values: object) -> str:
        with pytest.raises(ConfigError) as caught:
            list(draw(model, request(**values), load=lambda name: named[name]))
        return str(caught.value)

    begun = {"image": str(picture), "mask": str(mask)}
    assert "hires: doesn't go with a mask" in refused(sd, **begun, hires={"scale": 1.5})
    told = refused(sd, refiner="sdxl")
    assert told.startswith("refiner ")
    assert "refines SDXL" in told
    assert "is Stable Diffusion 1.x" in told
    assert "refines Stable Diffusion 1.x" in refused(sdxl, refiner="sd")


def test_masks_must_fit_and_say_something(sd: Model, picture: Path, tmp_path: Path) -> None:
    small, black = tmp_path / "small.png", tmp_path / "black.png"
    Image.new("L", (32, 64), 255).save(small)
    Image.new("L", (64, 64)).save(black)
    for path, message in ((small, "32x64 px, and its picture is 64x64"), (black, "black all over")):
        with pytest.raises(InputError, match=message):
            list(draw(sd, request(image=str(picture), mask=str(path))))
    with pytest.raises(ConfigError, match="nothing here to load it with"):
        list(draw(sd, request(refiner="x")))
