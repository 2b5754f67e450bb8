"""Carry the art to a machine without a network, and results back: small files, in shards."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import training
from .data import load_art, load_photos

QUALITY = 92  # of the WebP pictures: about 3 KB each
SHARD = 14_500_000
LANDED = "landed.json"  # names of the trainings that came home from a plan
PHOTO_SIDE = 512


def _webp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def _thinned(photo: np.ndarray) -> np.ndarray:
    image = Image.fromarray(photo)
    image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    return np.asarray(image)


def _member(file: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.addfile(info, io.BytesIO(data))


def carried(work: Path, progress: tuple[str, ...]) -> list[Path]:
    """Return the files that tell how far those of the trainings are which `land` brought home.

    What was trained here doesn't count for a plan elsewhere, which goes on from the weights.
    """
    path = work / LANDED
    landed = json.loads(path.read_text()) if path.exists() else ()
    return [file for n in progress if n in landed and (file := work / f"{n}.json").exists()]


def pack(npm: Path, work: Path, target: Path, progress: tuple[str, ...] = ()) -> float:
    """Write art, photographs, tokenizer and how far a plan's trainings are into one file.

    Returns its MB. Only art of named concepts goes along. The held-out characters stay behind.
    """
    art, index = load_art(npm, work)
    kept = [i for i, a in enumerate(index) if a.concept]
    rows = json.loads((work / "art.json").read_text())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as file:
        _member(file, "art.json", json.dumps([rows[i] for i in kept]).encode())
        for k, i in enumerate(kept):
            _member(file, f"art/{k:05d}.webp", _webp(art[i]))
        for k, photo in enumerate(load_photos()):
            _member(file, f"photos/{k:02d}.webp", _webp(_thinned(photo)))
        for path in sorted((work / "tokenizer").iterdir()):
            _member(file, f"tokenizer/{path.name}", path.read_bytes())
        for path in [work / "scaling.txt", *carried(work, progress)]:
            if path.exists():
                _member(file, path.name, path.read_bytes())
    return target.stat().st_size / 1e6


def unpack(source: Path, work: Path) -> None:
    """Lay out a packed archive as a work folder; nothing is done where that has been done."""
    if (work / "art.npy").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as file:
        file.extractall(work, filter="data")
    paths = sorted((work / "art").glob("*.webp"))
    pixels = np.stack([np.asarray(Image.open(p).convert("RGBA")) for p in paths])
    np.save(work / "art.npy", pixels)
    shutil.rmtree(work / "art")


def collect(work: Path, names: tuple[str, ...], folder: Path) -> list[Path]:
    """Write the averaged weights, in half precision, and the logs as shards below 15 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "results.tar"
    with tarfile.open(whole, "w") as file:
        for name in names:
            state = training.load(work / f"{name}.pt")
            if state is None:
                continue
            kept = {k: v for k, v in state["ema"].items() if name != "lcm" or "lora_" in k}
            halves = {k: v.half() if v.is_floating_point() else v for k, v in kept.items()}
            facts = {k: state[k] for k in ("step", "spent", "samples") if k in state}
            buffer = io.BytesIO()
            payload: dict[str, Any] = {"model": halves, "ema": halves} | facts
            torch.save(payload, buffer)
            _member(file, f"{name}.pt", buffer.getvalue())
        for path in sorted([*work.glob("log-*.jsonl"), *work.glob("*.txt"), *work.glob("*.json")]):
            if path.name != "art.json":
                _member(file, path.name, path.read_bytes())
    parts = []
    data = whole.read_bytes()
    for k in range(0, len(data), SHARD):
        part = folder / f"results-{k // SHARD:02d}.part"
        part.write_bytes(data[k : k + SHARD])
        parts.append(part)
    whole.unlink()
    return parts


def land(folder: Path, work: Path) -> list[str]:
    """Put shards together again and lay the checkpoints into a work folder, in float32."""
    data = b"".join(p.read_bytes() for p in sorted(folder.glob("results-*.part")))
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        names = file.getnames()
        file.extractall(work, filter="data")
    for path in work.glob("*.pt"):
        if path.name in names:
            state = torch.load(path, map_location="cpu", weights_only=False)
            for part in ("model", "ema"):
                state[part] = {
                    k: v.float() if v.is_floating_point() else v for k, v in state[part].items()
                }
            training.save(path, **state)
    landed = sorted(Path(name).stem for name in names if name.endswith(".pt"))
    (work / LANDED).write_text(json.dumps(landed) + "\n")
    return names
