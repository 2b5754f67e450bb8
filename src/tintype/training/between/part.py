"""A thing that is done between the optimiser's steps."""

from dataclasses import dataclass

import pytorch_lightning as pl

from tintype.training.task import Task


@dataclass(frozen=True, kw_only=True)
class Moment:
    """After optimiser step `step`; `stop` says that this run ends here by someone's wish."""

    trainer: pl.Trainer
    task: Task
    step: int
    stop: bool

    @property
    def is_last(self) -> bool:
        """Whether the run's last step was made."""
        return self.step == self.task.config.steps

    @property
    def is_first_rank(self) -> bool:
        """Whether this process is the one that writes."""
        return bool(self.trainer.is_global_zero)


class Part:
    """Called on every rank: at the beginning, with each micro-step and each optimiser step, and at
    the end, which an error may be."""

    def begin(self, trainer: pl.Trainer, task: Task) -> None:
        """Before the first step of this process."""

    def after_step(self, moment: Moment) -> None:
        """After each optimiser step."""

    def end(self, task: Task) -> None:
        """After the last step, if no error came before it."""

    def close(self) -> None:
        """Give back what is open, however training ended."""


def any_rank(trainer: pl.Trainer, wish: bool) -> bool:
    """Whether any rank has that wish: all then do the same after the same step."""
    task: Task = trainer.lightning_module
    return task.crew.any(wish)
