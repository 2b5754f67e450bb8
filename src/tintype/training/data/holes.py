"""Random masks for training a UNet that fills holes in pictures."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tintype.training.data.crops import to_mask
from tintype.training.seeds import generator_for

INSTANCE_HOLES = 8  # for each view of an instance picture
CLASS_HOLES = 2  # for each class picture, of which there are many


@dataclass(frozen=True)
class Holes:
    """`count` random masks for each view of a picture, which `seed` and its number decide."""

    count: int
    seed: int
    name: str

    def of(self, pixels: Tensor, number: int) -> Iterator[Tensor]:
        """The masks of view `number`, [1, height, width], 1 where it is to draw."""
        height, width = pixels.shape[-2:]
        source = generator_for(self.seed, number, 0, f"{self.name}-hole")
        for _ in range(self.count):
            yield random_hole(width, height, source)


def random_hole(width: int, height: int, source: torch.Generator) -> Tensor:
    """A rectangle or an ellipse of any size from 30 px (or a quarter) up to the whole picture,
    anywhere in it: [1, height, width]."""

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=source))

    least = min(30, width // 4, height // 4)
    sides = (between(least, width), between(least, height))
    left, top = between(0, width - sides[0]), between(0, height - sides[1])
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    shape = draw.rectangle if between(0, 1) else draw.ellipse
    shape((left, top, left + sides[0] - 1, top + sides[1] - 1), fill=255)
    return to_mask(image)
