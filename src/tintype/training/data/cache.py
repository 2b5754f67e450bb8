"""What a frozen VAE says of the pictures: said once, kept.

The mean and the standard deviation of each latent are kept, and a latent is sampled anew at each
step: the same distribution as encoding anew, without the encoder.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from tintype.models.families.scaling import latent_scaling
from tintype.training.batch import Where
from tintype.training.data.crops import Crop
from tintype.training.data.holes import Holes

ENCODE_PIXELS = 512 * 512  # pictures at once: one at 512 px, which takes a VAE 0.8 GB


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Latents to train on, scaled for the UNet: `latents` [n, channels, height, width], `sizes`
    [n, 6], `mask` [n, 1, height, width] or None, `conditions` [n, k, height, width] or None."""

    latents: Tensor
    sizes: Tensor
    mask: Tensor | None = None
    conditions: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LatentCache:
    """The latent distributions of n pictures of one shape in v crops, each as it is and perhaps
    mirrored.

    `mean` and `std` are [n, v, s, channels, height, width], scaled for the UNet; `sizes` is
    [n, v, s, 6], `mask` [n, v, s, 1, height, width] in 0..1 or None; s is 2 with mirror images,
    else 1. For inpainting each has h holes: `holes` [n, v, s, h, 1, height, width], 1 where it is
    to draw, and `masked_mean` and `masked_std`, of the picture with that hole. All are on the
    training device.
    """

    mean: Tensor
    std: Tensor
    sizes: Tensor
    flip_probability: float
    mask: Tensor | None = None
    holes: Tensor | None = None
    masked_mean: Tensor | None = None
    masked_std: Tensor | None = None

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a latent."""
        return self.mean.shape[-2], self.mean.shape[-1]

    def to(self, device: torch.device) -> "LatentCache":
        """This cache on that device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def draw(self, rows: Tensor, *, where: Where, name: str) -> Latents:
        """Latents of the pictures `rows` [n] for this place in the run: which crop, which side,
        which hole and which sample of their distributions."""
        count = len(rows)
        chance = where.generator(f"{name}-variant")
        variants = torch.randint(self.mean.shape[1], (count,), generator=chance)
        flips = (torch.rand(count, generator=chance) < self.flip_probability).long()
        sample = where.generator(f"{name}-latent")
        noise = torch.randn((count, *self.mean.shape[3:]), generator=sample)
        hole = masked_noise = None
        if self.holes is not None:
            hole = torch.randint(self.holes.shape[3], (count,), generator=chance)
            masked_noise = torch.randn(noise.shape, generator=sample)
        return self._take(rows, variants, flips, hole, noise, masked_noise)

    def fixed(self, rows: Tensor) -> Latents:
        """The same pictures' means, of the first crop, not mirrored, with the first hole."""
        nothing = torch.zeros_like(rows)
        return self._take(rows, nothing, nothing, nothing, None, None)

    def _take(
        self,
        rows: Tensor,
        variants: Tensor,
        flips: Tensor,
        hole: Tensor | None,
        noise: Tensor | None,
        masked_noise: Tensor | None,
    ) -> Latents:
        device = self.mean.device
        place = tuple(index.to(device, non_blocking=True) for index in (rows, variants, flips))
        conditions = None
        if self.holes is not None and self.masked_mean is not None and hole is not None:
            at = (*place, hole.to(device, non_blocking=True))
            masked = _sampled(self.masked_mean[at], self.masked_std, at, masked_noise)
            conditions = torch.cat([self.holes[at], masked], dim=1)
        return Latents(
            latents=_sampled(self.mean[place], self.std, place, noise),
            sizes=self.sizes[place],
            mask=None if self.mask is None else self.mask[place],
            conditions=conditions,
        )


def _sampled(
    mean: Tensor, std: Tensor | None, place: tuple[Tensor, ...], noise: Tensor | None
) -> Tensor:
    """A draw of those distributions, or their means where there is no noise."""
    if noise is None or std is None:
        return mean
    return mean + std[place] * noise.to(mean.device, non_blocking=True)


