"""Aspect-ratio buckets: the sizes that pictures of other than square shape are cut to."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.data.crops import Size
from tintype.training.data.folder import some
from tintype.types import DataConfig, Note

STEP = 64
MUCH = 0.25  # a loss of this part of a picture is worth a word


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Sizes of about `resolution` squared pixels; without `upscale` also smaller ones.

    `sizes` are those that pictures may be scaled to; sides are multiples of `step`.
    """

    resolution: int
    step: int
    sizes: tuple[Size, ...]
    upscale: bool = True

    @classmethod
    def of(cls, model: Model, data: DataConfig, resolution: int) -> "Buckets":
        """The one square without buckets; else the family's own sizes at its own resolution, or
        all sizes whose sides are multiples of the step, between the smallest and the largest.

        Raises ConfigError for a step that the model can't take, or limits that leave no size.
        """
        square = ((resolution, resolution),)
        if not data.buckets:
            return cls(resolution=resolution, step=model.size_multiple, sizes=square)
        own = not (data.bucket_step or data.bucket_min or data.bucket_max)
        if own and model.family.buckets and resolution == model.family.native_size:
            return cls(
                resolution=resolution,
                step=STEP,
                sizes=model.family.buckets,
                upscale=data.bucket_upscale,
            )
        step = data.bucket_step or default_step(model.size_multiple, resolution)
        if step % model.size_multiple:
            raise ConfigError(
                f"not a multiple of {model.size_multiple}, as this model wants",
                field="data.bucket_step",
                value=step,
            )
        low = data.bucket_min or resolution // 2
        high = data.bucket_max or resolution * 2
        return cls(
            resolution=resolution,
            step=step,
            sizes=_sizes(resolution, step, low, high),
            upscale=data.bucket_upscale,
        )

    def choose(self, size: Size) -> Size:
        """The bucket for a picture of that width and height (px): of the nearest shape; or,
        without upscaling, the largest multiples of the step that the picture fills."""
        width, height = size
        if not self.upscale:
            scale = min(1.0, math.sqrt(self.resolution**2 / (width * height)))
            return self._floor(width * scale), self._floor(height * scale)
        shape = math.log(width / height)
        return min(
            self.sizes,
            key=lambda one: (round(abs(math.log(one[0] / one[1]) - shape), 6), -one[0] * one[1]),
        )

    def _floor(self, side: float) -> int:
        return max(self.step, int(side + 0.5) // self.step * self.step)


def default_step(multiple: int, resolution: int) -> int:
    """64 px, or less for small pictures, in multiples of what the model can take."""
    return max(multiple, min(STEP, resolution // 8) // multiple * multiple)


def _sizes(resolution: int, step: int, low: int, high: int) -> tuple[Size, ...]:
    """All sizes of sides between `low` and `high` that fill the area of the square as nearly as
    steps allow, from the tallest to the widest."""
    found = set()
    if low <= resolution <= high:
        found.add((resolution, resolution))
    first = -(-low // step) * step
    for side in range(first, high + 1, step):
        other = min(high, resolution**2 // side) // step * step
        if other >= low:
            found |= {(side, other), (other, side)}
    if not found:
        raise ConfigError(
            f"leave no size of about {resolution}x{resolution} px with sides from {low} to {high} "
            f"in steps of {step}",
            field="data.bucket_min, bucket_max",
        )
    return tuple(sorted(found, key=lambda size: size[0] / size[1]))


def bucket_note(chosen: Mapping[Path, Size], sizes: Mapping[Path, Size]) -> Note:
    """How many pictures went into each bucket, and which lose much of themselves in it."""
    counts = Counter(chosen.values())
    table = [
        f"  {width}x{height}: {count} {'picture' if count == 1 else 'pictures'}"
        for (width, height), count in sorted(counts.items(), key=lambda row: row[0][0] / row[0][1])
    ]
    lines = ["Buckets (width x height, px):", *table]
    cut = [path.name for path, bucket in chosen.items() if lost(sizes[path], bucket) > MUCH]
    if cut:
        lines.append(f"  more than a quarter is cut off: {some(cut)}")
    return Note(message="\n".join(lines))


def lost(size: Size, bucket: Size) -> float:
    """The part of a picture that is cut off."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    return 1 - bucket[0] * bucket[1] / (size[0] * size[1] * scale**2)


def distinct_shapes(sizes: Sequence[Size]) -> list[Size]:
    """Each size once, in the order of first appearance."""
    return list(dict.fromkeys(sizes))
