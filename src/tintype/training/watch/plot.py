"""Plots drawn with Pillow: panels of lines over the steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from tintype.sheet import GRAY, INK, PAPER, RULE, font

WIDTH, HEIGHT = 600, 330  # of a panel, in px
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 64, 40  # around its axes
SCALE = 2  # drawn larger and reduced, for smooth lines

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points (step, value) in order; a `faint` one stands behind others and has no label, and
    doesn't decide how high the panel reaches; `dots` marks each point."""

    points: Sequence[Point]
    color: str
    label: str = ""
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines in one pair of axes."""

    title: str
    lines: Sequence[Line]


def draw_panels(panels: Sequence[Panel], columns: int = 2) -> Image.Image:
    """The panels beside and below one another, on white."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * WIDTH * SCALE, rows * HEIGHT * SCALE), PAPER)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        page.paste(_draw(panel), (column * WIDTH * SCALE, row * HEIGHT * SCALE))
    return page.resize((page.width // SCALE, page.height // SCALE), Image.Resampling.LANCZOS)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round values from `low` to `high`: steps of 1, 2 or 5 times a power of
    ten."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= span / most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


class _Axes:
    """From values to the pixels of a panel."""

    def __init__(self, lines: Sequence[Line]) -> None:
        points = [point for line in lines for point in line.points]
        firm = [point for line in lines if not line.faint for point in line.points] or points
        steps, values = [x for x, _ in points], [y for _, y in firm]
        self.left, self.right = min(steps), max(max(steps), min(steps) + 1)
        low, high = min(values), max(values)
        room = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
        self.low, self.high = low - room if low < 0 or low > room else 0.0, high + room

    def x(self, step: float) -> float:
        share = (step - self.left) / (self.right - self.left)
        return SCALE * (LEFT + share * (WIDTH - LEFT - RIGHT))

    def y(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return SCALE * (HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM))


def _draw(panel: Panel) -> Image.Image:
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    lines = [line for line in panel.lines if line.points]
    axes = _Axes(lines)
    _grid(pen, axes)
    for line in sorted(lines, key=lambda line: not line.faint):
        _line(pen, axes, line)
    pen.text((SCALE * LEFT, SCALE * 12), panel.title, font=font(SCALE * 16), fill=INK)
    x = SCALE * LEFT
    face = font(SCALE * 12)
    for line in lines:
        if line.label:
            y = SCALE * 47
            pen.line([(x, y), (x + SCALE * 16, y)], fill=line.color, width=SCALE * 3)
            pen.text((x + SCALE * 21, y), line.label, font=face, fill=GRAY, anchor="lm")
            x += SCALE * 37 + int(face.getlength(line.label))
    return image


def _grid(pen: ImageDraw.ImageDraw, axes: _Axes) -> None:
    face = font(SCALE * 12)
    for value in ticks(axes.low, axes.high, 4):
        y = axes.y(value)
        pen.line([(axes.x(axes.left), y), (axes.x(axes.right), y)], fill=RULE, width=SCALE)
        place = (SCALE * (LEFT - 8), y)
        pen.text(place, f"{value:.4g}", font=face, fill=GRAY, anchor="rm")
    for step in ticks(axes.left, axes.right, 6):
        below = (axes.x(step), SCALE * (HEIGHT - BOTTOM + 8))
        pen.text(below, f"{step:.10g}", font=face, fill=GRAY, anchor="mt")


def _line(pen: ImageDraw.ImageDraw, axes: _Axes, line: Line) -> None:
    points = [(axes.x(step), axes.y(value)) for step, value in line.points]
    color = _paler(line.color) if line.faint else line.color
    width = SCALE if line.faint else 2 * SCALE
    if len(points) > 1:
        pen.line(points, fill=color, width=width, joint="curve")
    if line.dots or len(points) == 1:
        radius = 3.5 * SCALE
        for x, y in points:
            pen.ellipse([(x - radius, y - radius), (x + radius, y + radius)], fill=color)


def _paler(color: str) -> str:
    """A colour three quarters of the way to white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{255 - (255 - part) // 4:02x}" for part in parts)
