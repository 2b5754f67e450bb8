"""The latents that a stage begins with: noise, or pictures with noise on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tintype.generation.canvas import Canvas
from tintype.generation.latents import encode_pixels, to_pixels
from tintype.generation.stages import Stage, begin_at
from tintype.runtime.noise import generators, noise
from tintype.types import GenerateRequest


@dataclass(frozen=True, kw_only=True)
class Start:
    """`latents` and `noise` are [batch, channels, height, width]; `clean`, the same of pictures
    without noise, or None; `mask` [batch, 1, height, width] is 1 where to draw, or None; `extra`
    are the further input channels of an inpainting UNet, or None."""

    latents: Tensor
    noise: Tensor
    clean: Tensor | None = None
    mask: Tensor | None = None
    extra: Tensor | None = None

    def keep(self, latents: Tensor, scheduler: Any, number: int, last: int) -> Tensor:
        """The latents after evaluation `number`, with what isn't to be drawn set to the picture
        at that noise (RePaint's eq. 8, arXiv:2201.09865, without its resampling)."""
        if self.mask is None or self.clean is None or self.extra is not None:
            return latents
        known = self.clean
        if number + 1 < last:
            timestep = scheduler.timesteps[number + 1 : number + 2]
            known = scheduler.add_noise(self.clean, self.noise, timestep)
        return (1 - self.mask) * known + self.mask * latents


def begin(
    stage: Stage,
    scheduler: Any,
    requests: Sequence[GenerateRequest],
    canvases: Sequence[Canvas | None],
    sources: Sequence[torch.Generator],
    clean: Tensor | None = None,
) -> Start:
    """The start of a stage that makes its own noise; draws from `sources` in diffusers' order:
    the picture's latents (unless they are given as `clean`), the noise, the masked picture's."""
    model = stage.model
    factor = model.latent_factor
    shape = (model.latent_channels, stage.height // factor, stage.width // factor)
    known = [canvas for canvas in canvases if canvas is not None]
    whole_anew = stage.strength == 1
    masked = bool(known) and known[0].mask is not None
    if known and (not whole_anew or (masked and not model.extra_channels)):
        clean = encode_pixels(model, to_pixels([one.picture for one in known]), sources)
    fresh = varied(noise(shape, sources, model.device), requests)
    mask = _latent_mask(known, shape, model.device) if masked else None
    if clean is not None and mask is not None:
        clean = _filled(clean, mask, fresh, requests)
    if clean is None or whole_anew:
        latents = fresh * scheduler.init_noise_sigma
    elif stage.first >= len(scheduler.timesteps):
        latents = clean  # too weak for a single step
    else:
        begin_at(scheduler, stage.first)
        multiplier = torch.tensor([request.noise_multiplier for request in requests])
        noisy = fresh * multiplier.to(fresh)[:, None, None, None]
        timestep = scheduler.timesteps[stage.first : stage.first + 1]
        latents = scheduler.add_noise(clean, noisy, timestep)
    extra = _extra(stage, known, mask, shape, sources) if model.extra_channels else None
    return Start(latents=latents, noise=fresh, clean=clean, mask=mask, extra=extra)


def varied(fresh: Tensor, requests: Sequence[GenerateRequest]) -> Tensor:
    """The noise of each picture, turned towards that of its variation's seed."""
    rows = []
    for row, request in zip(fresh, requests, strict=True):
        strength = request.variation.strength
        if strength:
            [other] = noise(row.shape, generators([request.variation.seed]), row.device)
            row = spherical(row, other, strength)
        rows.append(row)
    return torch.stack(rows)


def spherical(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point `share` of the way from one tensor to another along a great circle."""
    cosine = (first * second).sum() / (first.norm() * second.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if angle.sin().abs() < 1e-4:
        return torch.lerp(first, second, share)
    weights = torch.sin((1 - share) * angle), torch.sin(share * angle)
    return (weights[0] * first + weights[1] * second) / angle.sin()


def _latent_mask(canvases: Sequence[Canvas], shape: Sequence[int], device: torch.device) -> Tensor:
    """1 where to draw: every latent in which a masked pixel lies."""
    pixels = to_pixels([canvas.mask for canvas in canvases if canvas.mask is not None])
    holes = (pixels[:, :1] >= 0).float()
    return torch.nn.functional.adaptive_max_pool2d(holes, tuple(shape[1:])).to(device)


def _filled(
    clean: Tensor, mask: Tensor, fresh: Tensor, requests: Sequence[GenerateRequest]
) -> Tensor:
    """The pictures' latents with noise or nothing under the mask, where asked."""
    rows = []
    for row, hole, other, request in zip(clean, mask, fresh, requests, strict=True):
        fill = request.inpaint.fill
        if fill in ("noise", "zeros"):
            row = row * (1 - hole) + (other * hole if fill == "noise" else 0)
        rows.append(row)
    return torch.stack(rows)


def _extra(
    stage: Stage,
    canvases: Sequence[Canvas],
    mask: Tensor | None,
    shape: Sequence[int],
    sources: Sequence[torch.Generator],
) -> Tensor:
    """What an inpainting UNet takes beside the latents: the mask, and the latents of the picture
    with the masked part grey; without a mask the whole picture is drawn."""
    if mask is None:
        mask = torch.ones(len(sources), 1, *shape[1:])
        masked = torch.zeros(len(sources), 3, stage.height, stage.width)
    else:
        pixels = to_pixels([canvas.picture for canvas in canvases])
        holes = to_pixels([canvas.mask for canvas in canvases if canvas.mask is not None])
        masked = pixels * (holes[:, :1] < 0)
    latents = encode_pixels(stage.model, masked, sources)
    return torch.cat([mask.to(latents), latents], dim=1)
