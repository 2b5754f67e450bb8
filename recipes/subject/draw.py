"""Draw Pim, the bundled subject: five pictures of one mint-green cat, for `tintype demo`.

Run `python recipes/subject/draw.py [FOLDER]`; the same pictures come out every time. Pim and
these pictures are original work, dedicated to the public domain (CC0 1.0).
"""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

SIZE = 256
OVERSAMPLE = 4
FOLDER = Path(__file__).resolve().parents[2] / "src" / "tintype" / "demo_subject"

MINT, MINT_SHADE, MINT_LIGHT = "#6fdcb4", "#45b991", "#b9f4de"
VIOLET = "#7038c9"
CORAL, BLUSH = "#ff7a6b", "#ff9d8a"
ORANGE, CREAM = "#ff8a1f", "#fff6e6"
YELLOW, INK, WHITE = "#ffd53d", "#2b2140", "#ffffff"

Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a drawing's own coordinates land: degrees anticlockwise, then scaled, then moved."""

    x: float
    y: float
    scale: float = 1.0
    turn: float = 0.0

    def of(self, point: Point) -> Point:
        """A point of the drawing, in the picture."""
        angle = math.radians(-self.turn)
        cos, sin = math.cos(angle) * self.scale, math.sin(angle) * self.scale
        x, y = point
        return self.x + cos * x - sin * y, self.y + sin * x + cos * y


class Pen:
    """Shapes on a picture of SIZE x SIZE units, drawn OVERSAMPLE times as large."""

    def __init__(self, background: str) -> None:
        side = SIZE * OVERSAMPLE
        self.image = Image.new("RGB", (side, side), background)
        self.place = Place(0, 0)

    def _pixels(self, points: Iterable[Point]) -> list[Point]:
        placed = (self.place.of(point) for point in points)
        return [(x * OVERSAMPLE, y * OVERSAMPLE) for x, y in placed]

    def shape(self, points: Iterable[Point], fill: str) -> None:
        """A filled polygon."""
        ImageDraw.Draw(self.image).polygon(self._pixels(points), fill=fill)

    def line(self, points: Iterable[Point], width: float, fill: str) -> None:
        """A stroke with round ends and joints."""
        pixels = self._pixels(points)
        thick = width * self.place.scale * OVERSAMPLE
        draw = ImageDraw.Draw(self.image)
        draw.line(pixels, fill=fill, width=round(thick))
        for x, y in pixels:
            radius = thick / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def rounded(self, points: Sequence[Point], radius: float, fill: str) -> None:
        """A polygon whose corners are rounded outwards by `radius`."""
        self.shape(points, fill)
        self.line([*points, points[0]], 2 * radius, fill)

    def clipped(self, outline: list[Point], paint: Callable[[], None]) -> None:
        """Whatever `paint` draws, inside `outline` alone."""
        before = self.image.copy()
        paint()
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._pixels(outline), fill=255)
        self.image = Image.composite(self.image, before, mask)

    def done(self) -> Image.Image:
        """The finished picture."""
        return self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def oval(x: float, y: float, rx: float, ry: float, *, power: float = 2.0) -> list[Point]:
    """A superellipse: 2 is an ellipse, larger is squarer."""
    points = []
    for step in range(120):
        angle = step * math.tau / 120
        cos, sin = math.cos(angle), math.sin(angle)
        points.append(
            (
                x + rx * math.copysign(abs(cos) ** (2 / power), cos),
                y + ry * math.copysign(abs(sin) ** (2 / power), sin),
            )
        )
    return points


def star(x: float, y: float, outer: float, inner: float, turn: float = 0.0) -> list[Point]:
    """A five-pointed star with a point upwards."""
    points = []
    for step in range(10):
        radius = inner if step % 2 else outer
        angle = math.radians(turn - 90 + 36 * step)
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return points


def curve(a: Point, b: Point, c: Point, d: Point, steps: int = 48) -> list[Point]:
    """A cubic Bézier curve."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        s = 1 - t
        weights = (s**3, 3 * s * s * t, 3 * s * t * t, t**3)
        points.append(
            (
                sum(w * p[0] for w, p in zip(weights, (a, b, c, d), strict=True)),
                sum(w * p[1] for w, p in zip(weights, (a, b, c, d), strict=True)),
            )
        )
    return points


HEAD = oval(0, 0, 66, 52, power=2.3)


def ears(pen: Pen) -> None:
    """One pointed ear, and one whose tip is folded over."""
    pen.rounded([(16, -38), (48, -66), (57, -16)], 8, MINT)
    pen.rounded([(32, -42), (45, -54), (49, -34)], 5, CORAL)
    pen.rounded([(-16, -38), (-36, -46), (-57, -16)], 8, MINT)


def folded_tip(pen: Pen) -> None:
    """The tip of the folded ear, in front of the head."""
    pen.rounded([(-23, -48), (-47, -55), (-68, -14)], 7, MINT_SHADE)


def eye(pen: Pen, x: float, y: float, look: Point) -> None:
    """A big yellow eye; `look` moves the pupil."""
    pen.shape(oval(x, y, 15, 17), WHITE)
    pen.shape(oval(x, y, 13, 15), YELLOW)
    pen.shape(oval(x + look[0], y + look[1], 7.5, 11), INK)
    pen.shape(oval(x + look[0] + 2.5, y + look[1] - 4.5, 2.8, 3.4), WHITE)


def head(pen: Pen, place: Place, *, face: Point = (0, 0), open_mouth: bool = False) -> None:
    """Pim's head around its own centre; `face` turns it, by moving the features."""
    pen.place = place
    x, y = face
    ears(pen)
    pen.shape(HEAD, MINT)

    def markings() -> None:
        pen.shape(oval(-46 + 0.7 * x, 22 + y, 10, 6.5), BLUSH)
        pen.rounded(star(27 + x, -4 + y, 33, 18, turn=6), 5, VIOLET)
        pen.rounded([(-12 + 0.6 * x, -56), (-4 + 0.6 * x, -30), (4 + 0.6 * x, -56)], 2, MINT_SHADE)

    pen.clipped(HEAD, markings)
    folded_tip(pen)
    look = (x / 6, y / 6)
    eye(pen, -25 + x, -4 + y, look)
    eye(pen, 27 + x, -4 + y, look)
    pen.shape(oval(1 + 1.15 * x, 24 + y, 25, 17), CREAM)
    if open_mouth:
        pen.shape(oval(1 + 1.15 * x, 29 + y, 9, 9), INK)
        pen.shape(oval(1 + 1.15 * x, 33 + y, 6, 4.5), CORAL)
        pen.shape(oval(1 + 1.15 * x, 20 + y, 10, 7), CREAM)
    else:
        for side in (-1, 1):
            smile = [(1, 20), (1 + side * 1, 30), (1 + side * 11, 31), (1 + side * 13, 24)]
            moved = [(1.15 * x + px, y + py) for px, py in smile]
            pen.line(curve(moved[0], moved[1], moved[2], moved[3]), 3.4, INK)
    pen.rounded([(-4 + 1.2 * x, 14 + y), (6 + 1.2 * x, 14 + y), (1 + 1.2 * x, 20 + y)], 3, CORAL)


