"""Measure the exported model: what it draws, its autoencoder, its speed and its size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diffusers import LCMScheduler, StableDiffusionPipeline

from . import classifier, draw, lab, training, vae
from .captions import RELATIONS, article
from .compose import CHANGED, Spec, render
from .concepts import COLORS, DRAWN
from .data import load_art

CUTOFF = 5
GRAYS = ("white", "gray", "black")  # colours that many things have anyhow
Report = dict[str, object]


def known(judge: classifier.Judge, target: Path) -> list[str]:
    """Return the concepts that the exported model tells of and the classifier knows."""
    told = json.loads((target / "concepts.json").read_text())["concepts"]
    names = {row["name"] for row in told}
    return [name for name in judge.names if name in names]


def by_lot(names: list[str], count: int = 100) -> list[str]:
    """Choose names by lot, the same ones every time."""
    chosen = np.random.default_rng(2024).permutation(len(names))[:count]
    return [names[k] for k in sorted(chosen)]


def nearest_color(pixels: np.ndarray) -> str:
    """Name the colour nearest in Lab to the median of pixels (n, 3)."""
    tone = lab.from_rgb(np.median(pixels, 0))
    palette = lab.from_rgb(np.array(list(COLORS.values())))
    return list(COLORS)[int(np.linalg.norm(palette - tone, axis=1).argmin())]


def _border(picture: np.ndarray) -> np.ndarray:
    """Return the outer 8 pixels, (n, 3)."""
    mask = np.ones(picture.shape[:2], bool)
    mask[8:-8, 8:-8] = False
    return picture[mask]


def _share(right: list[bool]) -> float:
    return round(float(np.mean(right)), 3)


def _rates(ranks: list[int]) -> Report:
    return {f"top{k}": _share([r < k for r in ranks]) for k in (1, CUTOFF)}


def recognition(
    pipe: StableDiffusionPipeline,
    judge: classifier.Judge,
    names: list[str],
    steps: int = draw.STEPS,
    guidance: float = draw.GUIDANCE,
) -> Report:
    """Draw each concept once and rank it with the classifier."""
    prompts = [f"a photo of {article(n)}" for n in names]
    pictures = draw.draw(pipe, prompts, seed=100, steps=steps, guidance=guidance)
    ranks = judge.ranks(pictures, names).tolist()
    missed = [n for n, r in zip(names, ranks, strict=True) if r >= CUTOFF]
    return {"concepts": len(names), **_rates(ranks), "missed": missed}


def four_steps(target: Path, judge: classifier.Judge, names: list[str]) -> Report:
    """Draw each concept once in four steps, with the LCM-LoRA in TARGET/lcm."""
    pipe = draw.load(target / "weights")
    pipe.load_lora_weights(target / "lcm")
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    return recognition(pipe, judge, names, steps=4, guidance=1.0)


def backgrounds(pipe: StableDiffusionPipeline) -> Report:
    """Ask for each colour behind five concepts and name the colour that came."""
    things = ("cat", "dog", "car", "robot", "star")
    asked = [(t, c) for t in things for c in COLORS]
    prompts = [f"{article(t)} on {article(c)} background" for t, c in asked]
    pictures = draw.draw(pipe, prompts, seed=500)
    got = [nearest_color(_border(p)) for p in pictures]
    right = [g == c for g, (_, c) in zip(got, asked, strict=True)]
    wrong = [p for p, ok in zip(prompts, right, strict=True) if not ok]
    return {"right": _share(right), "of": len(right), "wrong": wrong}


def things_colors(pipe: StableDiffusionPipeline) -> Report:
    """Ask for things in a colour; name the colour of what differs from the background."""
    things = ("cat", "dog", "car", "apple", "robot", "frog")
    colors = ("red", "green", "blue", "purple", "pink", "yellow")
    asked = [(t, c) for t in things for c in colors]
    pictures = draw.draw(pipe, [f"{article(c)} {t}" for t, c in asked], seed=700)
    right = []
    for picture, (_, color) in zip(pictures, asked, strict=True):
        tones, back = lab.from_rgb(picture), lab.from_rgb(np.median(_border(picture), 0))
        inside = np.linalg.norm(tones - back, axis=2) > 25
        inside &= tones[..., 0] > 25  # outlines and eyes keep their colour
        votes = picture[inside] if inside.any() else picture.reshape(-1, 3)
        right.append(nearest_color(votes) == color)
    return {"right": _share(right), "of": len(right)}


def recoloured(
    pipe: StableDiffusionPipeline, judge: classifier.Judge, names: list[str], work: Path, npm: Path
) -> Report:
    """Ask for each thing in two colours by lot and rank it; rank art in these colours too."""
    random, tints = np.random.default_rng(5), [c for c in COLORS if c not in GRAYS]
    asked = [(n, str(random.choice(tints))) for n in names for _ in range(2)]
    pictures = draw.draw(pipe, [f"{article(c)} {n}" for n, c in asked], seed=900)
    drawn = judge.ranks(pictures, [n for n, _ in asked])
    art, index = load_art(npm, work)
    rows = {a.concept: k for k, a in enumerate(index) if a.style == "3d"}
    shown = [(n, c) for n, c in asked if n in rows]
    specs = [Spec(art=(rows[n],), nouns=(n,), style="3d", tint=c) for n, c in shown]
    real = judge.ranks(np.stack([render(s, art, random) for s in specs]), [n for n, _ in shown])
    return {"of": len(asked), **_rates(drawn.tolist()), "art": _rates(real.tolist())}


def _halves(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut pictures into their left and right middle squares, (n, 64, 64, 3) each."""
    half, edge = pictures.shape[2] // 2, pictures.shape[1] // 4
    return pictures[:, edge:-edge, :half], pictures[:, edge:-edge, half:]


