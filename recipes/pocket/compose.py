"""Put pictures on backgrounds: one thing or two, recoloured, large or small, wearing something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from . import scenes, sprites
from .captions import RELATIONS, WEARERS, article, caption
from .concepts import COLORS, DRAWN, SCENES, STYLES, TIERS
from .data import SIZE, Art

__all__ = ["Chooser", "Shares", "Spec", "anything", "article", "caption", "render"]

# Of a thing, in px. Half of the things stand at the very same place and size, so that a small model
# can learn their strokes; the others anywhere near, so that it can draw what is elsewhere, as a
# subject's pictures show it.
LOOSE, SHIFT, STRETCH = 0.5, 9, (0.78, 1.14)
SIDES = {"": 96, "small": 57, "big": 122}
DRESSED = 86
# Two things at once, and things of another colour, are of this tier: there are too many otherwise.
CHANGED = "first"
# what is worn -> the concept whose art shows it; a santa hat and a scarf are painted
ACCESSORIES = {
    "hat": "top hat",
    "crown": "crown",
    "glasses": "glasses",
    "sunglasses": "sunglasses",
    "bow": "bow",
}
# relation -> the places (x, y, side) of the first and the second thing
PLACES = {
    "": ((33, 66, 60), (95, 66, 60)),
    "next to": ((33, 66, 60), (95, 66, 60)),
    "left": ((33, 66, 60), (95, 66, 60)),
    "right": ((95, 66, 60), (33, 66, 60)),
    "top": ((64, 35, 58), (64, 92, 62)),
}


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many of the pictures show two things, and how many one of another colour, 0..1."""

    pairs: float = 0.4
    tints: float = 0.1


USUAL = Shares()


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What one composed picture shows; `art` and `accessory` are rows of the art array."""

    art: tuple[int, ...]
    nouns: tuple[str, ...]
    style: str
    background: str = ""
    tint: str = ""
    relation: str = ""
    size: str = ""
    worn: str = ""
    worn_color: str = ""
    accessory: int = -1


def _sprite(pixels: np.ndarray, side: int, tint: str = "", flip: bool = False) -> Image.Image:
    sprite = sprites.resized(pixels, side)
    if flip:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return sprites.recolor(sprite, tint) if tint else sprite


def _paste(layer: Image.Image, sprite: Image.Image, cx: float, cy: float) -> None:
    """Put a sprite's middle at a place; what lies outside is cut off."""
    x, y = round(cx - sprite.width / 2), round(cy - sprite.height / 2)
    inside = sprite.crop((max(-x, 0), max(-y, 0), sprite.width, sprite.height))
    layer.alpha_composite(inside, (max(x, 0), max(y, 0)))


