"""Put pictures on backgrounds and say in words what was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import scenes
from .concepts import COLORS, CONCEPTS, DRAWN, SCENES, STYLES, TOYS
from .data import SIZE, Art

WORDS = {c.name: c for c in CONCEPTS}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What one composed picture shows; `art` are rows of the art array."""

    art: tuple[int, ...]
    nouns: tuple[str, ...]
    style: str
    background: str = ""
    tint: str = ""


def _sprite(pixels: np.ndarray, side: int, tint: str, flip: bool) -> Image.Image:
    sprite = Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (side, side), Image.Resampling.BOX
    )
    if flip:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if not tint:
        return sprite
    rgba = np.asarray(sprite, np.float32)
    light = rgba[..., :3].mean(2, keepdims=True) / 255
    color = np.float32(COLORS[tint])
    mid = light.mean() if light.size else 0.5
    shade = np.clip(light / max(mid * 2.2, 0.2), 0, 1)
    rgb = np.where(shade < 0.5, color * shade * 2, color + (255 - color) * (shade * 2 - 1))
    return Image.fromarray(np.concatenate([rgb, rgba[..., 3:]], 2).astype(np.uint8))


def _paste(canvas: Image.Image, sprite: Image.Image, cx: float, cy: float) -> None:
    half = sprite.width / 2
    canvas.paste(sprite, (round(cx - half), round(cy - half)), sprite)


def render(
    spec: Spec, art: np.ndarray, rng: np.random.Generator, base: np.ndarray | None = None
) -> np.ndarray:
    """Compose a picture, (128, 128, 3) uint8, on its named background or on `base`."""
    if base is not None:
        pass
    elif spec.background in SCENES:
        base = scenes.scene(spec.background, rng)
    else:
        base = scenes.plain(spec.background or "white", rng)
    canvas = Image.fromarray(np.array(base))
    low = 6 if spec.background in SCENES else 0
    if len(spec.art) == 1:
        side = int(rng.integers(94, 99))
        dx, dy = rng.integers(-1, 2, 2)
        _paste(canvas, _sprite(art[spec.art[0]], side, spec.tint, False), 64 + dx, 64 + low + dy)
    else:
        for cx, row in zip((33, 95), spec.art, strict=True):
            dx, dy = rng.integers(-1, 2, 2)
            sprite = _sprite(art[row], int(rng.integers(58, 62)), "", False)
            _paste(canvas, sprite, cx + dx, 66 + low + dy)
    return np.asarray(canvas)


class Chooser:
    """Choose specs at random from the drawn art."""

    def __init__(self, index: list[Art]) -> None:
        self.rows = {(a.concept, a.style): i for i, a in enumerate(index) if a.drawn}
        self.concepts = [c.name for c in DRAWN]
        self.styles, self.weights = list(STYLES), list(STYLES.values())

    def _row(self, concept: str, style: str) -> int:
        return self.rows[(concept, style)]

    def __call__(self, rng: np.random.Generator, pairs: float = 0.03, tints: float = 0.05) -> Spec:
        """Return a random spec: one thing, or now and then two or a recoloured one."""
        style = str(rng.choice(self.styles, p=self.weights))
        names = rng.choice(self.concepts, 2, replace=False).tolist()
        draw, kind = rng.random(), rng.random()
        background = "" if kind < 0.32 else str(rng.choice(list(COLORS)))
        if kind > 0.7:
            background = str(rng.choice(list(SCENES)))
        count = 2 if draw < pairs else 1
        tint = str(rng.choice(list(COLORS)[:8])) if draw > 1 - tints else ""
        return Spec(
            art=tuple(self._row(n, style) for n in names[:count]),
            nouns=tuple(names[:count]),
            style=style,
            background=background,
            tint=tint,
        )


MEDIA = ("a photo of {}", "a picture of {}", "a drawing of {}", "an image of {}")
FACES = frozenset(
    (
        "cat",
        "dog",
        "fox",
        "bear",
        "panda",
        "koala",
        "lion",
        "tiger",
        "rabbit",
        "pig",
        "cow",
        "frog",
        "monkey",
        "mouse",
    )
)


def _article(noun: str) -> str:
    if noun.endswith(("glasses", "cherries", "grapes")):
        return noun
    return f"an {noun}" if noun[0] in "aeio" or noun.startswith("um") else f"a {noun}"


def _place(background: str, rng: np.random.Generator) -> str:
    if background in SCENES:
        ways = SCENES[background]
        return ways[0] if rng.random() < 0.4 else str(rng.choice(ways))
    form = "on {} background" if rng.random() < 0.8 else "in front of {} wall"
    return form.format(_article(background))


def _noun(name: str, rng: np.random.Generator) -> str:
    words, draw = WORDS[name].words if name in WORDS else (), rng.random()
    if name in TOYS and draw > 0.95:
        return "toy"
    if words and draw < 0.25:
        return str(rng.choice(words))
    return f"{name} face" if name in FACES and draw > 0.92 else name


def caption(spec: Spec, rng: np.random.Generator) -> str:
    """Say what a spec shows, in one of many ways; the style is left out half of the time."""
    styled = spec.style in STYLES and rng.random() < (0.35 if spec.style == "3d" else 0.6)
    words = [_noun(n, rng) for n in spec.nouns]
    if spec.tint:
        words[0] = f"{spec.tint} {words[0]}"
    if styled:
        words[0] = f"{spec.style} {words[0]}"
    text = " and ".join(_article(w) for w in words)
    if rng.random() < 0.5:
        text = str(rng.choice(MEDIA, p=(0.76, 0.08, 0.08, 0.08))).format(text)
    if spec.background and (spec.background != "white" or rng.random() < 0.6):
        text = f"{text} {_place(spec.background, rng)}"
    return text


def anything(
    art: np.ndarray, rows: np.ndarray, photos: list, rng: np.random.Generator
) -> np.ndarray:
    """Compose a picture with no caption for the VAE: any art on any background."""
    kind = rng.random()
    if kind < 0.2:
        canvas = scenes.photo_crop(photos, rng)
    elif kind < 0.35:
        canvas = scenes.noise(rng)
    elif kind < 0.55:
        canvas = scenes.scene(str(rng.choice(list(SCENES))), rng)
    elif kind < 0.85:
        canvas = scenes.plain(str(rng.choice(list(COLORS))), rng)
    else:
        tone = rng.integers(0, 256, 3)
        canvas = np.broadcast_to(tone, (SIZE, SIZE, 3)).astype(np.uint8)
    if kind < 0.12:
        return canvas
    image = Image.fromarray(np.array(canvas))
    for _ in range(int(rng.integers(1, 4))):
        side = int(rng.integers(48, 125))
        sprite = _sprite(art[int(rng.choice(rows))], side, "", bool(rng.random() < 0.5))
        _paste(image, sprite, *rng.uniform(24, 104, 2))
    return np.asarray(image)
