"""The UNet and its training on cached latents."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional

from . import cache, clip, training, vae
from .cache import SIZES, SQUARE, Latents, Text
from .fit import Plan, fit

LEVELS = (128, 160)


def make(
    latents: int = vae.LATENTS, levels: tuple[int, int] = LEVELS, extra: int = 0
) -> UNet2DConditionModel:
    """Build the UNet: two levels, 8x8 and 4x4 at 128 px, both with cross-attention.

    `extra` channels are read beside the latents.
    """
    return UNet2DConditionModel(
        sample_size=cache.SQUARE[0] // vae.FACTOR,
        in_channels=latents + extra,
        out_channels=latents,
        block_out_channels=levels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=clip.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def attend_plainly(*models: UNet2DConditionModel | ControlNetModel) -> None:
    """On a CPU, attend in plain products: a sixth to a third quicker to train than fused."""
    if training.device().type == "cpu":
        for model in models:
            model.set_attn_processor(AttnProcessor())


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


def timesteps(size: int, where: torch.device) -> Tensor:
    """Draw timesteps (n,) spread evenly over the batch."""
    spread = torch.randperm(size, device=where) + torch.rand(size, device=where)
    return (spread / size * 1000).long().clamp(max=999)


def velocity_loss(
    model: Callable[..., Any],
    x: Tensor,
    words: Tensor,
    alphas: Tensor,
    beside: Tensor | None = None,
    **options: object,
) -> Tensor:
    """Return the error of the velocity predicted from noisy latents at random timesteps.

    `model` returns the velocity or an output with a `sample`; `beside` (n, c, h, w) is appended to
    what it sees; `options` are passed on to it.
    """
    noise, t = torch.randn_like(x), timesteps(len(x), x.device)
    a = alphas[t].sqrt()[:, None, None, None]
    s = (1 - alphas[t]).sqrt()[:, None, None, None]
    noisy = a * x + s * noise
    seen = noisy if beside is None else torch.cat([noisy, beside], 1)
    with training.autocast():
        out = model(seen, t, words, **options)
    velocity: Tensor = out if isinstance(out, Tensor) else out.sample
    return functional.mse_loss(velocity.float(), a * noise - s * x)


def _train(
    rank: int, work: Path, plan: Plan, sizes: tuple[cache.Size, ...], every: int = 3
) -> None:
    where = training.device()
    latents = Latents(work, where, sizes, int(time.time()) + rank, every)
    text, alphas = Text(work, where), scheduler().alphas_cumprod.to(where)
    model = make().to(where)
    attend_plainly(model)
    if sizes != (SQUARE,) and not (work / f"{plan.name}.pt").exists():
        model.load_state_dict(load(work).state_dict())

    def loss_of(called: nn.Module, count: int, step: int, progress: float) -> Tensor:
        x, rows = latents.batch(count, step)
        return velocity_loss(called, x, text(rows), alphas)

    fit(plan, work, model, loss_of, rank)


def train(work: Path, minutes: float, workers: int, batch: int, compiled: bool = False) -> None:
    """Train WORK/unet.pt on pictures of 128 x 128 px until the minutes are spent."""
    plan = Plan(name="unet", minutes=minutes, batch=batch, ema=0.998, muon=True, compiled=compiled)
    training.launch(_train, workers, 29612, work, plan, (SQUARE,))


def train_sizes(
    work: Path,
    minutes: float,
    workers: int,
    batch: int,
    sizes: tuple[cache.Size, ...] = SIZES,
    every: int = 3,
) -> None:
    """Go on from WORK/unet.pt to WORK/sizes.pt, one batch in `every` at another size."""
    plan = Plan(name="sizes", minutes=minutes, batch=batch, ema=0.998, muon=True, decay_from=0.15)
    training.launch(_train, workers, 29613, work, plan, (SQUARE, *sizes), every)


def average(work: Path, before: Path, share: float) -> None:
    """Take a share (0..1) of another work folder's UNet into WORK/sizes.pt.

    A training that goes on with other pictures loses some of what it had; the average of before
    and after has most of both (arXiv:2109.01903).
    """
    after, ahead = (training.need(folder / "sizes.pt") for folder in (work, before))
    mean = {name: torch.lerp(w, ahead["ema"][name], share) for name, w in after["ema"].items()}
    training.save(work / "sizes.pt", **(after | {"model": mean, "ema": mean}))


def load(work: Path) -> UNet2DConditionModel:
    """Return the newest trained UNet (the moving average): that of all sizes, if it is there."""
    state = training.load(work / "sizes.pt") or training.need(work / "unet.pt")
    model = make(levels=LEVELS)
    model.load_state_dict(state["ema"])
    return model.eval().requires_grad_(False)
