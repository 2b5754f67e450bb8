"""Train the UNet on cached latents and cached text embeddings."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

from . import clip, linear, tokenizer, training, vae
from .compose import Chooser, caption, render
from .data import load_art

EMPTY = 0.1  # share of captions dropped, for guidance
CAPTIONS = 2  # captions kept for each picture


def make() -> UNet2DConditionModel:
    """Build the UNet: two levels, 8x8 and 4x4, both with cross-attention."""
    levels = (128, 160)
    return UNet2DConditionModel(
        sample_size=128 // vae.FACTOR,
        in_channels=vae.LATENTS,
        out_channels=vae.LATENTS,
        block_out_channels=levels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=clip.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Return the noise schedule: v-prediction, hardly any signal left at the end."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )


@torch.no_grad()
def _encode(work: Path, npm: Path, first: int, count: int, seed: int) -> None:
    """Write one part of the cache: latents (n, 24, 8, 8), captions and the share of pairs."""
    torch.set_num_threads(1)
    art, index = load_art(npm, work)
    choose, rng = Chooser(index), np.random.default_rng(seed)
    model, where = vae.load(work).to(training.device()), training.device()
    latents, captions = [], []
    for _ in range(first, first + count, 32):
        specs = [choose(rng) for _ in range(32)]
        pixels = np.stack([render(s, art, rng) for s in specs])
        mean = linear.encode(model, vae.to_tensor(pixels).to(where))
        latents.append(mean.half().cpu().numpy())
        captions += [[caption(s, rng) for _ in range(CAPTIONS)] for s in specs]
    np.save(work / f"latents-{first}.npy", np.concatenate(latents))
    (work / f"captions-{first}.json").write_text(json.dumps(captions))


def _encode_worker(rank: int, work: str, npm: str, count: int) -> None:
    _encode(Path(work), Path(npm), rank * count, count, 100 + rank)


def cache_latents(work: Path, npm: Path, count: int, workers: int) -> None:
    """Compose, encode and caption pictures, once, into WORK/cache-latents and cache-rows."""
    share = -(-count // workers // 32) * 32
    torch.multiprocessing.spawn(_encode_worker, (str(work), str(npm), share), nprocs=workers)
    parts = [r * share for r in range(workers)]
    latents = np.concatenate([np.load(work / f"latents-{p}.npy") for p in parts])
    captions = [c for p in parts for c in json.loads((work / f"captions-{p}.json").read_text())]
    np.save(work / "cache-latents.npy", latents)
    unique = ["", *sorted({c for group in captions for c in group})]
    number = {c: i for i, c in enumerate(unique)}
    np.save(work / "cache-rows.npy", np.array([[number[c] for c in g] for g in captions], np.int32))
    (work / "cache-captions.json").write_text(json.dumps(unique))


@torch.no_grad()
def cache_words(work: Path) -> None:
    """Embed the captions, once, into WORK/cache-words."""
    unique = json.loads((work / "cache-captions.json").read_text())
    tokens, encoder = tokenizer.load(work), clip.text_encoder(work).to(training.device())
    shape = (len(unique), tokenizer.LENGTH, clip.WIDTH)
    words = np.lib.format.open_memmap(work / "cache-words.npy", "w+", np.float16, shape)
    for i in range(0, len(unique), 256):
        ids = clip.tokens_of(tokens, unique[i : i + 256]).to(training.device())
        words[i : i + 256] = encoder(ids).last_hidden_state.half().cpu().numpy()
    words.flush()


class Cache:
    """The cached latents, scaled to unit deviation, and the text embeddings."""

    def __init__(self, work: Path, seed: list[int], only: int = 0) -> None:
        self.latents = np.load(work / "cache-latents.npy")[: only or None]
        self.rows = np.load(work / "cache-rows.npy")[: only or None]
        self.words = np.load(work / "cache-words.npy", mmap_mode="r")
        self.scale = scaling_factor(work)
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return latents (n, 24, 8, 8) and text embeddings (n, 32, 192)."""
        picks = self.rng.integers(0, len(self.latents), size)
        rows = self.rows[picks, self.rng.integers(0, CAPTIONS, size)]
        rows = np.where(self.rng.random(size) < EMPTY, 0, rows)
        latents = torch.from_numpy(self.latents[picks]).float() * self.scale
        return latents, torch.from_numpy(self.words[rows]).float()


