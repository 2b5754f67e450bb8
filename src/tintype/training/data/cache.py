"""What a frozen VAE says of the pictures: said once, kept.

The mean and the standard deviation of each latent are kept, and a latent is sampled anew at each
step: the same distribution as encoding anew, without the encoder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderKL

from tintype.models.scaling import latent_scaling
from tintype.training.batch import Where
from tintype.training.data.crops import Crop
from tintype.training.seeds import generator_for

ENCODE_PIXELS = 8 * 512 * 512  # pictures at once: 8 at 512 px


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Latents to draw, scaled for the UNet: `latents` [batch, channels, height, width],
    `sizes` [batch, 6]."""

    latents: torch.Tensor
    sizes: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class LatentCache:
    """The latent distributions of n pictures in v crops, each as it is and perhaps mirrored.

    `mean` and `std` are [n, v, s, channels, height, width], scaled for the UNet; `sizes` is
    [n, v, s, 6]; s is 2 with mirror images, else 1; all on the training device.
    """

    mean: torch.Tensor
    std: torch.Tensor
    sizes: torch.Tensor
    flip_probability: float

    def __len__(self) -> int:
        return len(self.mean)

    def to(self, device: torch.device) -> "LatentCache":
        """This cache on that device."""
        return replace(
            self,
            mean=self.mean.to(device),
            std=self.std.to(device),
            sizes=self.sizes.to(device),
        )

    def draw(self, count: int, *, where: Where, name: str) -> Latents:
        """`count` latents for this step; every picture is seen once before any is seen twice."""
        device = self.mean.device
        first = (where.step * where.ranks + where.rank) * count
        rows = self._rows(count, seed=where.seed, first=first, name=name)
        chance = where.generator(f"{name}-variant")
        variants = torch.randint(self.mean.shape[1], (count,), generator=chance)
        flips = (torch.rand(count, generator=chance) < self.flip_probability).long()
        place = tuple(index.to(device, non_blocking=True) for index in (rows, variants, flips))
        sample = where.generator(f"{name}-latent")
        noise = torch.randn((count, *self.mean.shape[3:]), generator=sample)
        return Latents(
            latents=self.mean[place] + self.std[place] * noise.to(device, non_blocking=True),
            sizes=self.sizes[place],
        )

    def _rows(self, count: int, *, seed: int, first: int, name: str) -> torch.Tensor:
        """Places first..first+count of an endless row of shuffled rounds over the pictures."""
        rounds = range(first // len(self), (first + count - 1) // len(self) + 1)
        orders = [
            torch.randperm(len(self), generator=generator_for(seed, number, 0, f"{name}-order"))
            for number in rounds
        ]
        start = first - rounds.start * len(self)
        return torch.cat(orders)[start : start + count]


def cache_latents(
    vae: AutoencoderKL,
    pictures: list[list[Crop]],
    *,
    flip_probability: float,
    on_progress: Callable[[int], None],
) -> LatentCache:
    """Encode every crop, and its mirror image if any is to be drawn, on the VAE's device.

    `on_progress` hears how many pictures are done.
    """
    side = pictures[0][0].pixels.shape[-1]
    count = max(len(variants) for variants in pictures)
    # a picture that leaves no room for different crops is repeated
    table = [[variants[i % len(variants)] for i in range(count)] for variants in pictures]
    sides = 2 if flip_probability else 1
    flat = [crop for variants in table for one in variants for crop in (one, one.flipped())[:sides]]
    at_once = max(1, ENCODE_PIXELS // side**2)
    means, stds = [], []
    for start in range(0, len(flat), at_once):
        some = flat[start : start + at_once]
        mean, std = encode_pixels(vae, torch.stack([crop.pixels for crop in some]))
        means.append(mean)
        stds.append(std)
        on_progress(min(len(pictures), (start + len(some)) // (sides * count)))
    shape = (len(pictures), count, sides)
    mean, std = torch.cat(means), torch.cat(stds)
    return LatentCache(
        mean=mean.reshape(*shape, *mean.shape[1:]),
        std=std.reshape(*shape, *std.shape[1:]),
        sizes=torch.tensor([crop.sizes for crop in flat], device=mean.device).reshape(*shape, 6),
        flip_probability=flip_probability,
    )


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [batch, 3, height, width] in -1..1 to the mean and standard deviation of their
    latents, float32, shifted and scaled as the UNet wants them."""
    pixels = pixels.to(device=vae.device, dtype=vae.dtype)
    latent = vae.encode(pixels).latent_dist
    mean, std = latent.mean.float(), latent.std.float()
    shift, scale = latent_scaling(vae.config)
    return (mean - shift.to(mean)) * scale.to(mean), std * scale.to(mean)
