"""Teach the exported model ten characters of an emoji set that it has never seen.

The set is FxEmojis (Apache 2.0, Mozilla), held out of every training here; each character comes as
five pictures of other tilts, sizes and backgrounds. What a perfect likeness would come to is
measured too: the character itself, set into the scenes that the trained model is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

from tintype.models.clip import SubjectMetrics, subject_similarity

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
SCENES = ("beach", "jungle", "city", "night", "red", "purple")  # those of the prompts measured
CELL = 72  # px of a picture on the sheet, with its border
WAY, DRIFT, SECONDS = 0.8, 0.1, 60.0  # what each character has to reach


def art_of(npm: Path, icon: str) -> np.ndarray:
    """Return a character (128, 128, 4) uint8; raises KeyError where the set has none."""
    icons = json.loads((npm / PACKAGE / "icons.json").read_text())
    source = svg_of(icons, icon)
    if source is None:
        raise KeyError(f"{PACKAGE}: no icon {icon!r}")
    return rasterise(source)


def poses(art: np.ndarray, places: Sequence[str]) -> list[Image.Image]:
    """Set a character into places, each in the next of five tilts and sizes; 128 x 128 px."""
    random, posed = np.random.default_rng(0), []
    for place, tilt, side in zip(places, cycle(TILTS), cycle(SIDES), strict=False):
        painted = scenes.PAINTERS.get(place)
        base = painted(random) if painted else Image.fromarray(scenes.plain(place, random))
        thing = sprites.resized(art, side).rotate(tilt, Image.Resampling.BICUBIC)
        low = (SIZE - side) // 2
        base.paste(thing, (low, min(low + 4, SIZE - side)), thing)
        posed.append(base)
    return posed


def pictures(art: np.ndarray, folder: Path) -> None:
    """Write five pictures of a character, 256 x 256 px."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(poses(art, BACKGROUNDS)):
        picture.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{k}.png")


def ceiling(clip: SubjectMetrics, art: np.ndarray, folder: Path) -> float:
    """Return how like its five pictures the character itself is in the scenes measured (-1..1)."""
    subject = clip.image_embeddings([Image.open(path) for path in sorted(folder.glob("*.png"))])
    drawn = poses(art, SCENES * len(TILTS))  # each scene with each of the five poses
    return subject_similarity(clip.image_embeddings(drawn), subject)


def figures(metrics: Path, itself: float) -> dict[str, float | bool]:
    """Read what `tintype` measured: the way gone, the drift, the seconds.

    And whether it is `learnt`, and whether that is `met` in time too, which the CPU decides.
    `itself`, a similarity as `ceiling` returns it, comes out as a way too.
    """
    values = json.loads(metrics.read_text())
    found, seconds = values["figures"], values["seconds"]
    before, after = (found["subject_similarity"][k] for k in ("before", "after"))
    whole = max(found["instance_similarity"] - before, 1e-6)
    way, drift = (after - before) / whole, 1 - found["class_preservation"]
    spent = sum(v for k, v in seconds.items() if not k.startswith(("drawing", "measuring")))
    learnt = way >= WAY and drift <= DRIFT
    return {
        "way": round(way, 3),
        "itself": round((itself - before) / whole, 3),
        "drift": round(drift, 3),
        "seconds": round(spent, 1),
        "learnt": learnt,
        "met": learnt and spent <= SECONDS,
    }


def sheet(work: Path, path: Path) -> None:
    """Lay out a row for each character: two of its five pictures, then what was drawn of it."""
    rows = [
        [
            *sorted((home / "pictures").glob("*.png"))[:2],
            *sorted((home / "run/drawn").glob("0*.png")),
        ]
        for icon in CHARACTERS
        if (home := work / "dreambooth" / icon).is_dir()
    ]
    page = Image.new("RGB", (max(map(len, rows)) * CELL, len(rows) * CELL), "white")
    for y, row in enumerate(rows):
        for x, file in enumerate(row):
            shown = Image.open(file).convert("RGB").resize((CELL - 2, CELL - 2))
            page.paste(shown, (x * CELL, y * CELL))
    page.quantize(256, kmeans=4).save(path, optimize=True)


def evaluate(work: Path, npm: Path, model: Path, count: int = 10, steps: int | None = None) -> dict:
    """Train on the first `count` characters; return each one's figures and how many are learnt."""
    from tintype.demo import PROTOCOL
    from tintype.evaluate.report import evaluate_run, silent
    from tintype.training.run import fit
    from tintype.training.watch.clock import PhaseClock
    from tintype.types import TrainConfig

    rows, clip = {}, SubjectMetrics.load()
    for icon, noun in list(CHARACTERS.items())[:count]:
        home, art = work / "dreambooth" / icon, art_of(npm, icon)
        shown, run = home / "pictures", home / "run"
        pictures(art, shown)
        if not (run / "metrics.json").exists():
            clock = PhaseClock(silent)
            config = TrainConfig(
                pictures=shown,
                class_noun=noun,
                model=str(model),
                out=run,
                steps=steps,
                sample_every=0,  # as in the demo: what is drawn on the way teaches nothing
            )
            fit(config, cache_dir=work / "dreambooth/cache", device="auto", on_event=clock)
            evaluate_run(run, protocol=PROTOCOL, spent=clock.seconds)
        rows[icon] = figures(run / "metrics.json", ceiling(clip, art, shown))
    counts = {key: sum(bool(row[key]) for row in rows.values()) for key in ("learnt", "met")}
    return {"characters": rows, **counts, "of": len(rows)}
