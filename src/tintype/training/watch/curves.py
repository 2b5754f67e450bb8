"""The pictures that a run leaves of its course: curves.png, and samples.png."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tintype.sheet import ACCENT, GRAY, picture_sheet
from tintype.sheet import Line as SheetLine
from tintype.training.watch.plot import Line, Panel, Point, draw_panels
from tintype.training.watch.record import Record
from tintype.training.watch.rows import Row

ORANGE, TEAL = "#c8641a", "#13787f"
MOST_POINTS = 2000  # of a line: more than there are pixels
MOST_COLUMNS = 8  # of a sheet of samples


def curves(rows: Sequence[Row], record: Record) -> Image.Image:
    """Losses, learning rate, and what else was measured, over the steps; rows may not be empty."""
    losses = [
        Line(points=_thin([(row.step, row.loss) for row in rows]), color=ACCENT, faint=True),
        Line(points=smooth([(row.step, row.loss) for row in rows]), color=ACCENT, label="loss"),
    ]
    if any(row.prior_loss is not None for row in rows):
        instance = [(row.step, row.instance_loss) for row in rows]
        losses.append(Line(points=smooth(instance), color=ORANGE, label="instance"))
        losses.append(Line(points=smooth(_of(rows, "prior_loss")), color=TEAL, label="prior"))
    held_out = _of(rows, "validation_loss")
    if held_out:
        losses.append(Line(points=held_out, color=GRAY, label="validation", dots=True))
    rates = _thin([(row.step, row.learning_rate) for row in rows])
    panels = [
        Panel(title="Loss", lines=losses),
        Panel(title="Learning rate", lines=[Line(points=rates, color=ACCENT)]),
    ]
    norms = _of(rows, "gradient_norm")
    if norms:
        lines = [
            Line(points=_thin(norms), color=ACCENT, faint=True),
            Line(points=smooth(norms), color=ACCENT),
        ]
        panels.append(Panel(title="Gradient norm before clipping", lines=lines))
    measured = _similarities(record)
    if measured:
        panels.append(Panel(title="Samples, by pocket-clip", lines=measured))
    return draw_panels(panels)


def smooth(points: Sequence[Point]) -> list[Point]:
    """An exponential mean over about a thirtieth of the points, right from the first."""
    keep = 1 - 1 / max(1.0, min(len(points) / 30, 200.0))
    total, weight, found = 0.0, 0.0, []
    for step, value in points:
        total, weight = keep * total + value, keep * weight + 1
        found.append((step, total / weight))
    return _thin(found)


def sample_steps(run: Path, most: int = MOST_COLUMNS) -> list[int]:
    """The steps with samples: the first, the last, and evenly between them."""
    found = sorted(
        int(number)
        for place in run.glob("samples/step-*")
        if (number := place.name.removeprefix("step-")).isdigit() and any(place.glob("*.png"))
    )
    if len(found) <= most:
        return found
    return [found[round(index * (len(found) - 1) / (most - 1))] for index in range(most)]


def sample_sheet(run: Path, title: str, prompts: Sequence[str]) -> Image.Image | None:
    """A line of samples for each prompt, from the first step to the last; None if there are
    none."""
    steps = sample_steps(run)
    lines = []
    for index, prompt in enumerate(prompts):
        paths = [run / f"samples/step-{step}/{index:02d}.png" for step in steps]
        pictures = [Image.open(p) if p.is_file() else Image.new("RGB", (8, 8)) for p in paths]
        lines.append(SheetLine(label=prompt, pictures=pictures))
    if not steps or not lines:
        return None
    headings = ["before training" if step == 0 else f"step {step}" for step in steps]
    return picture_sheet(
        title=title,
        lines=lines,
        headings=headings,
        per_line=len(steps),
        footer="Each line: the same prompt and the same seed at every step.",
    )


def _similarities(record: Record) -> list[Line]:
    found = []
    names = (("likeness", "likeness", ORANGE), ("class_similarity", "class, to before", TEAL))
    for name, label, color in names:
        points = [(s, m[name]) for s, m in sorted(record.measured.items()) if name in m]
        if points:
            found.append(Line(points=points, color=color, label=label, dots=True))
    steps = sorted(record.measured)
    if found and record.instances is not None:
        level = [(step, record.instances) for step in (steps[0], steps[-1])]
        found.append(Line(points=level, color=GRAY, label="instances among themselves"))
    return found


def _of(rows: Sequence[Row], name: str) -> list[Point]:
    """What was measured under that name and is finite."""
    pairs = [(row.step, getattr(row, name)) for row in rows]
    return [(step, value) for step, value in pairs if value is not None and math.isfinite(value)]


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS of them, the last one always."""
    every = -(-len(points) // MOST_POINTS) or 1
    return [*points[:-1:every], *points[-1:]]
