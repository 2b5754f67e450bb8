"""What is learnt in a step, and which of it each of several processes learns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tintype.training.batch import Batch, some_of
from tintype.training.objective import Noised


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A batch, and its pictures with noise on them and what should be made of them."""

    batch: Batch
    noised: Noised


@dataclass(frozen=True, kw_only=True)
class Share:
    """What process `rank` of `ranks` does of a step: each `ranks`-th picture from its own on.

    So instance and class pictures, which come one after the other, are spread evenly.
    """

    rank: int = 0
    ranks: int = 1

    def of(self, lessons: Sequence[Lesson], *, before: int = 0) -> list[Lesson]:
        """The share of these lessons, `before` which that many pictures came in this step.

        Weights are `ranks` times as large, since gradients are averaged over the processes.
        """
        if self.ranks == 1:
            return list(lessons)
        found = []
        for lesson in lessons:
            mine = slice((self.rank - before) % self.ranks, None, self.ranks)
            before += len(lesson.batch)
            batch = some_of(lesson.batch, mine)
            if len(batch):
                batch = replace(batch, weights=batch.weights * self.ranks)
                found.append(Lesson(batch=batch, noised=some_of(lesson.noised, mine)))
        return found
