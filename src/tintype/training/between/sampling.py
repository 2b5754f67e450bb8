"""Sample pictures before the first step, at their intervals and after the last step."""

from collections.abc import Callable

import pytorch_lightning as pl

from tintype.training.between.losses import Losses
from tintype.training.between.part import Moment, Part
from tintype.training.task import Task
from tintype.training.watch.likeness import Sample
from tintype.training.watch.watch import Watch


class Sampling(Part):
    """`draw` draws the samples of a step from the model as it would be used.

    Comes before the losses of its step, which the measures are written beside, and reads those of
    the steps before first, so that nothing is drawn of a model that is lost.
    """

    def __init__(self, draw: Callable[[int], list[Sample]], losses: Losses, watch: Watch) -> None:
        self.draw, self.losses, self.watch = draw, losses, watch

    def begin(self, trainer: pl.Trainer, task: Task) -> None:
        if task.config.sample_every and not task.steps_done and task.takes_part:
            self._sample(0, task)

    def after_step(self, moment: Moment) -> None:
        every = moment.task.config.sample_every
        due = every and (moment.step % every == 0 or moment.is_last)
        if due and moment.task.takes_part and not moment.stop:
            self.losses.read(moment.task)
            self._sample(moment.step, moment.task)

    def _sample(self, step: int, task: Task) -> None:
        with task.as_used():
            samples = self.draw(step) if task.crew.is_first else []
        if task.crew.is_first:
            self.losses.measure(step, self.watch.samples(step, samples))
