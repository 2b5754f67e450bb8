"""What is made of a picture for a ControlNet or T2I-Adapter.

Each takes an RGB picture and gives one of the same size. OpenCV does the work where it is named;
it comes with the extra `control`. Depth and poses are found by networks of transformers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tintype.errors import ConfigError

Picture = Image.Image
Make = Callable[[Picture], Picture]
DETECTING = ("depth", "pose")  # those that need the weights of a network
INPAINT = "inpaint"  # leaves the picture as it is; what is masked becomes unknown later
LOW, HIGH = 100, 200  # canny's thresholds
BLOCK = 64  # px of a colour's cell in a picture of 512 px


def preprocess(picture: Picture, name: str, detect: Make | None = None) -> Picture:
    """The picture made ready by the preprocessor `name`, by `detect` if that is one of those that
    need weights; raises ConfigError."""
    check_preprocessor(name)
    if name not in DETECTING:
        return PREPROCESSORS[name](picture)
    if detect is None:
        raise ConfigError("needs a network", field="control.preprocessor", value=name)
    return detect(picture)


def check_preprocessor(name: str) -> None:
    """Raises ConfigError with the choices for a name that isn't one."""
    if name not in PREPROCESSORS and name not in DETECTING:
        raise ConfigError(
            "no such preprocessor",
            field="control.preprocessor",
            value=name,
            choices=(*PREPROCESSORS, *DETECTING),
        )


def _none(picture: Picture) -> Picture:
    return picture


def _invert(picture: Picture) -> Picture:
    return ImageOps.invert(picture)


def _canny(picture: Picture) -> Picture:
    """Edges, white on black (Canny 1986)."""
    edges = _opencv().Canny(np.asarray(picture.convert("L")), LOW, HIGH)
    return Image.fromarray(edges).convert("RGB")


def _softedge(picture: Picture) -> Picture:
    """Strengths of edges: the gradient of the blurred picture."""
    cv2 = _opencv()
    grey = cv2.GaussianBlur(np.asarray(picture.convert("L")), (0, 0), 1.5)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
    strength = np.hypot(across, down)
    top = max(float(np.percentile(strength, 99.5)), 1.0)
    return Image.fromarray((strength / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")


def _lineart(picture: Picture) -> Picture:
    """Thin lines where a picture is darker than around, white on black."""
    cv2 = _opencv()
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    darker = np.maximum(cv2.GaussianBlur(grey, (0, 0), 6.0) - grey, 0)
    top = max(float(np.percentile(darker, 99)), 8.0)
    return Image.fromarray((darker / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")


def _scribble(picture: Picture) -> Picture:
    """Thick hand-like lines of the strongest edges."""
    cv2 = _opencv()
    edges = np.asarray(_softedge(picture).convert("L"))
    strong = (edges > 96).astype(np.uint8) * 255
    thick = cv2.dilate(strong, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    return Image.fromarray(thick).convert("RGB")


def _tile(picture: Picture) -> Picture:
    """A coarse version, to be drawn again with detail."""
    small = picture.resize((max(1, picture.width // 8), max(1, picture.height // 8)))
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def _blur(picture: Picture) -> Picture:
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 64))


def _color(picture: Picture) -> Picture:
    """A mosaic of mean colours."""
    cell = max(1, round(BLOCK * min(picture.size) / 512))
    small = picture.resize(
        (max(1, picture.width // cell), max(1, picture.height // cell)), Image.Resampling.BOX
    )
    return small.resize(picture.size, Image.Resampling.NEAREST)


def _shuffle(picture: Picture) -> Picture:
    """The same colours in other places, moved along a smooth random field (always the same)."""
    cv2 = _opencv()
    height, width = picture.height, picture.width
    chance = np.random.default_rng(0)
    fields = []
    for side in (width, height):
        coarse = chance.random((8, 8), dtype=np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
        fields.append((smooth * (side - 1)).astype(np.float32))
    moved = cv2.remap(np.asarray(picture), *fields, cv2.INTER_LINEAR)
    return Image.fromarray(moved)


PREPROCESSORS: dict[str, Make] = {
    "none": _none,
    "invert": _invert,
    "canny": _canny,
    "softedge": _softedge,
    "lineart": _lineart,
    "scribble": _scribble,
    "tile": _tile,
    "blur": _blur,
    "color": _color,
    "shuffle": _shuffle,
    INPAINT: _none,
}


def _opencv() -> Any:
    """Raises ConfigError with what to type if OpenCV isn't installed."""
    try:
        import cv2
    except ImportError:
        raise ConfigError(
            "this preprocessor needs OpenCV: pip install 'tintype[control]'",
            field="control.preprocessor",
        ) from None
    return cv2
