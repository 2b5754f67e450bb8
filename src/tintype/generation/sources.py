"""Pictures that a request names: a path, or a data: URI."""

import base64
import binascii
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tintype.errors import PictureError
from tintype.pictures import MAX_PIXELS, read_alpha, read_picture

DATA = "data:"


def open_picture(source: str, *, field: str) -> Image.Image:
    """The picture as upright RGB; raises PictureError that names `field`."""
    if source.startswith(DATA):
        return _from_data(source, field).convert("RGB")
    return read_picture(_existing(source, field))


def open_mask(source: str, *, field: str) -> Image.Image:
    """A mask, 8-bit grey, white where to draw.

    It is the picture's transparency where it has any (transparent means to draw), else its
    lightness. Raises PictureError that names `field`.
    """
    if source.startswith(DATA):
        picture = _from_data(source, field)
    else:
        path = _existing(source, field)
        with Image.open(path) as opened:
            transparent = opened.has_transparency_data
        picture = read_alpha(path) if transparent else read_picture(path)
        if transparent:
            return picture.point(lambda value: 255 - value)
    if picture.has_transparency_data:
        return picture.convert("RGBA").getchannel("A").point(lambda value: 255 - value)
    return picture.convert("L")


def _existing(source: str, field: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise PictureError("there is no such file", field=field, value=source)
    return path


def _from_data(source: str, field: str) -> Image.Image:
    """The picture in a data: URI, in any mode; its size is bounded before it is decoded."""
    _, comma, payload = source.partition(",")
    shown = source[:40] + "…"
    try:
        data = base64.b64decode(payload if comma else "", validate=True)
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise PictureError("too large", field=field, value=shown)
            opened.load()
            return opened.copy()
    except (binascii.Error, UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"holds no picture: {error}", field=field, value=shown) from None