def _backdrop(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    if spec.background in SCENES:
        return scenes.scene(spec.background, rng)
    return scenes.plain(spec.background or "white", rng)


def _foreground(spec: Spec, art: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Draw the things alone, (128, 128) RGBA."""
    layer = Image.new("RGBA", (SIZE, SIZE))
    low = 6 if spec.background in SCENES else 0
    loose = float(rng.random() < LOOSE)
    dx, dy = (loose * rng.uniform(-SHIFT, SHIFT, 2)).tolist()
    stretch = 1 + loose * (float(rng.uniform(*STRETCH)) - 1)
    if len(spec.art) > 1:
        low = 0 if spec.relation == "top" else low
        for k, (row, (cx, cy, side)) in enumerate(
            zip(spec.art, PLACES[spec.relation], strict=True)
        ):
            sprite = _sprite(art[row], side, "" if k else spec.tint)
            _paste(layer, sprite, cx + dx / 4, cy + low + dy / 4)
        return layer
    side = DRESSED if spec.worn else round(SIDES[spec.size] * stretch)
    sprite = _sprite(art[spec.art[0]], side, spec.tint)
    if not spec.worn:
        _paste(layer, sprite, 64 + dx, 64 + low + dy)
        return layer
    _paste(layer, sprite, 64 + dx / 2, 76 + dy / 4)
    picture = art[spec.accessory] if spec.accessory >= 0 else None
    return sprites.wear(layer, spec.worn, spec.worn_color, picture)


def render(
    spec: Spec,
    art: np.ndarray,
    rng: np.random.Generator,
    base: np.ndarray | None = None,
    size: tuple[int, int] = (SIZE, SIZE),
) -> np.ndarray:
    """Compose a picture, (height, width, 3) uint8, on its named background or on `base`.

    `size` is (width, height): the background is stretched to it; the things are in its middle, as
    on 128 x 128 px, smaller only where there is less room.
    """
    backdrop = Image.fromarray(np.array(_backdrop(spec, rng) if base is None else base))
    things, side = _foreground(spec, art, rng), min(*size, SIZE)
    if size != backdrop.size:
        backdrop = backdrop.resize(size, Image.Resampling.BICUBIC)
    if side != SIZE:
        things = things.resize((side, side), Image.Resampling.BICUBIC)
    backdrop.paste(things, ((size[0] - side) // 2, (size[1] - side) // 2), things)
    return np.asarray(backdrop)


class Chooser:
    """Choose specs at random from the drawn art."""

    def __init__(self, index: list[Art], tiers: dict[str, float] | None = None) -> None:
        self.rows = {(a.concept, a.style): i for i, a in enumerate(index) if a.drawn}
        self.tiers = tiers or TIERS
        have = {name for name, style in self.rows if style in STYLES}
        self.members = {
            t: [c.name for c in DRAWN if c.tier == t and c.name in have] for t in self.tiers
        }
        self.wearers = sorted(WEARERS & have)

    def _name(self, rng: np.random.Generator, tier: str = "") -> str:
        tier = tier or str(rng.choice(list(self.tiers), p=list(self.tiers.values())))
        members = self.members[tier]
        return members[rng.integers(len(members))]

    def _held(self, names: list[str]) -> list[str]:
        """Return the styles that have a picture of each of the names."""
        return [s for s in STYLES if all((n, s) in self.rows for n in names)]

    def _style(self, names: list[str], rng: np.random.Generator) -> str:
        held = self._held(names)
        shares = np.array([STYLES[s] for s in held])
        return str(rng.choice(held, p=shares / shares.sum())) if held else ""

    def _place(self, rng: np.random.Generator) -> str:
        kind = rng.random()
        if kind < 0.32:
            return ""
        return str(rng.choice(list(COLORS) if kind < 0.7 else list(SCENES)))

    def __call__(self, rng: np.random.Generator, shares: Shares = USUAL) -> Spec:
        """Return a random spec: mostly one thing, now and then two, or one that is changed."""
        draw, place = rng.random(), self._place(rng)
        pairs, tints = shares.pairs, shares.tints
        if draw < pairs:
            return self._pair(rng, place)
        if draw < pairs + 0.08:
            return self._wearer(rng, place)
        tint = str(rng.choice(list(COLORS))) if draw > 1 - tints else ""
        name = self._name(rng, CHANGED if tint else "")
        style = self._style([name], rng)
        size = str(rng.choice(("small", "big"))) if 1 - tints - 0.05 < draw < 1 - tints else ""
        row = self.rows[(name, style)]
        return Spec(art=(row,), nouns=(name,), style=style, background=place, tint=tint, size=size)

    def _pair(self, rng: np.random.Generator, place: str) -> Spec:
        names: list[str] = []
        while not names or names[0] == names[1] or not self._held(names):
            names = [self._name(rng, CHANGED) for _ in range(2)]
        style = "3d" if "3d" in self._held(names) else self._style(names, rng)
        return Spec(
            art=tuple(self.rows[(n, style)] for n in names),
            nouns=tuple(names),
            style=style,
            background=place,
            relation=str(rng.choice(list(RELATIONS))),
        )

    def _wearer(self, rng: np.random.Generator, place: str) -> Spec:
        name = self.wearers[rng.integers(len(self.wearers))]
        style, worn = self._style([name], rng), str(rng.choice(sprites.WORN))
        color = str(rng.choice(list(COLORS))) if rng.random() < 0.5 else ""
        if worn == "scarf":
            color = color or str(rng.choice((*COLORS, "rainbow")))
        thing = ACCESSORIES.get(worn, "")
        accessory = self.rows.get((thing, style), self.rows.get((thing, "noto"), -1))
        return Spec(
            art=(self.rows[(name, style)],),
            nouns=(name,),
            style=style,
            background=place,
            worn=worn,
            worn_color="" if worn == "santa hat" else color,
            accessory=accessory,
        )


def alone(art: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compose a picture with no caption for the VAE: one thing, as the UNet is taught it."""
    places = list(COLORS if rng.random() < 0.6 else SCENES)
    spec = Spec(
        art=(int(rng.choice(rows)),), nouns=("",), style="", background=str(rng.choice(places))
    )
    return render(spec, art, rng)


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
    image = Image.fromarray(np.array(canvas)).convert("RGBA")
    for _ in range(int(rng.integers(1, 4))):
        side = int(rng.integers(48, 125))
        sprite = _sprite(art[int(rng.choice(rows))], side, "", bool(rng.random() < 0.5))
        _paste(image, sprite, *rng.uniform(24, 104, 2))
    return np.asarray(image)[..., :3]
