"""The views that there are of each picture, and those of them that a run will look at.

A view is a crop, as it is or mirrored, perhaps with a hole. Which of them a step takes follows from
the seed and the step, so what no step takes needn't be encoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.training.batch import Where


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which views of n pictures: crops, sides (1: mirrored) and, for inpainting, holes, [n]."""

    crops: Tensor
    sides: Tensor
    holes: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Views:
    """How many crops there are of each picture, how many holes in each (0: no inpainting), and how
    likely its mirror image is."""

    crops: int
    holes: int
    flip_probability: float

    @property
    def sides(self) -> int:
        """2 with mirror images."""
        return 2 if self.flip_probability else 1

    def draw(self, count: int, *, where: Where, name: str) -> Chosen:
        """Those of `count` pictures at this place in the run."""
        chance = where.generator(f"{name}-variant")
        crops = torch.randint(self.crops, (count,), generator=chance)
        sides = (torch.rand(count, generator=chance) < self.flip_probability).long()
        holes = torch.randint(self.holes, (count,), generator=chance) if self.holes else None
        return Chosen(crops=crops, sides=sides, holes=holes)


class Wanted:
    """The views of a cache's pictures that are to be encoded, beginning with none.

    Views are numbered picture by picture, crop by crop, side by side; `table` [n, v, s] says which
    stands where, as a picture that leaves no room for different crops is repeated. They are encoded
    `at_once`, always in the batches in which all of them would be, so that a latent is the same
    to the bit whatever else is wanted.
    """

    def __init__(self, counts: Sequence[int], views: Views, at_once: int) -> None:
        """`counts` are the different crops of each picture."""
        sides = views.sides
        self.views, self.at_once = views, at_once
        self.ranges = [
            range(sides * sum(counts[:row]), sides * sum(counts[: row + 1]))
            for row in range(len(counts))
        ]
        crops = range(max(counts))
        self.table = torch.tensor(
            [
                [
                    [mine[(sides * crop + side) % len(mine)] for side in range(sides)]
                    for crop in crops
                ]
                for mine in self.ranges
            ]
        )
        self.count = self.ranges[-1].stop
        self._plain = torch.zeros(-(-self.count // at_once), dtype=torch.bool)
        self._masked = torch.zeros(-(-self.count * views.holes // at_once), dtype=torch.bool)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.ranges)

    def add(self, rows: Tensor, chosen: Chosen) -> None:
        """The views `chosen` of the pictures `rows` [n]."""
        numbers = self.table[rows, chosen.crops, chosen.sides]
        self._plain[numbers // self.at_once] = True
        if chosen.holes is not None:
            self._masked[(numbers * self.views.holes + chosen.holes) // self.at_once] = True

    def add_all(self) -> None:
        """Every view."""
        self._plain.fill_(True)
        self._masked.fill_(True)

    def add_one(self) -> None:
        """The first batch, if nothing is wanted: it tells the latents' shape."""
        if not self._plain.any():
            self._plain[:1] = True
            self._masked[:1] = True

    @property
    def complete(self) -> bool:
        return bool(self._plain.all()) and bool(self._masked.all())

    def needs(self, row: int) -> bool:
        """Whether anything of that picture is encoded."""
        mine = slice(self.ranges[row].start, self.ranges[row].stop)
        return bool(self.plain[mine].any()) or bool(self.masked[mine].any())

    @property
    def batches(self) -> int:
        """How many times the encoder runs."""
        return int(self._plain.sum()) + int(self._masked.sum())

    @property
    def plain(self) -> Tensor:
        """Which views are encoded, [views]."""
        return self._plain.repeat_interleave(self.at_once)[: self.count]

    @property
    def masked(self) -> Tensor:
        """Which views are encoded with which hole, [views, holes]."""
        holes = self.views.holes
        wanted = self._masked.repeat_interleave(self.at_once)[: self.count * holes]
        return wanted.view(self.count, holes)
