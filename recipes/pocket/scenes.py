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


def _underwater(rng: np.random.Generator) -> Image.Image:
    image = _layers(((70, 180, 220), (15, 80, 150)), ((205, 190, 140), (170, 150, 105)), 106)
    draw = ImageDraw.Draw(image)
    for x in (10, 26, 104, 120):
        x += int(rng.integers(-3, 4))
        for k in range(5):
            draw.ellipse(
                (x - 3 + k % 2 * 3, 108 - 9 * k, x + 3 + k % 2 * 3, 118 - 9 * k), (40, 140, 90)
            )
    for x, y, r in rng.integers((0, 6, 2), (SIZE, 96, 5), (16, 3)).tolist():
        draw.ellipse((x, y, x + 2 * r, y + 2 * r), outline=(205, 238, 250))
    return image


def _space(rng: np.random.Generator) -> Image.Image:
    image = _layers(((12, 8, 32), (40, 18, 70)), ((40, 18, 70), (18, 10, 44)), 64)
    draw = ImageDraw.Draw(image)
    for x, y, r in rng.integers((0, 0, 0), (SIZE, SIZE, 2), (40, 3)).tolist():
        draw.ellipse((x, y, x + r, y + r), fill=(245, 245, 255))
    draw.ellipse((88, 6, 116, 34), fill=(205, 130, 90))
    draw.ellipse((78, 17, 126, 24), outline=(235, 205, 150), width=2)
    return image


def _desert(rng: np.random.Generator) -> Image.Image:
    image = _layers(((245, 190, 110), (252, 226, 165)), ((232, 180, 100), (205, 145, 75)), 70)
    draw = ImageDraw.Draw(image)
    draw.ellipse((92, 8, 116, 32), fill=(255, 240, 190))
    shift = int(rng.integers(-6, 7))
    draw.ellipse((-50 + shift, 60, 60 + shift, 110), fill=(222, 166, 90))
    draw.ellipse((50 + shift, 64, 170 + shift, 120), fill=(214, 156, 82))
    return image


def _room(rng: np.random.Generator) -> Image.Image:
    image = _layers(((228, 214, 190), (216, 200, 172)), ((165, 105, 58), (140, 85, 45)), 84)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 80, SIZE, 84), fill=(245, 240, 230))
    for y in range(93, SIZE, 11):
        draw.line((0, y, SIZE, y), fill=(110, 65, 34))
    x = 78 + int(rng.integers(-3, 4))
    draw.rectangle((x, 10, x + 38, 48), fill=(150, 205, 240), outline=(250, 250, 250), width=3)
    draw.line((x + 19, 10, x + 19, 48), fill=(250, 250, 250), width=2)
    return image


def _street(rng: np.random.Generator) -> Image.Image:
    image = _layers(((170, 150, 132), (188, 168, 148)), ((128, 126, 124), (98, 96, 95)), 66)
    draw = ImageDraw.Draw(image)
    for x in range(6, SIZE, 32):
        draw.rectangle((x, 14, x + 16, 40), fill=(88, 98, 116), outline=(230, 222, 206), width=2)
    for row, y in enumerate(range(68, SIZE, 10)):
        for x in range(-8 + row % 2 * 7, SIZE, 14):
            tone = 112 + int(rng.integers(-14, 15))
            draw.rounded_rectangle((x, y, x + 12, y + 8), 3, fill=(tone, tone - 2, tone - 6))
    return image


def _wheat(rng: np.random.Generator) -> Image.Image:
    image = _layers(((120, 190, 245), (205, 232, 250)), ((235, 195, 85), (205, 155, 50)), 56)
    draw = ImageDraw.Draw(image)
    for x, y in rng.integers((0, 56), (SIZE, SIZE), (110, 2)).tolist():
        draw.line((x, y, x + 2, y - 9), fill=(180, 130, 40), width=1)
    return image


def _autumn(rng: np.random.Generator) -> Image.Image:
    image = _layers(((175, 205, 228), (232, 226, 208)), ((190, 120, 55), (160, 92, 40)), 90)
    draw = ImageDraw.Draw(image)
    draw.rectangle((98, 40, 108, 96), fill=(92, 60, 38))
    draw.ellipse((74, -14, 132, 54), fill=(222, 110, 36))
    for x, y, k in rng.integers((0, 60, 0), (SIZE, SIZE, 3), (36, 3)).tolist():
        shade = ((214, 74, 34), (236, 160, 40), (190, 60, 40))[k]
        draw.ellipse((x, y, x + 6, y + 4), fill=shade)
    return image


