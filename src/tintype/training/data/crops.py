"""Pictures cut to size for training."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tintype.pictures import read_alpha, read_picture

Size = tuple[int, int]  # width, height in px


@dataclass(frozen=True, kw_only=True)
class Crop:
    """What is left of a picture for training.

    `pixels` is [3, height, width] in -1..1; `sizes` is (original height, width, crop top, left,
    target height, width) in px, the crop measured in the resized picture; `right` is what was
    cut off at the right; `mask` is [1, height, width] in 0..1, or None.
    """

    pixels: torch.Tensor
    sizes: tuple[int, int, int, int, int, int]
    right: int
    mask: torch.Tensor | None = None

    def flipped(self) -> "Crop":
        """Its mirror image, cut from the mirrored picture."""
        height, width, top, left, *target = self.sizes
        return replace(
            self,
            pixels=self.pixels.flip(-1),
            sizes=(height, width, top, self.right, target[0], target[1]),
            right=left,
            mask=None if self.mask is None else self.mask.flip(-1),
        )


def crops(
    image: Image.Image,
    side: int | Size,
    *,
    count: int,
    seed: int,
    mask: Image.Image | None = None,
) -> list[Crop]:
    """Cuts of `side` px: the centre one, or for `count` > 1 random ones that `seed` decides.

    The picture, and its mask of the same size, is resized first to just cover the cut (Lanczos,
    with antialiasing).
    """
    target = (side, side) if isinstance(side, int) else side
    width, height = image.size
    new_size = _cover(image.size, target)
    resized = image.resize(new_size, Image.Resampling.LANCZOS)
    resized_mask = None if mask is None else mask.resize(new_size, Image.Resampling.BOX)
    room_x, room_y = new_size[0] - target[0], new_size[1] - target[1]
    places = [(room_x // 2, room_y // 2)]
    if count > 1 and (room_x or room_y):
        chance = random.Random(seed)
        places = [(chance.randint(0, room_x), chance.randint(0, room_y)) for _ in range(count)]
    found = []
    for left, top in places:
        box = (left, top, left + target[0], top + target[1])
        found.append(
            Crop(
                pixels=to_pixels(resized.crop(box)),
                sizes=(height, width, top, left, target[1], target[0]),
                right=room_x - left,
                mask=None if resized_mask is None else to_mask(resized_mask.crop(box)),
            )
        )
    return found


def how_many(size: Size, target: Size, count: int) -> int:
    """How many crops of `target` px there will be of a picture of that size for so many asked."""
    return 1 if _cover(size, target) == target else count


def _cover(size: Size, target: Size) -> Size:
    """The size, of the same shape, that just covers a cut."""
    scale = max(target[0] / size[0], target[1] / size[1])
    return max(target[0], round(size[0] * scale)), max(target[1], round(size[1] * scale))


def to_pixels(image: Image.Image) -> torch.Tensor:
    """[3, height, width] in -1..1."""
    array = np.asarray(image, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_mask(image: Image.Image) -> torch.Tensor:
    """[1, height, width] in 0..1."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def read_mask(mask: Path, picture: Path) -> Image.Image:
    """The mask of a picture, 0-255: the brightness of its own file, or the picture's alpha where
    that is the picture itself; raises PictureError."""
    return read_alpha(picture) if mask == picture else read_picture(mask).convert("L")


def load_crops(
    path: Path, side: int | Size, *, count: int, seed: int, mask: Path | None = None
) -> list[Crop]:
    """The crops of a picture file; raises PictureError."""
    image = read_picture(path)
    cover = None if mask is None else read_mask(mask, path)
    return crops(image, side, count=count, seed=seed, mask=cover)
