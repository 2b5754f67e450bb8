"""Distil the base UNet into a LoRA that draws in four steps (LCM-LoRA, arXiv:2311.05556)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from . import training, unet
from .cache import SQUARE, Latents, Text
from .fit import Plan, fit

RANK = 12
GUIDANCE = (3.0, 6.0)
JUMPS = 50  # timesteps that there are, evenly spread, as LCMScheduler has them
# The teacher goes this many of them, in two steps of its solver, from where the student looks to
# where it has to find the same. With one at a time, what is known of the end has to come through 50
# hops, and in a short training the student becomes consistent by drawing nothing.
SKIP = 10
SIGMA, SCALE = 0.5, 10.0  # of the boundary condition, as LCMScheduler has them
HUBER = 0.001
TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
)


def student(work: Path) -> UNet2DConditionModel:
    """Return the trained UNet with a fresh adapter, which alone is trained."""
    model = unet.load(work)
    model.requires_grad_(False)
    config = LoraConfig(
        r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=list(TARGETS)
    )
    model.add_adapter(config)
    return model


class Consistency:
    """The consistency function of a v-predicting UNet and the teacher's steps."""

    def __init__(self, where: torch.device) -> None:
        self.alphas = unet.scheduler().alphas_cumprod.to(where)
        self.stride = len(self.alphas) // JUMPS

    def time(self, turn: Tensor) -> Tensor:
        """Return the timesteps of turns 0 to JUMPS; the one before the first is clean: -1."""
        return turn * self.stride - 1

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alphas = torch.where(t >= 0, self.alphas[t.clamp_min(0)], 1.0)[:, None, None, None]
        return alphas.sqrt(), (1 - alphas).sqrt()

    def clean(self, z: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise that a velocity means."""
        a, s = self._levels(t)
        return a * z - s * v, s * z + a * v

    def jump(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return the latents at an earlier timestep: a step of DDIM."""
        a, s = self._levels(t)
        return a * x + s * noise

    def boundary(self, z: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Mix in the input, so that the function is the identity at t = 0."""
        scaled = SCALE * t.clamp_min(0).float()[:, None, None, None]
        total = scaled.square() + SIGMA**2
        return SIGMA**2 / total * z + scaled / total.sqrt() * x


def _velocity(model: nn.Module, z: Tensor, t: Tensor, words: Tensor) -> Tensor:
    with training.autocast():
        return model(z, t, words).sample.float()


@torch.no_grad()
def _taught(
    model: UNet2DConditionModel,
    math: Consistency,
    z: Tensor,
    turns: tuple[Tensor, ...],
    words: Tensor,
    empty: Tensor,
) -> Tensor:
    """Return where the guided teacher's steps from z, from turn to turn, arrive."""
    low, high = GUIDANCE
    scale = low + (high - low) * torch.rand(len(z), 1, 1, 1, device=z.device)
    model.disable_adapters()
    for turn, following in pairwise(turns):
        t = math.time(turn.clamp_min(1))
        both = _velocity(model, torch.cat([z, z]), torch.cat([t, t]), torch.cat([words, empty]))
        told, untold = both.chunk(2)
        velocity = untold + scale * (told - untold)
        there = math.jump(*math.clean(z, velocity, t), math.time(following))
        z = torch.where((turn > following)[:, None, None, None], there, z)
    model.enable_adapters()
    return z


def train(work: Path, minutes: float, batch: int) -> None:
    """Train WORK/lcm.pt."""
    where = training.device()
    model, math = student(work).to(where), Consistency(where)
    unet.attend_plainly(model)
    latents, text = Latents(work, where, (SQUARE,), 31), Text(work, where)
    empty = text(torch.zeros(1, dtype=torch.long, device=where))

    def loss_of(called: nn.Module, count: int, step: int, progress: float) -> Tensor:
        x, rows = latents.batch(count)
        turn = torch.randint(1, JUMPS + 1, (count,), device=where)
        last = (turn - SKIP).clamp_min(0)
        t, there, words = math.time(turn), math.time(last), text(rows)
        z = math.jump(x, torch.randn_like(x), t)
        turns = (turn, (turn + last) // 2, last)
        earlier = _taught(model, math, z, turns, words, empty.expand(count, -1, -1))
        with torch.no_grad():
            v = _velocity(called, earlier, there.clamp_min(0), words)
            goal = math.boundary(earlier, math.clean(earlier, v, there.clamp_min(0))[0], there)
        guess = math.boundary(z, math.clean(z, _velocity(called, z, t, words), t)[0], t)
        return ((guess - goal).square() + HUBER**2).sqrt().mean() - HUBER

    plan = Plan(name="lcm", minutes=minutes, batch=batch, peak=3e-4, ema=0.99)
    fit(plan, work, model, loss_of)


def export(work: Path, folder: Path) -> None:
    """Write the adapter as a file that `load_lora_weights` of diffusers takes."""
    model = student(work)
    found = model.load_state_dict(training.need(work / "lcm.pt")["ema"], strict=False)
    if lost := [k for k in found.missing_keys if "lora_" in k]:
        raise KeyError(f"{work / 'lcm.pt'}: no weights for {lost[0]} and {len(lost) - 1} more")
    layers = {k: v.half() for k, v in get_peft_model_state_dict(model).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
