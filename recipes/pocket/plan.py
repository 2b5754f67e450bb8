"""The whole plan for one GPU, in calls of a few minutes that go on where the last one stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import (
    cache,
    clip,
    curves,
    draw,
    export,
    extras,
    grow,
    lcm,
    pack,
    training,
    unet,
    vae,
    variants,
    xl,
)
from .concepts import ALL_TIERS

# What starts from the exported weights, and how far it is goes along with the art.
SEEDED = ("clip", "vae", "unet")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything: pictures to compose, processes, batches, minutes a training."""

    pictures: int
    kept: int
    other: int
    workers: int
    batch: int
    pool: int
    minutes: dict[str, float] = field(default_factory=dict)
    compiled: bool = False
    sheet: int = len(draw.SHEET)
    sizes: tuple[cache.Size, ...] = cache.SIZES


# 20 minutes of training; composing, loading and saving take the others of 25.
GPU = Scale(
    pictures=160_000,
    kept=60_000,
    other=12_000,
    workers=16,
    batch=1024,
    pool=6000,
    compiled=True,
    minutes={
        **{"clip": 1, "unet": 6.5, "vae": 2.5, "sizes": 2, "inpainting": 2.2},
        **{"xl": 3, "edges": 0.5, "canny": 1.1, "lcm": 1.2},
    },
)
# Every stage once, on a CPU, in a few minutes: for rehearsal only.
TINY = Scale(
    pictures=32,
    kept=16,
    other=8,
    workers=1,
    batch=2,
    pool=16,
    minutes=dict.fromkeys(GPU.minutes, 0.05),
    sheet=4,
    sizes=((96, 96), (96, 144)),
)


def _compose(work: Path, npm: Path, scale: Scale) -> None:
    sizes = [(cache.SQUARE, scale.pictures, scale.kept)]
    for size, count, keep in [*sizes, *((s, scale.other, 0) for s in scale.sizes)]:
        cache.make(work, npm, size, count, scale.workers, keep)
    cache.embed(work, scale.workers)


def stages(work: Path, npm: Path, scale: Scale) -> dict[str, Callable[[], None]]:
    """Return the stages by name, in their order."""
    minutes, batch = scale.minutes, scale.batch
    return {
        "clip": lambda: clip.train(work, npm, minutes["clip"], scale.pool),
        "compose": lambda: _compose(work, npm, scale),
        "unet": lambda: unet.train(work, minutes["unet"], 1, batch, scale.compiled),
        "vae": lambda: vae.train(work, npm, minutes["vae"], 1, scale.pool),
        "sizes": lambda: unet.train_sizes(work, minutes["sizes"], 1, batch, scale.sizes),
        "inpainting": lambda: variants.train_inpainting(work, minutes["inpainting"], batch),
        "xl": lambda: xl.train(work, minutes["xl"], batch, scale.sizes),
        "edges": lambda: variants.train_edges(work, minutes["edges"], batch),
        "canny": lambda: variants.train_canny(work, minutes["canny"], batch),
        "lcm": lambda: lcm.train(work, minutes["lcm"], batch),
    }


def finished(work: Path, name: str, scale: Scale) -> bool:
    """Whether a training has spent its minutes."""
    if name not in scale.minutes:
        return False  # composing finds its own files
    facts = work / f"{name}.json"
    spent = json.loads(facts.read_text())["spent"] if facts.exists() else 0.0
    return bool(spent >= 60 * scale.minutes[name] - 1)


def show(work: Path, out: Path, count: int) -> None:
    """Export what is there, draw the sheet with it, and collect everything in OUT."""
    out.mkdir(parents=True, exist_ok=True)
    export.export(work, work / "export")
    sizes = extras.write(work, work / "export/extras")
    (work / "extras.json").write_text(json.dumps(sizes) + "\n")
    prompts = list(draw.SHEET[:count])
    pictures = draw.draw(draw.load(work / "export/weights"), prompts, seed=900)
    draw.sheet(pictures, prompts, out / "sheet.png")
    curves.draw(work, out / "curves.png")
    base = "sizes" if (work / "sizes.pt").exists() else "unet"
    pack.collect(work, ("clip", "vae", base, *extras.NAMES), out)


def run(
    work: Path,
    npm: Path,
    package: Path,
    archive: Path | None,
    out: Path,
    minutes: float,
    tiny: bool,
) -> bool:
    """Run stages until the minutes are spent, then collect; return whether all are finished."""
    training.stop_after(minutes)
    scale = TINY if tiny else GPU
    if archive is not None:
        pack.unpack(archive, work)
    cache.teach(work, ALL_TIERS)
    grow.start(work, npm, package, min(scale.pool, 500))
    for name, stage in stages(work, npm, scale).items():
        if training.expired():
            break
        if not finished(work, name, scale):
            print(f"== {name}", flush=True)
            stage()
    show(work, out, scale.sheet)
    left = [name for name in scale.minutes if not finished(work, name, scale)]
    print(f"left to do: {', '.join(left) or 'nothing'}", flush=True)
    return not left
