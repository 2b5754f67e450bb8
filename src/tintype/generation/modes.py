"""What of a request contradicts itself, said before anything is drawn."""

from tintype.errors import ConfigError
from tintype.generation.changes import by_tiles
from tintype.generation.control.preprocess import check_preprocessor
from tintype.generation.sources import open_picture
from tintype.types import GenerateRequest

WITH_A_PICTURE = ("mask", "strength", "noise_multiplier", "outpaint", "inpaint")


def check_modes(request: GenerateRequest) -> None:
    """Raises ConfigError for options that don't go together, or that name what isn't there."""
    if request.image is None:
        defaults = GenerateRequest(prompt="")
        for name in WITH_A_PICTURE:
            if getattr(request, name) != getattr(defaults, name):
                raise ConfigError("is given without a picture: give image", field=name)
    if request.hires is not None and (request.mask is not None or request.outpaint.wanted):
        raise ConfigError("doesn't go with a mask or outpainting", field="hires")
    by_tiles(request, (0, 0))
    for options in request.control:
        check_preprocessor(options.preprocessor)


def shape_of(request: GenerateRequest) -> str:
    """The shape of a request's picture, "WIDTH:HEIGHT", once it is continued at its sides."""
    assert request.image is not None, "a request with a picture"
    picture, out = open_picture(request.image, field="image"), request.outpaint
    return f"{picture.width + out.left + out.right}:{picture.height + out.top + out.bottom}"
