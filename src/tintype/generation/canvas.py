"""What a picture to begin from becomes before drawing, and how the drawn one is put back."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from tintype.errors import InputError
from tintype.generation.sources import open_mask, open_picture
from tintype.types import GenerateRequest
from tintype.types.modes import OutpaintOptions

LANCZOS = Image.Resampling.LANCZOS
FILL_RADII = (256, 64, 16, 4, 1)  # px, coarse to fine
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The picture of a request as the UNet will see it, `picture` and `mask` at the work size.

    `mask` is 8-bit grey, white where to draw, or None for the whole. `behind` is the whole
    picture, into whose `box` (px) the drawn one is put back where `soft`, its mask, is light.
    """

    picture: Image.Image
    mask: Image.Image | None = None
    behind: Image.Image | None = None
    soft: Image.Image | None = None
    box: Box | None = None

    def finish(self, drawn: Image.Image) -> Image.Image:
        """The drawn picture, with what lies outside the mask as it was, to the pixel."""
        if self.behind is None or self.soft is None or self.box is None:
            return drawn
        left, top, right, bottom = self.box
        whole = self.behind.copy()
        whole.paste(drawn.resize((right - left, bottom - top), LANCZOS), (left, top))
        return Image.composite(whole, self.behind, self.soft)


def canvas_of(request: GenerateRequest) -> Canvas | None:
    """The canvas of a resolved request, or None if it names no picture.

    Raises PictureError for a picture that can't be read, InputError for a mask of another size or
    without any white.
    """
    if request.image is None:
        return None
    assert request.width is not None, "a resolved request"
    assert request.height is not None, "a resolved request"
    size = (request.width, request.height)
    picture = open_picture(request.image, field="image")
    mask = _mask(request, picture.size)
    if request.outpaint.wanted:
        picture, mask = _continued(picture, mask, request.outpaint)
    if mask is None:
        return Canvas(picture=_cover(picture, size))
    return _masked(request, picture, mask, size)


def _mask(request: GenerateRequest, size: tuple[int, int]) -> Image.Image | None:
    if request.mask is None:
        return None
    mask = open_mask(request.mask, field="mask")
    if mask.size != size:
        raise InputError(
            f"is {mask.width}x{mask.height} px, and its picture is {size[0]}x{size[1]}: "
            "they must agree",
            field="mask",
            value=request.mask[:80],
        )
    if request.inpaint.invert:
        mask = ImageChops.invert(mask)
    if mask.getextrema() == (0, 0):
        raise InputError("is black all over: nothing is to be drawn", field="mask")
    return mask


def _masked(
    request: GenerateRequest, picture: Image.Image, mask: Image.Image, size: tuple[int, int]
) -> Canvas:
    options = request.inpaint
    blur = ImageFilter.GaussianBlur(options.blur)
    # what is drawn reaches as far as the blurred edge, so that the blend has something to blend
    soft = ImageChops.lighter(mask, mask.filter(blur)) if options.blur else mask
    box: Box = (0, 0, *picture.size)
    if options.region == "masked":
        box = _around(soft, options.padding, size)
    background = _filled(picture, soft) if options.fill == "blur" else picture
    return Canvas(
        picture=background.crop(box).resize(size, LANCZOS),
        mask=soft.crop(box).resize(size, LANCZOS),
        behind=picture,
        soft=mask.filter(blur) if options.blur else mask,
        box=box,
    )


def _cover(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resized to cover `size`, and what stands over cut off evenly."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = (
        max(round(side * scale), least) for side, least in zip(picture.size, size, strict=True)
    )
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    resized = picture.resize((width, height), LANCZOS)
    return resized.crop((left, top, left + size[0], top + size[1]))


def _around(mask: Image.Image, padding: int, size: tuple[int, int]) -> Box:
    """The masked part with some room, in the shape of `size` where the picture has the space."""
    found = mask.getbbox()
    assert found is not None, "a mask that isn't black"
    left, top, right, bottom = found
    left, top = max(0, left - padding), max(0, top - padding)
    right, bottom = min(mask.width, right + padding), min(mask.height, bottom + padding)
    wide, high = right - left, bottom - top
    ratio = size[0] / size[1]
    if wide / high < ratio:
        wide = min(mask.width, round(high * ratio))
    else:
        high = min(mask.height, round(wide / ratio))
    left = min(max(0, (left + right - wide) // 2), mask.width - wide)
    top = min(max(0, (top + bottom - high) // 2), mask.height - high)
    return left, top, left + wide, top + high


def _continued(
    picture: Image.Image, mask: Image.Image | None, options: OutpaintOptions
) -> tuple[Image.Image, Image.Image]:
    """The picture on a larger ground, its edges drawn out, and a mask of what is new."""
    around = ((options.top, options.bottom), (options.left, options.right))
    pixels = np.pad(np.asarray(picture), (*around, (0, 0)), mode="edge")
    inner = np.zeros((picture.height, picture.width), np.uint8)
    if mask is not None:
        inner = np.asarray(mask)
    fresh = np.pad(inner, around, constant_values=255)
    ground, new = Image.fromarray(pixels), Image.fromarray(fresh)
    return _filled(ground, new), new


def _filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The masked part painted over with blurred colours of what lies around it."""
    known = Image.composite(Image.new("L", mask.size, 0), Image.new("L", mask.size, 255), mask)
    premultiplied = Image.composite(picture, Image.new("RGB", picture.size), known)
    layered = Image.merge("RGBA", (*premultiplied.split(), known))
    result = Image.new("RGBA", picture.size)
    for radius in FILL_RADII:
        blurred = np.asarray(layered.filter(ImageFilter.GaussianBlur(radius)), np.float32)
        weight = blurred[..., 3:] / 255
        colours = np.where(weight > 0.003, blurred[..., :3] / np.maximum(weight, 0.003), 0)
        layer = np.concatenate([colours.clip(0, 255), np.minimum(blurred[..., 3:] * 4, 255)], 2)
        result.alpha_composite(Image.fromarray(layer.astype(np.uint8)))
    return Image.composite(result.convert("RGB"), picture, mask)
