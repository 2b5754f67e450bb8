"""Draw the logged losses as curves."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE, EDGE = (420, 240), 34


def _points(path: Path) -> list[tuple[float, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["minutes"], row["loss"]) for row in rows if row["minutes"] > 0]


def _panel(name: str, points: list[tuple[float, float]]) -> Image.Image:
    """Draw one curve, loss over minutes."""
    page = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    xs, ys = zip(*points, strict=True)
    low, high = min(ys), max(ys) if max(ys) > min(ys) else min(ys) + 1
    wide, tall = SIZE[0] - 2 * EDGE, SIZE[1] - 2 * EDGE

    def place(x: float, y: float) -> tuple[float, float]:
        return EDGE + wide * x / max(xs), EDGE + tall * (high - y) / (high - low)

    pen.rectangle((EDGE, EDGE, EDGE + wide, EDGE + tall), outline="#bbbbbb")
    if len(points) > 1:
        pen.line([place(*p) for p in points], fill="#1f5fbf", width=2)
    pen.text((EDGE, 8), f"{name}: loss", fill="black", font=font)
    pen.text((2, EDGE - 6), f"{high:.3g}", fill="black", font=font)
    pen.text((2, EDGE + tall - 8), f"{low:.3g}", fill="black", font=font)
    pen.text((EDGE + wide - 60, SIZE[1] - 24), f"{max(xs):.0f} min", fill="black", font=font)
    return page


def draw(work: Path, path: Path) -> None:
    """Draw every log-*.jsonl of a work folder into one picture, two panels a row."""
    logs = {p.stem.removeprefix("log-"): _points(p) for p in sorted(work.glob("log-*.jsonl"))}
    panels = [_panel(name, points) for name, points in logs.items() if points]
    if not panels:
        return
    rows = -(-len(panels) // 2)
    page = Image.new("RGB", (SIZE[0] * min(len(panels), 2), SIZE[1] * rows), "white")
    for k, panel in enumerate(panels):
        page.paste(panel, (SIZE[0] * (k % 2), SIZE[1] * (k // 2)))
    page.quantize(32).save(path, optimize=True)
