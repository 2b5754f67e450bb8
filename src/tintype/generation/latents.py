"""Latents to pictures, and pictures to latents."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from tintype.models.families.scaling import scaled, unscaled
from tintype.models.model import Model
from tintype.runtime.decoder import fast_decoder
from tintype.runtime.memory import visiting

DECODE_PIXELS = 512 * 512  # pictures at once: one at 512 px, which takes a VAE 0.8 GB in fp32


def decode(model: Model, latents: torch.Tensor, *, plain: bool = False) -> torch.Tensor:
    """Latents [batch, channels, height, width] as the UNet knows them, to pixels in [-1, 1].

    Pixels: [batch, 3, height * factor, width * factor], fp32 on the CPU. `plain` runs the VAE's
    own modules, for when those have been changed. A VAE that lies elsewhere visits the UNet's
    device.
    """
    with visiting(model.vae, model.device), _precise(model.vae) as vae:
        return _decode(vae, unscaled(vae.config, latents), plain)


def encode_pixels(
    model: Model, pixels: torch.Tensor, sources: Sequence[torch.Generator]
) -> torch.Tensor:
    """Pixels [batch, 3, height, width] in [-1, 1] to latents as the UNet knows them, in fp32.

    Each row is sampled from its own source, as diffusers' pipelines do. A VAE that lies elsewhere
    visits the UNet's device.
    """
    with visiting(model.vae, model.device), _precise(model.vae) as vae:
        pixels = pixels.to(vae.device, vae.dtype)
        rows = [
            vae.encode(row, return_dict=False)[0].sample(source)
            for row, source in zip(pixels.split(1), sources, strict=True)
        ]
        return scaled(vae.config, torch.cat(rows).float())


@contextmanager
def _precise(vae: AutoencoderKL) -> Iterator[AutoencoderKL]:
    """The VAE, in fp32 for as long as this lasts if it overflows in fp16; the way back is exact."""
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if upcast:
        vae.float()
    try:
        yield vae
    finally:
        if upcast:
            vae.half()


def _decode(vae: AutoencoderKL, latents: torch.Tensor, plain: bool) -> torch.Tensor:
    latents = latents.to(vae.dtype)
    fast = fast_decoder(vae) if latents.device.type == "cpu" and not plain else None
    if fast is None:
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        at_once = max(1, DECODE_PIXELS // (factor**2 * latents[0, 0].numel()))
        batches = latents.split(at_once)
        return torch.cat([vae.decode(some, return_dict=False)[0].float().cpu() for some in batches])
    # one by one: on a CPU that is faster, as one picture's layers stay in its cache
    return torch.cat([fast(latent) for latent in latents.split(1)]).float()


def to_pixels(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of one size to pixels [batch, 3, height, width] in [-1, 1]."""
    arrays = [np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def to_pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """Pixels [batch, 3, height, width] in [-1, 1] to 8-bit RGB pictures; NaN becomes black."""
    unit = (pixels * 0.5 + 0.5).clamp(0, 1).nan_to_num(0.0)
    array = (unit.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).contiguous().numpy()
    return [Image.fromarray(rows) for rows in array]
