"""Compose pictures once: their latents, captions and, for some, pixels, by size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import clip, linear, tokenizer, training, vae
from .compose import USUAL, Chooser, Shares, caption, render
from .concepts import TIERS
from .data import load_art

Size = tuple[int, int]  # width, height in px

EMPTY = 0.1  # share of captions dropped, for guidance
CAPTIONS = 2  # captions kept for each picture
SQUARE: Size = (128, 128)
# The further sizes: smaller and larger squares, and pictures of 2:3 and 3:2.
SIZES: tuple[Size, ...] = (
    *((96, 96), (160, 160), (192, 192)),
    *((96, 144), (128, 192), (144, 96), (192, 128)),
)


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


@torch.no_grad()
def _compose(
    rank: int, work: str, npm: str, size: Size, count: int, keep: int, seed: int, shares: Shares
) -> None:
    """Write one worker's part: latents, captions, and the first `keep` pictures."""
    torch.set_num_threads(1)
    folder = Path(work)
    art, index = load_art(Path(npm), folder)
    choose, rng = Chooser(index, tiers(folder)), np.random.default_rng([seed, rank, *size])
    model = vae.load(folder)
    latents, captions, pixels = [], [], []
    for first in range(0, count, 32):
        specs = [choose(rng, shares) for _ in range(min(32, count - first))]
        pictures = np.stack([render(s, art, rng, size=size) for s in specs])
        latents.append(linear.encode(model, vae.to_tensor(pictures)).half().numpy())
        captions += [[caption(s, rng) for _ in range(CAPTIONS)] for s in specs]
        if first < keep:
            pixels.append(pictures)
    part = folder / "cache" / f"part-{rank}"
    part.mkdir(parents=True, exist_ok=True)
    np.save(part / "latents.npy", np.concatenate(latents))
    if pixels:
        np.save(part / "pixels.npy", np.concatenate(pixels))
    (part / "captions.json").write_text(json.dumps(captions))