def cache_latents(
    vae: AutoencoderKL,
    pictures: Iterable[list[Crop]],
    *,
    flip_probability: float,
    on_progress: Callable[[int], None],
    holes: Holes | None = None,
) -> LatentCache:
    """Encode every crop, and its mirror image if any is to be drawn, on the VAE's device.

    All crops are of one size; pictures are taken one by one. With `holes`, each is also encoded
    with those. `on_progress` hears how many pictures are done.
    """
    sides = 2 if flip_probability else 1
    encoder, masked = _Encoder(vae), _Encoder(vae)
    starts: list[tuple[int, int]] = []
    views: list[Crop] = []
    patches: list[Tensor] = []
    for number, variants in enumerate(pictures, start=1):
        starts.append((len(views), len(variants)))
        for crop in variants:
            for view in (crop, crop.flipped())[:sides]:
                encoder.add(view.pixels)
                for hole in holes.of(view.pixels, len(views)) if holes else ():
                    masked.add(view.pixels * (1 - hole))
                    patches.append(hole)
                views.append(replace(view, pixels=view.pixels[:0]))
        on_progress(number)
    count = max(size for _, size in starts)
    # a picture that leaves no room for different crops is repeated
    table = torch.tensor(
        [
            [[start + sides * (i % size) + side for side in range(sides)] for i in range(count)]
            for start, size in starts
        ]
    )
    return _assemble(encoder, masked, views, patches, table, flip_probability)


def _assemble(
    encoder: "_Encoder",
    masked: "_Encoder",
    views: list[Crop],
    patches: list[Tensor],
    table: Tensor,
    flip_probability: float,
) -> LatentCache:
    """The cache of what was encoded; `table` [n, v, s] says which view stands where."""
    mean, std = encoder.done()
    table = table.to(mean.device)
    extra: dict[str, Any] = {}
    if any(view.mask is not None for view in views):
        extra["mask"] = torch.stack([_latent_mask(view, mean) for view in views])[table]
    if patches:
        own = (len(views), -1)
        size = mean.shape[-2:]
        shrunk = functional.interpolate(torch.stack(patches).to(mean.device), size=tuple(size))
        masked_mean, masked_std = masked.done()
        extra["holes"] = shrunk.unflatten(0, own)[table]
        extra["masked_mean"] = masked_mean.unflatten(0, own)[table]
        extra["masked_std"] = masked_std.unflatten(0, own)[table]
    sizes = torch.tensor([view.sizes for view in views], device=mean.device)
    return LatentCache(
        mean=mean[table],
        std=std[table],
        sizes=sizes[table],
        flip_probability=flip_probability,
        **extra,
    )


def _latent_mask(view: Crop, latents: Tensor) -> Tensor:
    """How much of each latent pixel the mask covers, [1, height, width]; all of it without one."""
    height, width = latents.shape[-2:]
    if view.mask is None:
        return latents.new_ones(1, height, width)
    mask = view.mask.to(latents.device)
    return functional.interpolate(mask[None], size=(height, width), mode="area")[0]


class _Encoder:
    """Gathers pixels [3, height, width] and encodes them some at a time."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae
        self.waiting: list[Tensor] = []
        self.means: list[Tensor] = []
        self.stds: list[Tensor] = []

    def add(self, pixels: Tensor) -> None:
        self.waiting.append(pixels)
        if len(self.waiting) >= max(1, ENCODE_PIXELS // (pixels.shape[1] * pixels.shape[2])):
            self._encode()

    def _encode(self) -> None:
        mean, std = encode_pixels(self.vae, torch.stack(self.waiting))
        self.means.append(mean)
        self.stds.append(std)
        self.waiting = []

    def done(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of all, in the order in which they came."""
        if self.waiting:
            self._encode()
        return torch.cat(self.means), torch.cat(self.stds)


@torch.no_grad()
def encode_pixels(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [batch, 3, height, width] in -1..1 to the mean and standard deviation of their
    latents, float32, shifted and scaled as the UNet wants them."""
    pixels = pixels.to(device=vae.device, dtype=vae.dtype)
    latent = vae.encode(pixels).latent_dist
    mean, std = latent.mean.float(), latent.std.float()
    shift, scale = latent_scaling(vae.config)
    return (mean - shift.to(mean)) * scale.to(mean), std * scale.to(mean)