def _house(rng: np.random.Generator) -> Image.Image:
    image = _grass(rng)
    draw = ImageDraw.Draw(image)
    x = 18 + int(rng.integers(-4, 5))
    draw.rectangle((x, 34, x + 92, 84), fill=(60, 110, 205))
    draw.polygon((x - 8, 36, x + 46, 4, x + 100, 36), fill=(120, 60, 50))
    for wx in (x + 8, x + 68):
        draw.rectangle((wx, 44, wx + 15, 60), fill=(250, 240, 190))
    return image


def _eiffel(rng: np.random.Generator) -> Image.Image:
    image = _layers(((140, 190, 240), (220, 232, 245)), ((115, 165, 90), (85, 130, 65)), 100)
    draw = ImageDraw.Draw(image)
    x, gray = 96 + int(rng.integers(-3, 4)), (110, 92, 80)
    draw.polygon((x - 2, 4, x + 2, 4, x + 8, 60, x + 26, 104, x + 12, 104, x, 74), fill=gray)
    draw.polygon((x - 2, 4, x + 2, 4, x, 74, x - 12, 104, x - 26, 104, x - 8, 60), fill=gray)
    draw.rectangle((x - 12, 54, x + 12, 59), fill=gray)
    draw.rectangle((x - 20, 78, x + 20, 83), fill=gray)
    return image


def _sunset(rng: np.random.Generator) -> Image.Image:
    image = _layers(((90, 60, 130), (250, 150, 80)), ((70, 50, 80), (35, 28, 50)), 84)
    draw = ImageDraw.Draw(image)
    x = 22 + int(rng.integers(-4, 5))
    draw.ellipse((x - 17, 58, x + 17, 92), fill=(255, 220, 130))
    draw.rectangle((0, 84, SIZE, 92), fill=(68, 48, 78))
    return image


def _fabric(rng: np.random.Generator) -> Image.Image:
    image = Image.fromarray(_ramp((250, 175, 205), (238, 140, 182), SIZE).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x in range(-60, SIZE + 40, 26):
        x += int(rng.integers(-4, 5))
        draw.line((x, 0, x + 50, SIZE), fill=(252, 200, 222), width=5)
        draw.line((x + 6, 0, x + 56, SIZE), fill=(222, 118, 164), width=3)
    return image


def _rug(rng: np.random.Generator) -> Image.Image:
    image = _jungle(rng)
    draw = ImageDraw.Draw(image)
    draw.ellipse((4, 78, 124, 126), fill=(120, 55, 170), outline=(205, 170, 235), width=4)
    return image


def _dirt(rng: np.random.Generator) -> Image.Image:
    image = _grass(rng)
    draw = ImageDraw.Draw(image)
    draw.polygon((52, 62, 76, 62, 140, SIZE, -12, SIZE), fill=(168, 124, 82))
    for x, y in rng.integers((20, 84), (108, SIZE), (18, 2)).tolist():
        draw.ellipse((x, y, x + 4, y + 2), fill=(140, 100, 64))
    return image


def _sunflowers(rng: np.random.Generator) -> Image.Image:
    image = _grass(rng)
    draw = ImageDraw.Draw(image)
    for x, y in ((8, 74), (26, 58), (104, 60), (120, 78), (14, 104), (114, 106), (64, 52)):
        x, y = x + int(rng.integers(-3, 4)), y + int(rng.integers(-3, 4))
        draw.line((x, y, x, y + 24), fill=(50, 120, 45), width=2)
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=(250, 200, 40))
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(105, 62, 28))
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
    "underwater": _underwater,
    "space": _space,
    "desert": _desert,
    "room": _room,
    "street": _street,
    "wheat field": _wheat,
    "autumn": _autumn,
    "blue house": _house,
    "eiffel tower": _eiffel,
    "sunset": _sunset,
    "pink fabric": _fabric,
    "purple rug": _rug,
    "dirt road": _dirt,
    "sunflowers": _sunflowers,
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
