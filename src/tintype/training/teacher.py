"""Prior preservation without class pictures: the base's own predictions are what is asked.

The instance pictures' latents, with noise on them, are shown under the class prompt, where
forgetting would begin; what the base made of them is the target.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tintype.training.batch import Batch, Where
from tintype.training.lesson import Lesson, Share
from tintype.training.objective import Noised, Objective

Predict = Callable[[Batch, Noised], Tensor]
Base = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Asks the base anew at each step, where it can be had while an adapter trains.

    `weight` is the prior weight; of all pictures it is asked about those of `share`. This share
    of them, `unconditional`, is shown under the empty prompt, whose row is `empty`.
    """

    predict: Predict
    objective: Objective
    base: Base
    weight: float
    empty: int
    unconditional: float = 0.0
    share: Share = field(default_factory=Share)

    def lessons(self, batches: Sequence[Batch], where: Where) -> list[Lesson]:
        """One for each of the batches, with noise of their own and the base's answer as target."""
        first = len(batches)
        drawn = [self._draw(batch, where, first + part) for part, batch in enumerate(batches)]
        before = sum(len(batch) for batch in batches)
        return [self._ask(lesson) for lesson in self.share.of(drawn, before=before)]

    def _draw(self, batch: Batch, where: Where, part: int) -> Lesson:
        assert batch.class_prompts is not None, "instance pictures have class prompts"
        chance = torch.rand(len(batch), generator=where.generator(f"unconditional/{part}"))
        asked = replace(
            batch,
            prompts=batch.class_prompts.masked_fill(chance < self.unconditional, self.empty),
            weights=batch.weights * self.weight,
            prior=torch.ones_like(batch.prior),
            mask=None,
        )
        return Lesson(batch=asked, noised=self.objective.noise(asked, where, part))

    @torch.no_grad()
    def _ask(self, lesson: Lesson) -> Lesson:
        with self.base():
            target = self.predict(lesson.batch, lesson.noised).float()
        return replace(lesson, noised=replace(lesson.noised, target=target))


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """Lessons written down before the base's weights moved: one of them at each step."""

    pages: tuple[list[Lesson], ...]

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        draw: Callable[[Where], Sequence[Batch]],
        places: Iterable[Where],
        *,
        on_page: Callable[[int], None],
    ) -> "Notebook":
        """Ask the base about what is drawn at those places."""
        written = []
        for number, where in enumerate(places, start=1):
            written.append(teacher.lessons(draw(where), where))
            on_page(number)
        return cls(pages=tuple(written))

    def lessons(self, batches: Sequence[Batch], where: Where) -> list[Lesson]:
        """A page that the place in the run decides."""
        chance = torch.randint(len(self.pages), (1,), generator=where.generator("lesson"))
        return self.pages[int(chance)]
