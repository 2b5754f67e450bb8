"""The order in which pictures come: shuffled rounds, and like shapes together."""

from collections.abc import Sequence
from functools import lru_cache

import torch

from tintype.training.seeds import generator_for


class Rounds:
    """An endless row of rounds over entries, each entry once a round, cut in batches.

    `shapes` [n] says which entries fit in one tensor. Within a round those of a shape lie
    together in whole batches where there are enough of them, so that few batches are mixed.
    """

    def __init__(self, shapes: Sequence[int], batch: int) -> None:
        self.shapes, self.batch = tuple(shapes), batch
        self._order = lru_cache(maxsize=2)(self._order_anew)

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, number: int, *, seed: int, name: str) -> torch.Tensor:
        """The entries of batch `number` of the whole row, [batch]."""
        first = number * self.batch
        rounds = range(first // len(self), (first + self.batch - 1) // len(self) + 1)
        entries = [entry for each in rounds for entry in self._order(seed, each, name)]
        start = first - rounds.start * len(self)
        return torch.tensor(entries[start : start + self.batch])

    def _order_anew(self, seed: int, number: int, name: str) -> list[int]:
        """One round, which may begin within a batch and end within another."""
        source = generator_for(seed, number, 0, f"{name}-order")
        shuffled: list[int] = torch.randperm(len(self), generator=source).tolist()
        shapes = list(dict.fromkeys(self.shapes[entry] for entry in shuffled))
        if len(shapes) == 1:
            return shuffled
        whole, rest = [], []
        for shape in shapes:
            mine = [entry for entry in shuffled if self.shapes[entry] == shape]
            full = len(mine) // self.batch * self.batch
            whole += [mine[at : at + self.batch] for at in range(0, full, self.batch)]
            rest += mine[full:]
        whole = [whole[at] for at in torch.randperm(len(whole), generator=source).tolist()]
        begun = -number * len(self) % self.batch  # what the batch that the last round left lacks
        while whole and len(rest) < begun:
            rest += whole.pop()
        return [*rest[:begun], *(entry for batch in whole for entry in batch), *rest[begun:]]
