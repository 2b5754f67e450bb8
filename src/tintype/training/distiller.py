"""Class pictures judged by what the base makes of them, in place of the noise that is on them.

Of the base's own drawings both ask for the same on average; the noise of a single picture is far
from that average, and so moves weights to and fro that should stay (arXiv:1606.09282).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tintype.runtime.carry import carried
from tintype.training.batch import Where, some_of
from tintype.training.lesson import Lesson
from tintype.training.teacher import Base, Predict


class Distiller:
    """Asks the base about the class pictures of each step: then, where `base` lends it while an
    adapter trains; else before its weights move, when `write_down` is to be called for each step.
    """

    def __init__(self, predict: Predict, base: Base | None) -> None:
        self.predict, self.base = predict, base
        self.written: dict[int, list[Tensor]] = {}

    def write_down(self, lessons: Sequence[Lesson], where: Where) -> None:
        """Keep on the CPU what the model makes of these lessons' class pictures now."""
        self.written[where.step] = [self._ask(lesson).cpu() for lesson in lessons]

    def lessons(self, lessons: Sequence[Lesson], where: Where) -> list[Lesson]:
        """The same, with the base's answers as targets of their class pictures."""
        if self.base is None:
            answers = self.written[where.step]
        else:
            with self.base():
                answers = [self._ask(lesson) for lesson in lessons]
        return [_told(*each) for each in zip(lessons, answers, strict=True)]

    @torch.no_grad()
    def _ask(self, lesson: Lesson) -> Tensor:
        """Predictions for the class pictures alone, [k, channels, height, width]."""
        rows = _class_rows(lesson)
        noised = some_of(lesson.noised, rows)
        if not len(noised.target):
            return noised.target
        return self.predict(some_of(lesson.batch, rows), noised).float()


def _class_rows(lesson: Lesson) -> slice:
    """The class pictures of a batch: they come after the others."""
    return slice(int((~lesson.batch.prior).sum()), None)


def _told(lesson: Lesson, answer: Tensor) -> Lesson:
    target = lesson.noised.target
    others = target[: _class_rows(lesson).start]
    target = torch.cat([others, carried(answer, target.device)])
    return replace(lesson, noised=replace(lesson.noised, target=target))
