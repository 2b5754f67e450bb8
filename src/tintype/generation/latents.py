"""Latents to pictures."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image

from tintype.models.model import Model
from tintype.runtime.decoder import fast_decoder


def decode(model: Model, latents: torch.Tensor) -> torch.Tensor:
    """Latents [batch, channels, height, width] as the UNet knows them, to pixels in [-1, 1].

    Pixels: [batch, 3, height * factor, width * factor], fp32 on the CPU.
    """
    vae = model.vae
    latents = _unscaled(vae.config, latents)
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if not upcast:
        return _decode(vae, latents)
    # such a VAE overflows in fp16; going to fp32 and back is exact
    vae.float()
    try:
        return _decode(vae, latents)
    finally:
        vae.half()


def _decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    latents = latents.to(vae.dtype)
    fast = fast_decoder(vae) if latents.device.type == "cpu" else None
    if fast is None:
        pixels: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        return pixels.float().cpu()
    # one by one: on a CPU that is faster, as one picture's layers stay in its cache
    return torch.cat([fast(latent) for latent in latents.split(1)]).float()


def _unscaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling that the latents were trained with."""
    mean, std = (config.get(name) for name in ("latents_mean", "latents_std"))
    latents = latents / config.scaling_factor
    if mean is None or std is None:
        return latents
    rows = (torch.tensor(values).to(latents)[None, :, None, None] for values in (std, mean))
    scale, shift = rows
    return latents * scale + shift


def to_pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """Pixels [batch, 3, height, width] in [-1, 1] to 8-bit RGB pictures; NaN becomes black."""
    unit = (pixels * 0.5 + 0.5).clamp(0, 1).nan_to_num(0.0)
    array = (unit.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous().numpy()
    return [Image.fromarray(rows) for rows in array]