def composition(
    pipe: StableDiffusionPipeline, judge: classifier.Judge, names: list[str], count: int = 100
) -> Report:
    """Ask for two things side by side; both have to be found, one in each half.

    `names` are those that are taught in pairs.
    """
    random = np.random.default_rng(11)
    pairs = [tuple(random.choice(names, 2, replace=False).tolist()) for _ in range(count)]
    kinds = [("", "left", "next to", "right")[k % 4] for k in range(count)]
    prompts = [
        RELATIONS[k][0].format(article(a), article(b))
        for k, (a, b) in zip(kinds, pairs, strict=True)
    ]
    left, right = _halves(draw.draw(pipe, prompts, seed=1300))
    first, second = ([p[k] for p in pairs] for k in (0, 1))
    hit = {
        (side, k): judge.ranks(part, which) < CUTOFF
        for side, part in (("left", left), ("right", right))
        for k, which in enumerate((first, second))
    }
    straight = hit["left", 0] & hit["right", 1]
    crossed = hit["left", 1] & hit["right", 0]
    sides = [k for k, kind in enumerate(kinds) if kind in ("left", "right")]
    placed = [bool(crossed[k] if kinds[k] == "right" else straight[k]) for k in sides]
    both = straight | crossed
    return {"both found": _share(both.tolist()), "of": count, "on the side asked": _share(placed)}


def autoencoder(
    pipe: StableDiffusionPipeline, work: Path, npm: Path, photos: Path | None
) -> dict[str, float]:
    """Return the mean PSNR on held-out art and on photographs."""
    tests = {"art": vae.held_out(work, npm)}
    if photos is not None:
        tests["photos"] = vae.photographs(photos)
    return {
        k: round(float(training.psnr(vae.reconstruct(pipe.vae, v), vae.to_tensor(v)).mean()), 2)
        for k, v in tests.items()
    }


def speed(pipe: StableDiffusionPipeline) -> float:
    """Return the seconds that one picture takes, the best of three."""
    spent = []
    for _ in range(3):
        begun = time.monotonic()
        draw.draw(pipe, ["a photo of a cat"])
        spent.append(time.monotonic() - begun)
    return round(min(spent), 2)


def sizes(target: Path) -> dict[str, float]:
    """Return megabytes of the weights, of pocket-clip, of the largest file and of all of them."""
    files = {p: p.stat().st_size / 1e6 for p in target.rglob("*") if p.is_file()}
    total = {
        k: round(sum(s for p, s in files.items() if (target / k) in p.parents), 2)
        for k in ("weights", "clip")
    }
    biggest, whole = max(files.values()), sum(files.values())
    return total | {"largest file": round(biggest, 2), "all": round(whole, 2)}


def measure(work: Path, npm: Path, target: Path, photos: Path | None, only: str = "") -> Report:
    """Measure what `only` names (default: everything) and add it to WORK/report.json."""
    pipe, judge = draw.load(target / "weights"), classifier.Judge(work)
    names, first = known(judge, target), {c.name for c in DRAWN if c.tier == CHANGED}
    changed = [n for n in names if n in first]
    lcm = {"lcm": lambda: four_steps(target, judge, by_lot(names))}
    parts: dict[str, Callable[[], object]] = {
        "autoencoder": lambda: autoencoder(pipe, work, npm, photos),
        "classifier on held-out art": lambda: json.loads((work / classifier.OWN).read_text()),
        "recognition": lambda: recognition(pipe, judge, by_lot(names)),
        "backgrounds": lambda: backgrounds(pipe),
        "colours of things": lambda: things_colors(pipe),
        "composition": lambda: composition(pipe, judge, changed),
        "recoloured": lambda: recoloured(pipe, judge, changed, work, npm),
        "seconds a picture": lambda: speed(pipe),
        "megabytes": lambda: sizes(target),
        **(lcm if (target / "lcm").is_dir() else {}),
    }
    report: Report = {}
    for name in [only] if only else parts:
        report = add(work, name, parts[name]())
    return report


def add(work: Path, name: str, value: object) -> Report:
    """Put a figure into WORK/report.json; return the whole report."""
    path = work / "report.json"
    report: Report = json.loads(path.read_text()) if path.exists() else {}
    report[name] = value
    path.write_text(json.dumps(report, indent=1) + "\n")
    return report
