"""Measure the exported model: recognition, backgrounds, autoencoder, speed, size."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont
from skimage.color import rgb2lab

from . import classifier, draw, training, vae
from .compose import _article
from .concepts import COLORS, DRAWN

CUTOFF = 5


def _border_color(picture: np.ndarray) -> str:
    """Name the colour nearest to the median of a picture's outer 8 pixels, in Lab."""
    mask = np.ones(picture.shape[:2], bool)
    mask[8:-8, 8:-8] = False
    median = np.median(picture[mask], 0)
    lab = rgb2lab(np.float32([median, *COLORS.values()])[:, None] / 255)[:, 0]
    return list(COLORS)[int(np.linalg.norm(lab[1:] - lab[0], axis=1).argmin())]


def recognition(pipe: StableDiffusionPipeline, work: Path) -> dict[str, object]:
    """Draw each concept once and rank it with the classifier."""
    names = [c.name for c in DRAWN]
    pictures = draw.draw(pipe, [f"a photo of {_article(n)}" for n in names], seed=100)
    ranks = classifier.ranks(work, pictures, names).tolist()
    missed = [n for n, r in zip(names, ranks, strict=True) if r >= CUTOFF]
    rate = {k: round(float(np.mean(np.array(ranks) < k)), 3) for k in (1, CUTOFF)}
    return {"concepts": len(names), "top1": rate[1], "top5": rate[CUTOFF], "missed": missed}


def backgrounds(pipe: StableDiffusionPipeline) -> dict[str, object]:
    """Ask for each colour behind five concepts and name the colour that came."""
    things = ("cat", "dog", "car", "robot", "star")
    asked = [(t, c) for t in things for c in COLORS]
    prompts = [f"{_article(t)} on {_article(c)} background" for t, c in asked]
    pictures = draw.draw(pipe, prompts, seed=500)
    right = [_border_color(p) == c for p, (_, c) in zip(pictures, asked, strict=True)]
    wrong = [p for p, ok in zip(prompts, right, strict=True) if not ok]
    return {"right": round(float(np.mean(right)), 3), "of": len(right), "wrong": wrong}


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
    """Return megabytes of the weights, of pocket-clip and of the largest file."""
    files = {p: p.stat().st_size / 1e6 for p in target.rglob("*") if p.is_file()}
    total = {
        k: round(sum(s for p, s in files.items() if (target / k) in p.parents), 2)
        for k in ("weights", "clip")
    }
    return total | {"largest file": round(max(files.values()), 2)}


SHEET = (
    *("a photo of a cat", "a photo of a dog", "a photo of a duck", "a photo of a robot"),
    *("a photo of a teddy bear", "a photo of a toy car", "a photo of a fox", "a photo of a panda"),
    *("a 3d cat", "a flat cat", "a noto cat", "a 3d dog", "a flat dog", "a noto dog"),
    *("a 3d robot", "a noto robot"),
    *("a cat on a red background", "a cat on a blue background", "a dog on a green background"),
    *("a dog on a yellow background", "a star on a purple background"),
    *("a heart on a black background", "a car on a pink background"),
    *("a robot on an orange background", "a cat on the beach", "a dog in the snow"),
    *("a duck on the water", "a bear in the jungle", "a robot in a city", "a fox on grass"),
    *("an owl at night", "a penguin in the snow"),
    *("a photo of a lion", "a photo of a tiger", "a photo of a rabbit", "a photo of a pig"),
    *("a photo of a frog", "a photo of a unicorn", "a photo of a butterfly"),
    *("a photo of a turtle", "a photo of an apple", "a photo of a banana"),
    *("a photo of a strawberry", "a photo of a watermelon", "a photo of a pizza"),
    *("a photo of a burger", "a photo of a cake", "a photo of a donut", "a photo of a sun"),
    *("a photo of a tree", "a photo of a cactus", "a photo of a sunflower"),
    *("a photo of a mushroom", "a photo of a snowman", "a photo of a car", "a photo of a rocket"),
    *("a photo of an airplane", "a photo of a house", "a photo of a soccer ball"),
    *("a photo of a balloon", "a photo of a gift", "a photo of a backpack"),
    *("a photo of a clock", "a photo of a ghost"),
)


def sheet(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Draw 64 labelled pictures in one."""
    pictures = draw.draw(pipe, list(SHEET), seed=900)
    page = Image.new("RGB", (8 * 132, 8 * 144), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(9)
    for k, (picture, prompt) in enumerate(zip(pictures, SHEET, strict=True)):
        x, y = k % 8 * 132 + 2, k // 8 * 144 + 2
        page.paste(Image.fromarray(picture), (x, y))
        pen.text((x, y + 128), prompt[:30], fill="black", font=font)
    page.quantize(256).save(path, optimize=True)


def measure(
    work: Path, npm: Path, target: Path, photos: Path | None, page: Path | None = None
) -> dict[str, object]:
    """Measure everything and write WORK/report.json."""
    pipe = draw.load(target / "weights")
    own = training.load(work / "classifier.pt") or {}
    report: dict[str, object] = {
        "autoencoder psnr": autoencoder(pipe, work, npm, photos),
        "classifier on held-out art": own.get("own"),
        "recognition": recognition(pipe, work),
        "backgrounds": backgrounds(pipe),
        "seconds a picture": speed(pipe),
        "megabytes": sizes(target),
    }
    (work / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    if page is not None:
        sheet(pipe, page)
    return report
