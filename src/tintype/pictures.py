"""Pictures, read whatever their format."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tintype.errors import PictureError

T = TypeVar("T")

MAX_PIXELS = 120_000_000  # beyond any camera; 20,000 x 20,000 has 400 million
_ORIENTATION = 0x0112  # EXIF's tag


def read_picture(path: Path) -> Image.Image:
    """A picture as RGB, upright (EXIF); the first frame; transparent parts on white.

    Raises PictureError, naming the file, for one that is empty, truncated, not a picture, or
    (from its header, before decoding) larger than 120 million pixels.
    """
    return _read(path, _to_rgb)


def read_alpha(path: Path) -> Image.Image:
    """How opaque each pixel of a picture is, 0-255, upright; raises PictureError."""
    return _read(path, lambda image: image.convert("RGBA").getchannel("A"))


def read_header(path: Path) -> tuple[tuple[int, int], bool]:
    """The upright (width, height) of a picture, and whether it has transparency, undecoded;
    raises PictureError."""
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return (height, width) if turned else (width, height), image.has_transparency_data


def _read(path: Path, convert: Callable[[Image.Image], T]) -> T:
    with _opened(path) as image:
        image.seek(0)
        image.load()
        return convert(ImageOps.exif_transpose(image))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An open picture of bearable size; what goes wrong meanwhile becomes a PictureError."""
    if path.stat().st_size == 0:
        raise PictureError("the file is empty", field="picture", value=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise _too_large(path, f"{width}x{height} px")
                yield opened
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from None
    except UnidentifiedImageError:
        problem = "not a picture that can be read"
        raise PictureError(problem, field="picture", value=str(path)) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        problem = f"damaged or truncated: {error}"
        raise PictureError(problem, field="picture", value=str(path)) from None


def _too_large(path: Path, found: str) -> PictureError:
    return PictureError(
        f"too large ({found}; at most {MAX_PIXELS // 1_000_000} million pixels): make it smaller",
        field="picture",
        value=str(path),
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        # 16 bits a channel; "I" and "F" may hold other ranges, which then set the white point
        white = 65535.0 if values.max(initial=0) > 255 or image.mode.startswith("I;16") else 255.0
        white = max(white, float(values.max(initial=0)))
        grey = np.clip(values / white * 255 + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white_ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white_ground, layered).convert("RGB")
    return image.convert("RGB")
