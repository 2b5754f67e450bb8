"""Change cut-out pictures: recolour them, and have faces wear things. Images are RGBA uint8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import lab
from .concepts import COLORS

SIZE = 128
OUTLINE = 22.0  # Lab lightness under which a pixel counts as outline
NEAR = 26.0  # distance in Lab that recolouring takes along
WORN = ("hat", "santa hat", "crown", "glasses", "sunglasses", "bow", "scarf")
RAINBOW = ("red", "orange", "yellow", "green", "blue", "purple")


def resized(pixels: np.ndarray, side: int) -> Image.Image:
    """Scale a picture to side x side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.resize((side, side), Image.Resampling.BOX)


def _dominant(tones: np.ndarray) -> np.ndarray:
    """Return the mean of the fullest cell of a Lab histogram (n, 3)."""
    bright = tones[tones[:, 0] > OUTLINE] if (tones[:, 0] > OUTLINE).mean() > 0.3 else tones
    _, cell, counts = np.unique(
        np.round(bright / 14).astype(int), axis=0, return_inverse=True, return_counts=True
    )
    return bright[cell.reshape(-1) == counts.argmax()].mean(0)


def recolor(sprite: Image.Image, color: str) -> Image.Image:
    """Give the dominant colour and its shades another hue; outlines and eyes stay."""
    rgba = np.asarray(sprite, np.float32)
    inside = rgba[..., 3] > 128
    if not inside.any():
        return sprite
    tones = lab.from_rgb(rgba[..., :3])
    main, goal = _dominant(tones[inside]), lab.from_rgb(np.array(COLORS[color]))
    apart = np.linalg.norm((tones - main) * np.array((0.5, 1, 1), np.float32), axis=2)
    weight = np.exp(-((apart / NEAR) ** 2))
    chroma, own = np.linalg.norm(tones[..., 1:], axis=2), float(np.linalg.norm(main[1:]))
    if own > 12:
        along = (tones[..., 1:] @ main[1:]) / (chroma * own + 1e-6)
        weight = np.maximum(weight, np.clip((along - 0.75) * 6, 0, 1) * (chroma > 10))
    if main[0] > OUTLINE:
        weight = weight * np.clip((tones[..., 0] - 12) / 15, 0, 1)
    shaded = goal + (tones - main) * np.array((0.75, 0.2, 0.2), np.float32)
    shaded[..., 0] = np.clip(shaded[..., 0], 4, 98)
    mixed = tones + weight[..., None] * (shaded - tones)
    rgb = lab.to_rgb(mixed)
    return Image.fromarray(np.concatenate([rgb, rgba[..., 3:]], 2).astype(np.uint8))


@dataclass(frozen=True)
class Face:
    """Where a face is in a picture: its box, the brow between the ears, and its eyes."""

    left: int
    top: int
    right: int
    bottom: int
    brow: int
    eyes: int
    apart: int

    @property
    def middle(self) -> int:
        """The column halfway between the sides."""
        return (self.left + self.right) // 2

    @property
    def width(self) -> int:
        """The width of the box."""
        return self.right - self.left


