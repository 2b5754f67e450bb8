"""Measure what the variants and the other sizes are for, drawn by tintype itself.

The models are those that tintype has embedded: export first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tintype.generation.engine import draw_many
from tintype.models.load import load
from tintype.models.model import Model
from tintype.types import ControlOptions, GeneratedImage, GenerateRequest

from . import cache, classifier, draw, evaluate, variants
from .captions import article
from .compose import Spec, render
from .data import Art, load_art
from .vae import to_tensor

COUNT = 32  # concepts for each mode
PLACES = ("grass", "beach", "red", "blue")
BOX = (16, 16, 112, 112)  # what inpainting has to fill: where a thing stands
CORNER = 16  # px of the box's corners, where the place is to go on behind the thing
REACH = 5  # an edge within 2 px of another is found
MOVED = (10, -9)  # px, downwards and to the right


def _drawn(model: Model, names: list[str], **settings: object) -> np.ndarray:
    """Draw each concept once; settings that are lists have one value for each."""
    requests = [
        GenerateRequest(
            prompt=f"a photo of {article(name)}",
            seed=100 + k,
            steps=draw.STEPS,
            guidance_scale=draw.GUIDANCE,
            **{key: v[k] if isinstance(v, list) else v for key, v in settings.items()},
        )
        for k, name in enumerate(names)
    ]
    found = [e for e in draw_many(model, requests) if isinstance(e, GeneratedImage)]
    return np.stack([np.asarray(e.image) for e in sorted(found, key=lambda e: e.index)])


def _top5(judge: classifier.Judge, pictures: np.ndarray, names: list[str]) -> float:
    """The share of pictures whose own concept is in the first five, by their middle squares."""
    height, width = pictures.shape[1:3]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    ranks = judge.ranks(pictures[:, y : y + side, x : x + side], names)
    return round(float((ranks < evaluate.CUTOFF).float().mean()), 3)


def sizes(judge: classifier.Judge, names: list[str]) -> evaluate.Report:
    """Draw the same concepts at every size."""
    pocket = load("pocket", device="cpu")
    names = evaluate.by_lot(names, COUNT)
    return {
        f"{w}x{h}": _top5(judge, _drawn(pocket, names, width=w, height=h), names)
        for w, h in (cache.SQUARE, *cache.SIZES)
    }


def xl(judge: classifier.Judge, names: list[str]) -> evaluate.Report:
    """Draw the concepts that the base is measured with."""
    names = evaluate.by_lot(names)
    return {"top5": _top5(judge, _drawn(load("pocket-xl", device="cpu"), names), names)}


def _compose(npm: Path, work: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Compose a thing of each name on white, and an empty place for each, (n, 128, 128, 3)."""
    art, index = load_art(npm, work)
    rng, things, places = np.random.default_rng(17), [], []
    for k, name in enumerate(names):
        row = index.index(next(a for a in index if _is_3d(a, name)))
        things.append(render(Spec(art=(row,), nouns=(name,), style="3d"), art, rng))
        nothing = np.zeros_like(art[:1])
        spec = Spec(art=(0,), nouns=("",), style="", background=PLACES[k % len(PLACES)])
        places.append(render(spec, nothing, rng))
    return np.stack(things), np.stack(places)


def _is_3d(art: Art, name: str) -> bool:
    return art.concept == name and art.style == "3d"


def _files(folder: Path, pictures: np.ndarray) -> list[str]:
    paths = [folder / f"{k}.png" for k in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return [str(path) for path in paths]


def inpainting(work: Path, npm: Path, judge: classifier.Judge, names: list[str]) -> evaluate.Report:
    """Put things into empty places, with the variant and with the base; both keep what is left.

    Besides the share recognised, how far the corners of what was filled in are from the place that
    was there, of 255.
    """
    names = evaluate.by_lot(names, COUNT)
    _, places = _compose(npm, work, names)
    mask = Image.new("L", (128, 128))
    mask.paste(255, BOX)
    report: evaluate.Report = {}
    with tempfile.TemporaryDirectory() as folder:
        mask.save(Path(folder) / "mask.png")
        settings = {"image": _files(Path(folder), places), "mask": str(Path(folder) / "mask.png")}
        for model in ("pocket-inpainting", "pocket"):
            drawn = _drawn(load(model, device="cpu"), names, strength=1.0, **settings)
            top5, off = _top5(judge, drawn, names), _off(drawn, places)
            report[model] = {"top5": top5, "corners off by": off}
    return report


def _off(drawn: np.ndarray, places: np.ndarray) -> float:
    """The mean difference in the corners of BOX of pictures (n, h, w, 3), of 255."""
    left, top, right, bottom = BOX
    x = np.r_[left : left + CORNER, right - CORNER : right]
    y = np.r_[top : top + CORNER, bottom - CORNER : bottom]
    apart = np.abs(drawn.astype(int) - places)
    return round(float(apart[:, y][:, :, x].mean()), 1)


def _found(lines: torch.Tensor, others: torch.Tensor) -> float:
    """The share of lines that have one of the others within two pixels."""
    near = functional.max_pool2d(others, REACH, 1, REACH // 2)
    return float((lines * near).sum() / lines.sum())


def canny(work: Path, npm: Path, net: Path, names: list[str]) -> evaluate.Report:
    """Draw things along the edges of others of their kind: F1 of edges, with `net` and without.

    Those are as the base has learnt them, and then mirrored and moved.
    """
    names = evaluate.by_lot(names, COUNT)
    things, _ = _compose(npm, work, names)
    moved = np.roll(things[:, :, ::-1], MOVED, (1, 2)).copy()
    return {
        "as learnt": _followed(net, names, things),
        "mirrored and moved": _followed(net, names, moved),
    }


def _followed(net: Path, names: list[str], things: np.ndarray) -> dict[str, float]:
    wanted = variants.edges(to_tensor(things))[:, :1]
    hints = (wanted[:, 0, :, :, None].expand(-1, -1, -1, 3) * 255).byte().numpy()
    pocket, report = load("pocket", device="cpu"), {}
    with tempfile.TemporaryDirectory() as folder:
        control = [
            (ControlOptions(model=str(net), image=file),) for file in _files(Path(folder), hints)
        ]
        for how, settings in (("with", {"control": control}), ("without", {})):
            got = variants.edges(to_tensor(_drawn(pocket, names, **settings)))[:, :1]
            there, kept = _found(got, wanted), _found(wanted, got)
            report[how] = round(2 * there * kept / (there + kept), 3)
    return report
