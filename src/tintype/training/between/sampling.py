"""Sample pictures at their intervals."""

from collections.abc import Callable

from tintype.training.between.part import Moment, Part


class Sampling(Part):
    """`sample` draws the samples of a step from the model as it would be used."""

    def __init__(self, sample: Callable[[int], None]) -> None:
        self.sample = sample

    def after_step(self, moment: Moment) -> None:
        every = moment.task.config.sample_every
        if every and moment.step % every == 0 and moment.is_first_rank and not moment.stop:
            with moment.task.as_used():
                self.sample(moment.step)
