"""Paint backgrounds: plain colours, named scenes, gradients and noise, (128, 128, 3) uint8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .concepts import COLORS, SCENES

SIZE = 128
Color = tuple[int, int, int]


def _ramp(top: Color, bottom: Color, rows: int) -> np.ndarray:
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    mix = (1 - t) * np.float32(top) + t * np.float32(bottom)
    return np.broadcast_to(mix, (rows, SIZE, 3))


def _layers(sky: tuple[Color, Color], ground: tuple[Color, Color], horizon: int) -> Image.Image:
    pixels = np.concatenate([_ramp(*sky, horizon), _ramp(*ground, SIZE - horizon)])
    return Image.fromarray(pixels.astype(np.uint8))


def plain(name: str, rng: np.random.Generator) -> np.ndarray:
    """Fill with a named colour, its tone varied a little."""
    tone = np.float32(COLORS[name]) + rng.normal(0, 5, 3)
    return np.broadcast_to(np.clip(tone, 0, 255), (SIZE, SIZE, 3)).astype(np.uint8)


def _grass(rng: np.random.Generator) -> Image.Image:
    image = _layers(((120, 190, 245), (205, 232, 250)), ((120, 190, 80), (70, 145, 55)), 62)
    draw = ImageDraw.Draw(image)
    for x, y in rng.integers((0, 66), (SIZE, SIZE), (40, 2)).tolist():
        draw.line((x, y, x + 1, y - 4), fill=(60, 130, 48))
    return image


def _snow(rng: np.random.Generator) -> Image.Image:
    image = _layers(((150, 175, 205), (205, 218, 232)), ((250, 252, 255), (222, 232, 245)), 66)
    draw = ImageDraw.Draw(image)
    for x, y in rng.integers((0, 0), (SIZE, 100), (36, 2)).tolist():
        draw.ellipse((x, y, x + 3, y + 3), fill=(255, 255, 255))
    return image


def _beach(rng: np.random.Generator) -> Image.Image:
    image = _layers(((105, 190, 245), (190, 230, 250)), ((240, 215, 155), (225, 190, 125)), 74)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 50, SIZE, 78), fill=(40, 140, 190))
    draw.rectangle((0, 75, SIZE, 78), fill=(215, 240, 248))
    return image


def _night(rng: np.random.Generator) -> Image.Image:
    image = _layers(((10, 14, 45), (35, 42, 95)), ((25, 32, 48), (15, 20, 32)), 96)
    draw = ImageDraw.Draw(image)
    for x, y, r in rng.integers((0, 0, 0), (SIZE, 92, 2), (34, 3)).tolist():
        draw.ellipse((x, y, x + r + 1, y + r + 1), fill=(255, 250, 215))
    return image


def _city(rng: np.random.Generator) -> Image.Image:
    image = _layers(((165, 200, 228), (215, 226, 235)), ((105, 108, 114), (82, 84, 90)), 98)
    draw = ImageDraw.Draw(image)
    for i, x in enumerate(range(-4, SIZE, 22)):
        top = (18, 42, 26, 50, 14, 36)[i % 6] + int(rng.integers(-3, 4))
        shade = (96, 112, 132) if i % 2 else (120, 130, 145)
        draw.rectangle((x, top, x + 20, 98), fill=shade)
        for wy in range(top + 5, 92, 10):
            for wx in (x + 4, x + 12):
                draw.rectangle((wx, wy, wx + 4, wy + 4), fill=(250, 226, 140))
    return image


def _jungle(rng: np.random.Generator) -> Image.Image:
    image = _layers(((22, 84, 52), (46, 120, 66)), ((58, 92, 42), (40, 66, 32)), 100)
    draw = ImageDraw.Draw(image)
    for x in (8, 34, 86, 112):
        x += int(rng.integers(-4, 5))
        draw.rectangle((x, 20, x + 8, 104), fill=(84, 58, 36))
    for x in range(-12, SIZE, 22):
        y = int(rng.integers(-16, -4))
        draw.ellipse((x, y, x + 36, y + 40), fill=(30, 106, 54))
    return image


def _mountain(rng: np.random.Generator) -> Image.Image:
    image = _layers(((110, 170, 235), (210, 228, 245)), ((110, 160, 85), (78, 125, 62)), 98)
    draw = ImageDraw.Draw(image)
    for x, top, wide in ((30, 30, 46), (96, 20, 54)):
        x, top = x + int(rng.integers(-4, 5)), top + int(rng.integers(-3, 4))
        draw.polygon((x - wide, 98, x, top, x + wide, 98), fill=(112, 118, 138))
        cap = wide * 22 // (98 - top)
        draw.polygon((x - cap, top + 22, x, top, x + cap, top + 22), fill=(248, 250, 255))
    return image


def _water(rng: np.random.Generator) -> Image.Image:
    image = _layers(((150, 208, 250), (222, 240, 252)), ((52, 150, 205), (20, 92, 160)), 54)
    draw = ImageDraw.Draw(image)
    for x, y in rng.integers((0, 60), (SIZE, SIZE - 4), (26, 2)).tolist():
        draw.line((x, y, x + 10, y), fill=(150, 212, 238), width=2)
    return image


PAINTERS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "grass": _grass,
    "snow": _snow,
    "beach": _beach,
    "night": _night,
    "city": _city,
    "jungle": _jungle,
    "mountain": _mountain,
    "water": _water,
}
assert PAINTERS.keys() == SCENES.keys()


def scene(name: str, rng: np.random.Generator) -> np.ndarray:
    """Paint a named scene."""
    return np.asarray(PAINTERS[name](rng))


def noise(rng: np.random.Generator) -> np.ndarray:
    """Make a coloured texture out of octaves of noise, or a gradient."""
    total = np.zeros((SIZE, SIZE, 3), np.float32)
    falloff = rng.uniform(0.3, 0.75)
    for octave in range(2, 7):
        cells = rng.normal(0, 1, (2**octave, 2**octave, 3)).astype(np.float32)
        cells = 0.7 * cells.mean(2, keepdims=True) + 0.3 * cells
        layers = [
            np.asarray(
                Image.fromarray(cells[..., c]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            )
            for c in range(3)
        ]
        total += np.stack(layers, 2) * falloff**octave
    total = total / (total.std() + 1e-6) * rng.uniform(5, 60)
    return np.clip(total + rng.uniform(20, 235, 3).astype(np.float32), 0, 255).astype(np.uint8)


def photo_crop(photos: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Cut a random part of a random photograph, its colours changed at random."""
    pixels = photos[rng.integers(len(photos))]
    side = int(min(pixels.shape[:2]) * rng.uniform(0.25, 1.0))
    y, x = (int(rng.integers(n - side + 1)) for n in pixels.shape[:2])
    crop = Image.fromarray(pixels[y : y + side, x : x + side]).resize((SIZE, SIZE))
    out = np.asarray(crop, np.float32)[:, :: rng.choice((-1, 1))]
    if rng.random() < 0.4:
        out = out[..., rng.permutation(3)]
    out = (out - 128) * rng.uniform(0.7, 1.2) + 128 + rng.normal(0, 14, 3)
    return np.clip(out, 0, 255).astype(np.uint8)
