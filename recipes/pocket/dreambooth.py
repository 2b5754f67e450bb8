"""Teach the exported model ten characters of an emoji set that it has never seen.

The set is FxEmojis (Apache 2.0, Mozilla), held out of every training here; each character comes as
five pictures of other tilts, sizes and backgrounds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from . import scenes, sprites
from .data import SIZE, rasterise, svg_of

PACKAGE = "@iconify-json/fxemoji"
# icon name -> class noun
CHARACTERS: dict[str, str] = {
    "wolfface": "wolf",
    "bear": "bear",
    "pandaface": "panda",
    "koala": "koala",
    "monkeyface": "monkey",
    "mouse": "mouse",
    "frog": "frog",
    "tiger": "tiger",
    "foxgrin": "fox",
    "dragonhead": "dragon",
}
BACKGROUNDS = ("white", "yellow", "grass", "blue", "room")
TILTS = (0, -8, 6, 0, 10)
SIDES = (100, 92, 84, 104, 88)
WAY, DRIFT, SECONDS = 0.8, 0.1, 60.0  # what each character has to reach


def pictures(npm: Path, icon: str, folder: Path) -> None:
    """Write five pictures of a character, 256 x 256 px."""
    icons = json.loads((npm / PACKAGE / "icons.json").read_text())
    source = svg_of(icons, icon)
    if source is None:
        raise KeyError(f"{PACKAGE}: no icon {icon!r}")
    art, random = rasterise(source), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for k, (place, tilt, side) in enumerate(zip(BACKGROUNDS, TILTS, SIDES, strict=True)):
        painted = scenes.PAINTERS.get(place)
        base = painted(random) if painted else Image.fromarray(scenes.plain(place, random))
        thing = sprites.resized(art, side).rotate(tilt, Image.Resampling.BICUBIC)
        low = (SIZE - side) // 2
        base.paste(thing, (low, min(low + 4, SIZE - side)), thing)
        base.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{k}.png")


def figures(metrics: Path) -> dict[str, float | bool]:
    """Read what `tintype` measured: the way gone, the drift, the seconds, and whether it is met."""
    values = json.loads(metrics.read_text())
    found, seconds = values["figures"], values["seconds"]
    before, after = (found["subject_similarity"][k] for k in ("before", "after"))
    way = (after - before) / max(found["instance_similarity"] - before, 1e-6)
    drift = 1 - found["class_preservation"]
    spent = sum(v for k, v in seconds.items() if not k.startswith(("drawing", "measuring")))
    met = way >= WAY and drift <= DRIFT and spent <= SECONDS
    return {"way": round(way, 3), "drift": round(drift, 3), "seconds": round(spent, 1), "met": met}


def evaluate(work: Path, npm: Path, model: Path, count: int = 10, steps: int | None = None) -> dict:
    """Train on the first `count` characters; return each one's figures and how many are met."""
    from tintype.demo import PROTOCOL
    from tintype.evaluate.report import evaluate_run, silent
    from tintype.training.run import fit
    from tintype.training.watch.clock import PhaseClock
    from tintype.types import TrainConfig

    rows = {}
    for icon, noun in list(CHARACTERS.items())[:count]:
        home = work / "dreambooth" / icon
        pictures(npm, icon, home / "pictures")
        run = home / "run"
        if not (run / "metrics.json").exists():
            clock = PhaseClock(silent)
            config = TrainConfig(
                pictures=home / "pictures", class_noun=noun, model=str(model), out=run, steps=steps
            )
            fit(config, cache_dir=work / "dreambooth/cache", device="auto", on_event=clock)
            evaluate_run(run, protocol=PROTOCOL, spent=clock.seconds)
        rows[icon] = figures(run / "metrics.json")
    return {"characters": rows, "met": sum(bool(r["met"]) for r in rows.values()), "of": len(rows)}
