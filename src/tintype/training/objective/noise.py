"""The noise of a step: Gaussian, and what may be added to it; one row a kind."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tintype.types import LossConfig

PYRAMID_LEVELS = 10

MakeGenerator = Callable[[str], torch.Generator]


def offset(noise: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Noise whose mean differs from channel to channel, so that brightness is learnt too
    (crosslabs.org, "Diffusion with offset noise")."""
    n, channels = noise.shape[:2]
    return noise + strength * torch.randn(n, channels, 1, 1, generator=generator)


def pyramid(noise: Tensor, discount: float, generator: torch.Generator) -> Tensor:
    """Noise of ever coarser levels, each `discount` times as strong as the one before.

    Every level is between 2 and 4 times as coarse as the last, down to one pixel (Whitaker,
    "Multi-resolution noise for diffusion model training"). Each picture's noise is brought back
    to a standard deviation of 1, which those beside it in the batch don't change.
    """
    n, channels, height, width = noise.shape
    total, level_height, level_width = noise, float(height), float(width)
    for level in range(1, PYRAMID_LEVELS):
        ratio = 2 + 2 * float(torch.rand((), generator=generator))
        level_height, level_width = level_height / ratio, level_width / ratio
        size = (max(1, int(level_height)), max(1, int(level_width)))
        coarse = torch.randn(n, channels, *size, generator=generator)
        total = total + discount**level * functional.interpolate(
            coarse, size=(height, width), mode="bilinear"
        )
        if size == (1, 1):
            break
    return total / total.std(dim=(1, 2, 3), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One thing that noise may have: the config's field for its strength (0: none), and how."""

    field: str
    add: Callable[[Tensor, float, torch.Generator], Tensor]


KINDS = (Kind(field="noise_offset", add=offset), Kind(field="pyramid_noise", add=pyramid))


def make_noise(shape: torch.Size, config: LossConfig, generator: MakeGenerator) -> Tensor:
    """The noise [n, channels, height, width] to be predicted, on the CPU; `generator` makes one
    for each purpose, so that switching one thing on leaves the draws of others as they were."""
    noise = torch.randn(shape, generator=generator("noise"))
    for kind in KINDS:
        if strength := getattr(config, kind.field):
            noise = kind.add(noise, strength, generator(kind.field))
    return noise


def perturbed(noise: Tensor, config: LossConfig, generator: MakeGenerator) -> Tensor:
    """The noise that is added to the latents: more than is to be predicted, by
    `input_perturbation`, so that the model learns to bear its own errors (arXiv:2301.11706)."""
    if not config.input_perturbation:
        return noise
    more = torch.randn(noise.shape, generator=generator("perturbation"))
    return noise + config.input_perturbation * more
