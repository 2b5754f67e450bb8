"""What a frozen VAE says of the pictures: said once, kept.

The mean and the standard deviation of each latent are kept, and a latent is sampled anew at each
step: the same distribution as encoding anew, without the encoder.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from tintype.models.families.scaling import latent_scaling
from tintype.runtime.carry import carried
from tintype.training.batch import Where
from tintype.training.data.crops import Crop, Size
from tintype.training.data.holes import Holes
from tintype.training.data.views import Chosen, Views, Wanted

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
    to draw, and `masked_mean` and `masked_std`, of the picture with that hole. What no step
    looks at may not have been encoded: it is NaN. All are on the training device.
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

    @property
    def views(self) -> Views:
        """The views that there are of each picture."""
        return Views(
            crops=self.mean.shape[1],
            holes=0 if self.holes is None else self.holes.shape[3],
            flip_probability=self.flip_probability,
        )

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
        chosen = self.views.draw(len(rows), where=where, name=name)
        sample = where.generator(f"{name}-latent")
        noise = torch.randn((len(rows), *self.mean.shape[3:]), generator=sample)
        masked_noise = None
        if self.holes is not None:
            masked_noise = torch.randn(noise.shape, generator=sample)
        return self._take(rows, chosen, noise, masked_noise)

    def fixed(self, rows: Tensor) -> Latents:
        """The same pictures' means, of the first crop, not mirrored, with the first hole."""
        first = torch.zeros_like(rows)
        return self._take(rows, Chosen(crops=first, sides=first, holes=first), None, None)

    def _take(
        self, rows: Tensor, chosen: Chosen, noise: Tensor | None, masked_noise: Tensor | None
    ) -> Latents:
        device = self.mean.device
        indices = (rows, chosen.crops, chosen.sides)
        place = tuple(carried(index, device) for index in indices)
        conditions = None
        if self.holes is not None and self.masked_mean is not None and chosen.holes is not None:
            at = (*place, carried(chosen.holes, device))
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
    return mean + std[place] * carried(noise, mean.device)


def at_once(size: Size) -> int:
    """How many pictures of that size are encoded together."""
    return max(1, ENCODE_PIXELS // (size[0] * size[1]))


def cache_latents(
    vae: AutoencoderKL,
    pictures: Iterable[list[Crop]],
    wanted: Wanted,
    *,
    on_progress: Callable[[int], None],
    holes: Holes | None = None,
    has_masks: bool = False,
) -> LatentCache:
    """Encode the crops that are wanted, and their mirror images, on the VAE's device.

    All crops are of one size; pictures are taken one by one, and one of which nothing is wanted
    may come without its crops. With `holes`, each is also encoded with those. `has_masks` says that
    some picture has one, be it read or not. `on_progress` hears how many pictures are done.
    """
    encoder, masked = _Encoder(vae, wanted.at_once), _Encoder(vae, wanted.at_once)
    plain, patched = wanted.plain.tolist(), wanted.masked.tolist()
    views: dict[int, Crop] = {}
    patches: list[Tensor] = []
    for row, variants in enumerate(pictures):
        sides = [v for crop in variants for v in (crop, crop.flipped())[: wanted.views.sides]]
        for number, view in zip(wanted.ranges[row], sides, strict=False):
            if plain[number]:
                encoder.add(view.pixels)
            for index, hole in enumerate(holes.of(view.pixels, number) if holes else ()):
                if patched[number][index]:
                    masked.add(view.pixels * (1 - hole))
                patches.append(hole)
            views[number] = replace(view, pixels=view.pixels[:0])
        on_progress(row + 1)
    return _assemble(encoder, masked, views, patches, wanted, has_masks)


def _assemble(
    encoder: "_Encoder",
    masked: "_Encoder",
    views: dict[int, Crop],
    patches: list[Tensor],
    wanted: Wanted,
    has_masks: bool,
) -> LatentCache:
    """The cache of what was encoded; `views` are those of the pictures that were read."""
    mean, std = (_spread(rows, wanted.plain) for rows in encoder.done())
    table = wanted.table.to(mean.device)
    read = torch.zeros(wanted.count, dtype=torch.bool)
    read[list(views)] = True
    extra: dict[str, Any] = {}
    if has_masks:
        masks = torch.stack([_latent_mask(view, mean) for view in views.values()])
        extra["mask"] = _spread(masks, read)[table]
    if patches:
        size = mean.shape[-2:]
        shrunk = functional.interpolate(torch.stack(patches).to(mean.device), size=tuple(size))
        extra["holes"] = _spread(shrunk.unflatten(0, (len(views), -1)), read)[table]
        for name, rows in zip(("masked_mean", "masked_std"), masked.done(), strict=True):
            each = _spread(rows, wanted.masked.flatten())
            extra[name] = each.unflatten(0, (wanted.count, -1))[table]
    sizes = torch.tensor([view.sizes for view in views.values()], device=mean.device)
    return LatentCache(
        mean=mean[table],
        std=std[table],
        sizes=_spread(sizes, read, rest=0)[table],
        flip_probability=wanted.views.flip_probability,
        **extra,
    )


def _spread(rows: Tensor, places: Tensor, rest: float = math.nan) -> Tensor:
    """[n, …] with `rows` where `places` [n] is true, and `rest` elsewhere."""
    if bool(places.all()):
        return rows
    spread = rows.new_full((len(places), *rows.shape[1:]), rest)
    spread[places.to(rows.device)] = rows
    return spread


def _latent_mask(view: Crop, latents: Tensor) -> Tensor:
    """How much of each latent pixel the mask covers, [1, height, width]; all of it without one."""
    height, width = latents.shape[-2:]
    if view.mask is None:
        return latents.new_ones(1, height, width)
    mask = view.mask.to(latents.device)
    return functional.interpolate(mask[None], size=(height, width), mode="area")[0]


class _Encoder:
    """Gathers pixels [3, height, width] and encodes them some at a time."""

    def __init__(self, vae: AutoencoderKL, at_once: int) -> None:
        self.vae, self.at_once = vae, at_once
        self.waiting: list[Tensor] = []
        self.means: list[Tensor] = []
        self.stds: list[Tensor] = []

    def add(self, pixels: Tensor) -> None:
        self.waiting.append(pixels)
        if len(self.waiting) == self.at_once:
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