def scarf(pen: Pen, place: Place, *, tail: int) -> None:
    """An orange scarf with cream stripes; its end hangs on side `tail` (-1, 0 or 1)."""
    pen.place = place
    if tail:
        end: list[Point] = [(tail * 12, 4), (tail * 34, 2), (tail * 40, 40), (tail * 18, 44)]
        pen.rounded(end, 3, ORANGE)
        pen.line([(tail * 17, 22), (tail * 35, 19)], 8, CREAM)
    outline = oval(0, 0, 50, 17, power=2.6)

    def stripes() -> None:
        pen.shape(outline, ORANGE)
        for at in (-38, -13, 13, 38):
            pen.line([(at + 5, -24), (at - 4, 24)], 9, CREAM)

    pen.clipped(outline, stripes)


def chest(pen: Pen, place: Place) -> None:
    """Shoulders and a light chest; their top is at y = 0."""
    pen.place = place
    pen.shape(oval(0, 60, 46, 64, power=2.3), MINT)
    pen.shape(oval(0, 64, 27, 44), MINT_LIGHT)


def portrait() -> Image.Image:
    """The head alone, large, on yellow."""
    pen = Pen("#ffe27a")
    pen.place = Place(128, 300, 1.5)
    pen.shape(oval(0, -24, 60, 50), MINT)
    scarf(pen, Place(128, 224, 1.62), tail=0)
    head(pen, Place(128, 140, 1.62))
    return pen.done()


def indoors() -> Image.Image:
    """On a wooden floor before a pale wall, facing right."""
    pen = Pen("#cfe0f2")
    pen.shape([(0, 196), (256, 196), (256, 256), (0, 256)], "#b9773f")
    pen.shape([(0, 196), (256, 196), (256, 203), (0, 203)], "#8f5728")
    chest(pen, Place(128, 190, 1.2))
    scarf(pen, Place(128, 196, 1.25), tail=1)
    head(pen, Place(128, 120, 1.42, 3), face=(5, 1))
    return pen.done()


def laughing() -> Image.Image:
    """Laughing, on coral pink, facing left."""
    pen = Pen("#ff9fb6")
    chest(pen, Place(132, 190, 1.25))
    scarf(pen, Place(132, 198, 1.3), tail=1)
    head(pen, Place(134, 126, 1.44, 5), face=(-6, 0), open_mouth=True)
    return pen.done()


def tilted() -> Image.Image:
    """The head tilted on white, from a little further away."""
    pen = Pen("#f4f4f2")
    pen.place = Place(134, 262, 1.2, -6)
    pen.shape(oval(0, 0, 52, 66), MINT)
    scarf(pen, Place(134, 204, 1.28, -8), tail=-1)
    head(pen, Place(126, 136, 1.4, -15), face=(3, -4))
    return pen.done()


def meadow() -> Image.Image:
    """On a green hill under a blue sky."""
    pen = Pen("#8fd0ff")
    pen.shape(oval(42, 34, 30, 14), WHITE)
    pen.shape(oval(60, 26, 22, 17), WHITE)
    pen.shape(oval(110, 306, 260, 112), "#57b947")
    chest(pen, Place(128, 190, 1.15))
    scarf(pen, Place(126, 194, 1.2), tail=-1)
    head(pen, Place(126, 124, 1.38, -4), face=(-3, 2), open_mouth=True)
    return pen.done()


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "pim-1-portrait.png": portrait,
    "pim-2-indoors.png": indoors,
    "pim-3-laughing.png": laughing,
    "pim-4-tilted.png": tilted,
    "pim-5-meadow.png": meadow,
}


def main(folder: Path = FOLDER) -> None:
    """Write the five pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    words = PngInfo()
    words.add_text("Title", "Pim, the bundled subject of tintype")
    words.add_text("Copyright", "CC0 1.0 Universal: no rights reserved")
    for name, picture in PICTURES.items():
        picture().save(folder / name, optimize=True, pnginfo=words)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