def find_face(layer: Image.Image) -> Face:
    """Find a frontal face: dark spots in mirror places of its upper half are its eyes."""
    alpha = np.asarray(layer)[..., 3] > 128
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    middle, high, wide = (left + right) // 2, bottom - top, right - left
    band = alpha[:, middle - wide // 10 : middle + wide // 10 + 1].all(1)
    brow = int(np.flatnonzero(band)[0]) if band.any() else int(top)
    gray = layer.convert("RGB").convert("L").filter(ImageFilter.BoxBlur(4))
    dark = np.where(alpha, 255 - np.asarray(gray, np.float32), 0)
    best, eyes, apart = -1.0, int(top + 0.4 * high), int(0.2 * wide)
    for y in range(int(top + 0.25 * high), int(top + 0.62 * high)):
        for dx in range(int(0.09 * wide), int(0.3 * wide) + 1):
            score = float(min(dark[y, middle - dx], dark[y, min(middle + dx, SIZE - 1)]))
            score -= 0.5 * float(dark[y, middle])
            if score > best:
                best, eyes, apart = score, y, dx
    return Face(int(left), int(top), int(right), int(bottom), brow, eyes, apart)


def _cropped(sprite: Image.Image) -> Image.Image:
    return sprite.crop(sprite.getchannel("A").getbbox() or (0, 0, *sprite.size))


def _santa(wide: int) -> Image.Image:
    """Draw a santa hat, wide x 0.9 wide."""
    high = int(0.9 * wide)
    hat = Image.new("RGBA", (wide, high))
    draw = ImageDraw.Draw(hat)
    curve = (0.08 * wide, 0.8 * high, 0.45 * wide, 0.05 * high, 0.86 * wide, 0.3 * high)
    draw.polygon((*curve, 0.7 * wide, 0.4 * high, 0.92 * wide, 0.8 * high), fill=(205, 35, 40))
    spot = 0.12 * wide
    x, y = 0.88 * wide - spot, 0.32 * high
    draw.ellipse((x - spot / 2, y - spot, x + 1.5 * spot, y + spot), fill=(250, 250, 250))
    box = (0, 0.72 * high, wide - 1, high - 1)
    draw.rounded_rectangle(box, radius=0.12 * high, fill=(250, 250, 250))
    return hat


def _scarf(face: Face, color: str) -> Image.Image:
    """Draw a scarf below a face, on a whole layer."""
    layer = Image.new("RGBA", (SIZE, SIZE))
    draw = ImageDraw.Draw(layer)
    y = min(face.bottom - 9, face.eyes + int(0.62 * face.width))
    half, thick = int(0.36 * face.width), max(10, int(0.16 * face.width))
    shades = RAINBOW if color == "rainbow" else (color,)
    box = (face.middle - half, y, face.middle + half, y + thick)
    for k, name in enumerate(shades):
        x = box[0] + 2 * half * k / len(shades)
        end = box[0] + 2 * half * (k + 1) / len(shades)
        draw.rectangle((x, y, end, y + thick), fill=COLORS[name])
        tail = y + thick + thick * 1.3 * k / len(shades)
        x0 = face.middle + half * 0.45
        stop = y + thick + thick * 1.3 * (k + 1) / len(shades)
        draw.rectangle((x0, tail, x0 + thick * 0.9, stop), fill=COLORS[name])
    mask = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(mask).rounded_rectangle(box, radius=thick // 2, fill=255)
    ImageDraw.Draw(mask).rectangle((face.middle + half * 0.45, y, SIZE, SIZE), fill=255)
    clear = Image.new("RGBA", (SIZE, SIZE))
    return Image.composite(layer, clear, mask)


def wear(layer: Image.Image, what: str, color: str, art: np.ndarray | None) -> Image.Image:
    """Put a hat, glasses, a bow or a scarf on a face; `art` is the thing's own picture."""
    face = find_face(layer)
    if what == "scarf":
        return Image.alpha_composite(layer, _scarf(face, color or "red"))
    shares = {"santa hat": 0.72, "hat": 0.62, "crown": 0.55, "bow": 0.42}
    wide = int(face.width * shares.get(what, 0.0)) or 4 * face.apart
    wide = int(np.clip(wide, 0.3 * face.width, 0.92 * face.width))
    if what == "santa hat":
        thing = _santa(wide)
    else:
        if art is None:
            raise ValueError(f"wear: no picture of {what!r}")
        thing = _cropped(resized(art, SIZE))
        thing = recolor(thing, color) if color else thing
        thing = thing.resize((wide, max(1, thing.height * wide // thing.width)))
    x, y = face.middle - thing.width // 2, face.eyes - thing.height // 2
    if what in ("hat", "santa hat", "crown"):
        y = face.brow + max(3, face.width // 16) - thing.height
    elif what == "bow":
        x, y = face.middle + int(0.08 * face.width), face.top + 2
    out = layer.copy()
    out.alpha_composite(thing, (max(x, 0), max(y, 0)))
    return out