def scaling_factor(work: Path) -> float:
    """Return 1 / deviation of the cached latents, rounded."""
    latents = np.load(work / "cache-latents.npy", mmap_mode="r")[:4096].astype(np.float32)
    return round(float(1 / latents.std()), 4)


def loss_of(
    model: UNet2DConditionModel, x: Tensor, words: Tensor, alphas: Tensor, t: Tensor
) -> Tensor:
    """Return the error of the predicted velocity at timesteps t (n,)."""
    noise = torch.randn_like(x)
    a = alphas[t].sqrt()[:, None, None, None]
    s = (1 - alphas[t]).sqrt()[:, None, None, None]
    with training.autocast():
        out = model(a * x + s * noise, t, words).sample
    return functional.mse_loss(out.float(), a * noise - s * x)


def _timesteps(size: int) -> Tensor:
    """Draw timesteps (n,) spread evenly over the batch."""
    spread = (torch.randperm(size) + torch.rand(size)) / size
    return (spread * 1000).long().clamp(max=999)


def _train(rank: int, work: Path, minutes: float, name: str, only: int) -> None:
    where = training.device()
    model, path = make().to(where), work / f"{name}.pt"
    clock = training.Clock(minutes, peak=1e-3, floor=2e-5, decay_from=0.55)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-3, fused=True)
    ema, step, drawn = training.Ema(model, 0.999), 0, 0
    if state := training.load(path):
        model.load_state_dict(state["model"])
        ema.model.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        step, clock.spent, drawn = state["step"], state["spent"], state["samples"]
    else:
        training.average(model)
        ema = training.Ema(model, 0.999)
    torch.manual_seed(1000 * step + rank)
    data, alphas = Cache(work, [step, rank], only), scheduler().alphas_cumprod.to(where)
    batch = 32 if where.type == "cpu" else 512
    losses: list[float] = []
    workers, saved = training.world(), clock.spent
    begun, first = time.monotonic(), drawn
    progress = training.agree(clock.progress)
    while progress < 1:
        x, words = (part.to(where) for part in data.batch(batch))
        for group in optimizer.param_groups:
            group["lr"] = clock.lr(step)
        loss = loss_of(model, x, words, alphas, _timesteps(batch).to(where))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, drawn = step + 1, drawn + batch * workers
        losses = [*losses[-199:], loss.item()]
        clock.tick()
        if step % 8 == 0:
            training.average(model)
            progress = training.agree(clock.progress)
        ema.update(model, step)
        if rank == 0 and (clock.spent - saved > 60 or progress >= 1):
            saved, rate = clock.spent, (drawn - first) / (time.monotonic() - begun)
            text = f"unet {step} {progress:.3f} loss {np.mean(losses):.4f}"
            print(f"{text} {drawn} samples {rate:.0f}/s", flush=True)
            training.save(
                path,
                model=model.state_dict(),
                ema=ema.model.state_dict(),
                optimizer=optimizer.state_dict(),
                step=step,
                spent=clock.spent,
                samples=drawn,
            )


def train(work: Path, minutes: float, workers: int, name: str = "unet", only: int = 0) -> None:
    """Train until the budget is spent; runs again from its last checkpoint."""
    training.launch(_train, workers, 29612, work, minutes, name, only)


def load(work: Path, name: str = "unet") -> UNet2DConditionModel:
    """Return the trained UNet (the moving average)."""
    model = make()
    model.load_state_dict(training.load(work / f"{name}.pt")["ema"])
    return model.eval().requires_grad_(False)
