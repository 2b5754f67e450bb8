"""Between a VAE's latents and those that a UNet knows: shifted and scaled, channel by channel."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def latent_scaling(config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What is taken from a VAE's latent, and what it is then multiplied by.

    `config` is the VAE's; both are [1, channels or 1, 1, 1] in fp32. A standard deviation needs
    the factor alone.
    """
    mean, std = config.get("latents_mean"), config.get("latents_std")
    scale = torch.tensor([float(config["scaling_factor"])])
    if mean is None or std is None:
        return torch.zeros(1, 1, 1, 1), scale.view(1, -1, 1, 1)
    return torch.tensor(mean).view(1, -1, 1, 1), (scale / torch.tensor(std)).view(1, -1, 1, 1)


def scaled(config: Mapping[str, Any], latents: Tensor) -> Tensor:
    """A VAE's latents [batch, channels, height, width] as the UNet knows them."""
    shift, scale = latent_scaling(config)
    return (latents - shift.to(latents)) * scale.to(latents)


def unscaled(config: Mapping[str, Any], latents: Tensor) -> Tensor:
    """The UNet's latents [batch, channels, height, width] as the VAE decodes them."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return latents / config["scaling_factor"]
    # in this order, so that a picture equals diffusers' to the rounding
    spread, shift = (torch.tensor(row).to(latents).view(1, -1, 1, 1) for row in (std, mean))
    return latents * spread / config["scaling_factor"] + shift