def make(
    work: Path,
    npm: Path,
    size: Size,
    count: int,
    workers: int,
    keep: int = 0,
    seed: int = 100,
    shares: Shares = USUAL,
) -> None:
    """Compose `count` pictures of a size into WORK/cache/WxH; `keep` of them keep their pixels."""
    target = work / "cache" / _name(size)
    if (target / "captions.json").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    share, kept = -(-count // workers), -(-keep // workers)
    args = (str(work), str(npm), size, share, kept, seed, shares)
    torch.multiprocessing.spawn(_compose, args, nprocs=workers)
    parts = [work / "cache" / f"part-{rank}" for rank in range(workers)]
    if keep:  # pixels are numbered by the rows of the latents, so every worker's come first
        pixels = [np.load(p / "pixels.npy", mmap_mode="r") for p in parts]
        np.save(target / "pixels.npy", np.concatenate(pixels))
        rows = [k * share + np.arange(len(p)) for k, p in enumerate(pixels)]
        np.save(target / "pixel-rows.npy", np.concatenate(rows).astype(np.int64))
    np.save(target / "latents.npy", np.concatenate([np.load(p / "latents.npy") for p in parts]))
    captions = [c for p in parts for c in json.loads((p / "captions.json").read_text())]
    for part in parts:
        for path in part.iterdir():
            path.unlink()
        part.rmdir()
    (target / "captions.json").write_text(json.dumps(captions))


@torch.no_grad()
def _embed(rank: int, work: str, first: int, workers: int) -> None:
    torch.set_num_threads(1)
    folder = Path(work)
    unique = json.loads((folder / "cache/unique.json").read_text())
    tokens, encoder = tokenizer.load(folder), clip.text_encoder(folder)
    words = np.load(folder / "cache/words.part.npy", mmap_mode="r+")
    for i in range(first + 256 * rank, len(unique), 256 * workers):
        ids = clip.tokens_of(tokens, unique[i : i + 256])
        words[i : i + 256] = encoder(ids).last_hidden_state.half().numpy()
    words.flush()


def embed(work: Path, workers: int) -> None:
    """Number the captions of all sizes; on a CPU, embed each once, which saves time later.

    What was numbered and embedded before stays so: sizes can be added.
    """
    folder = work / "cache"
    kept, finished, part = (folder / n for n in ("unique.json", "words.npy", "words.part.npy"))
    unique = numbered(work) if kept.exists() else [""]
    groups = {p.parent: json.loads(p.read_text()) for p in sorted(folder.glob("*x*/captions.json"))}
    said = {c for captions in groups.values() for group in captions for c in group}
    if new := sorted(said - set(unique)):
        unique += new
        (folder / "ids.npy").unlink(missing_ok=True)
    number = {c: i for i, c in enumerate(unique)}
    for path, captions in groups.items():
        rows = np.array([[number[c] for c in group] for group in captions], np.int64)
        np.save(path / "rows.npy", rows)
    kept.write_text(json.dumps(unique))
    if training.device().type == "cuda":
        return
    before = np.load(finished, mmap_mode="r") if finished.exists() else np.empty(0)
    if len(before) == len(unique):
        return
    shape = (len(unique), tokenizer.LENGTH, clip.WIDTH)
    words = np.lib.format.open_memmap(part, "w+", np.float16, shape)
    if len(before):
        words[: len(before)] = before
    words.flush()
    torch.multiprocessing.spawn(_embed, (str(work), len(before), workers), nprocs=workers)
    part.rename(finished)


def numbered(work: Path) -> list[str]:
    """Return the captions in the order of their numbers; the first is empty."""
    unique: list[str] = json.loads((work / "cache/unique.json").read_text())
    return unique


def scaling_factor(work: Path) -> float:
    """Return 1 / deviation of the first cached latents, rounded; it is measured once."""
    kept = work / "scaling.txt"
    if not kept.exists():
        latents = np.load(work / "cache" / _name(SQUARE) / "latents.npy", mmap_mode="r")
        kept.write_text(f"{1 / latents[:4096].astype(np.float32).std():.4f}\n")
    return float(kept.read_text())


def tiers(work: Path) -> dict[str, float]:
    """Return the shares of the tiers that are taught in this work folder: see `teach`."""
    path = work / "tiers.json"
    return dict(json.loads(path.read_text())) if path.exists() else TIERS


def teach(work: Path, shares: dict[str, float]) -> None:
    """Choose what is composed from here on, and what concepts.json will tell."""
    (work / "tiers.json").write_text(json.dumps(shares) + "\n")


class Text:
    """Embeddings of the cached captions by number: looked up, or computed where that is quick."""

    def __init__(self, work: Path, where: torch.device) -> None:
        kept, self.encoder, self.ids = work / "cache/words.npy", None, torch.empty(0)
        self.words = torch.from_numpy(np.load(kept, mmap_mode="r+")) if kept.exists() else None
        self.where = where
        if self.words is None:
            self.encoder = clip.text_encoder(work).to(where)
            self.ids = token_ids(work).to(where)

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return embeddings (n, 32, 192) of captions (n,)."""
        if self.encoder is None:
            assert self.words is not None
            return self.words[rows.cpu()].float().to(self.where)
        with training.autocast():
            return self.encoder(self.ids[rows].long()).last_hidden_state.float()


def token_ids(work: Path) -> Tensor:
    """Return the cached captions' token ids (n, 32), int16."""
    path = work / "cache/ids.npy"
    if not path.exists():
        unique, tokens = numbered(work), tokenizer.load(work)
        parts = [clip.tokens_of(tokens, unique[i : i + 8192]) for i in range(0, len(unique), 8192)]
        np.save(path, torch.cat(parts).to(torch.int16).numpy())
    return torch.from_numpy(np.load(path))


class Latents:
    """Cached latents of one or more sizes, on the device, scaled to unit deviation."""

    def __init__(
        self, work: Path, where: torch.device, sizes: tuple[Size, ...], seed: int, every: int = 3
    ) -> None:
        """One turn in `every` is of another size than the first one."""
        self.parts: list[tuple[Tensor, Tensor]] = []
        for size in sizes:
            folder = work / "cache" / _name(size)
            latents = torch.from_numpy(np.load(folder / "latents.npy", mmap_mode="r+"))
            rows = torch.from_numpy(np.load(folder / "rows.npy"))
            self.parts.append((latents.to(where), rows.to(where)))
        self.scale, self.where, self.every = scaling_factor(work), where, every
        self.random = torch.Generator(where).manual_seed(seed)

    def _below(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self.random, device=self.where)

    def batch(self, count: int, turn: int = 0) -> tuple[Tensor, Tensor]:
        """Return latents (n, c, h, w) and caption numbers (n,), of the turn's size."""
        rounds, place = divmod(turn, self.every)
        other = rounds % max(len(self.parts) - 1, 1) + 1 if place == self.every - 1 else 0
        latents, rows = self.parts[min(other, len(self.parts) - 1)]
        picks = self._below(len(latents), count)
        chosen = rows[picks, self._below(rows.shape[1], count)]
        dropped = torch.rand(count, generator=self.random, device=self.where) < EMPTY
        return latents[picks].float() * self.scale, torch.where(dropped, 0, chosen)


class Pictures:
    """Cached pictures of 128 x 128 px with their captions, and the encoder for them."""

    def __init__(self, work: Path, where: torch.device, seed: int) -> None:
        folder = work / "cache" / _name(SQUARE)
        self.pixels = torch.from_numpy(np.load(folder / "pixels.npy", mmap_mode="r+")).to(where)
        rows = np.load(folder / "rows.npy")[np.load(folder / "pixel-rows.npy")]
        self.rows, self.where = torch.from_numpy(rows).to(where), where
        self.coder, self.scale = vae.load(work).to(where), scaling_factor(work)
        self.random = torch.Generator(where).manual_seed(seed)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return pictures (n, 3, 128, 128) in -1..1 and caption numbers (n,)."""
        picks = torch.randint(len(self.pixels), (count,), generator=self.random, device=self.where)
        x = self.pixels[picks].permute(0, 3, 1, 2).float() / 127.5 - 1
        rows = self.rows[picks, picks % self.rows.shape[1]]
        dropped = torch.rand(count, generator=self.random, device=self.where) < EMPTY
        return x, torch.where(dropped, 0, rows)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return scaled latents (n, c, 8, 8)."""
        return linear.encode(self.coder, x) * self.scale
