"""Train the autoencoder: 128 px pictures to 48 x 8 x 8 latents."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from . import linear, training
from .compose import alone, anything
from .data import load_art, load_photos
from .fit import Plan, fit

LATENTS, FACTOR = 48, 16
NOISE = 0.06  # of the latents that the decoder learns from


def make(latents: int = LATENTS) -> AutoencoderKL:
    """Build the autoencoder: 128 px to 8 px."""
    levels = (16, 32, 64, 128, 128)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        block_out_channels=levels,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,
        force_upcast=False,
    )


def start(work: Path, npm: Path, count: int = 300) -> AutoencoderKL:
    """Build the autoencoder in closed form: see `linear`."""
    torch.manual_seed(0)
    model = make()
    x = to_tensor(pool(work, npm, count, seed=3))
    features = linear.fit_encoder(model, x)
    with torch.no_grad():
        z = torch.cat([model.encode(part).latent_dist.mean for part in x.split(16)])
    linear.fit_decoder(model, features, z)
    return model


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Turn (n, h, w, 3) uint8 into (n, 3, h, w) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def pool(work: Path, npm: Path, count: int, seed: int, held_out: bool = False) -> np.ndarray:
    """Compose pictures without captions, half of one thing, (count, 128, 128, 3) uint8."""
    art, index = load_art(npm, work)
    rows = np.array([i for i, a in enumerate(index) if a.held_out == held_out])
    rng, photos = np.random.default_rng(seed), load_photos(work)
    return np.stack(
        [alone(art, rows, rng) if k % 2 else anything(art, rows, photos, rng) for k in range(count)]
    )


def held_out(work: Path, npm: Path) -> np.ndarray:
    """Return held-out art on plain colours and scenes, (n, 128, 128, 3) uint8.

    Only of the concepts that were told from the beginning: the published decoder has seen some of
    the others.
    """
    from .compose import Spec, render
    from .concepts import COLORS, FIRST, SCENES

    art, index = load_art(npm, work)
    names = {c.name for c in FIRST}
    rows = [i for i, a in enumerate(index) if a.held_out and a.concept in names]
    rng, places = np.random.default_rng(5), [*COLORS, *SCENES]
    specs = [
        Spec(art=(r,), nouns=("",), style="", background=places[k % len(places)])
        for k, r in enumerate(rows)
    ]
    return np.stack([render(s, art, rng) for s in specs])


def photographs(folder: Path) -> np.ndarray:
    """Return centre-cropped photographs of a folder tree, (n, 128, 128, 3) uint8; measured only."""
    from PIL import Image, ImageOps

    files = sorted(folder.glob("*/*.jpg"))
    return np.stack(
        [np.asarray(ImageOps.fit(Image.open(f).convert("RGB"), (128, 128))) for f in files]
    )


def _crops(pictures: np.ndarray, batch: int, side: int, rng: np.random.Generator) -> Tensor:
    """Cut random crops, flipped and with permuted colours now and then."""
    out = np.empty((batch, side, side, 3), np.uint8)
    for k in range(batch):
        y, x = rng.integers(0, 128 - side + 1, 2)
        crop = pictures[rng.integers(len(pictures)), y : y + side, x : x + side]
        crop = crop[:, :: rng.choice((-1, 1))]
        out[k] = crop[..., rng.permutation(3)] if rng.random() < 0.2 else crop
    return to_tensor(out)


def _gradients(x: Tensor, y: Tensor) -> Tensor:
    """Compare the gradients of two pictures at three scales."""
    total = x.new_zeros(())
    for _ in range(3):
        d = x - y
        total = total + d.diff(dim=2).abs().mean() + d.diff(dim=3).abs().mean()
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return total


def decoder_loss(model: AutoencoderKL, x: Tensor) -> Tensor:
    """Reconstruction, gradients and colour, from latents with a little noise.

    Of each picture's squared error the logarithm counts too, as in PSNR, so that those that are
    nearly right go on getting better.
    """
    z = linear.encode(model, x)
    with training.autocast():
        y = model.decode(z + NOISE * torch.randn_like(z)).sample.float()
    color = functional.l1_loss(functional.avg_pool2d(y, 8), functional.avg_pool2d(x, 8))
    error = (y - x).square().flatten(1).mean(1)
    rebuilt = functional.l1_loss(y, x) + 6 * error.mean() + 0.02 * (error + 1e-4).log().mean()
    return rebuilt + 0.1 * _gradients(x, y) + 0.5 * color


@torch.no_grad()
def reconstruct(model: AutoencoderKL, pictures: np.ndarray) -> Tensor:
    """Encode to the mean and decode, (n, 3, h, w) in -1..1."""
    parts = [to_tensor(pictures[i : i + 16]) for i in range(0, len(pictures), 16)]
    where = next(model.parameters()).device
    done = [model.decode(model.encode(p.to(where)).latent_dist.mean).sample for p in parts]
    return torch.cat(done).clamp(-1, 1).cpu()


def _train(rank: int, work: Path, npm: Path, plan: Plan, limit: int) -> None:
    torch.manual_seed(rank)
    model = make().to(training.device())
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    pictures = pool(work, npm, limit, seed=100 + rank)
    rng = np.random.default_rng([int(time.time()), rank])

    def loss_of(called: nn.Module, count: int, step: int, progress: float) -> Tensor:
        side = 64 if progress < 0.7 else 128
        x = _crops(pictures, count if side == 64 else max(count * 2 // 5, 1), side, rng)
        return decoder_loss(model, x.to(training.device()))

    fit(plan, work, model, loss_of, rank)


def train(work: Path, npm: Path, minutes: float, workers: int, limit: int = 6000) -> None:
    """Train the decoder until the budget is spent; runs again from its last checkpoint."""
    if not (work / "vae.pt").exists():
        state = start(work, npm).state_dict()
        training.save(work / "vae.pt", model=state, ema=state)
    batch = 5 if training.device().type == "cpu" else 128
    plan = Plan(
        name="vae", minutes=minutes, batch=batch, floor=3e-5, decay_from=0.3, ema=0.998, muon=True
    )
    training.launch(_train, workers, 29611, work, npm, plan, limit)


def load(work: Path) -> AutoencoderKL:
    """Return the trained autoencoder (the moving average)."""
    model = make()
    model.load_state_dict(training.need(work / "vae.pt")["ema"])
    return model.eval().requires_grad_(False)
