"""The loss of pictures that were held out, whenever a checkpoint is due and at the end."""

from collections.abc import Callable

from tintype.training.between.losses import Losses
from tintype.training.between.part import Moment, Part
from tintype.types import Event, Note


class Validation(Part):
    """Comes before the losses of its step, which it is written beside."""

    def __init__(self, losses: Losses, on_event: Callable[[Event], None]) -> None:
        self.losses, self.on_event = losses, on_event

    def after_step(self, moment: Moment) -> None:
        every = moment.task.config.checkpoint_every
        assert every is not None, "a resolved config"
        if moment.step % every and not moment.is_last:
            return
        if moment.task.data.validation is None or not moment.task.takes_part:
            return
        with moment.task.as_used():
            loss = moment.task.validation_loss() if moment.is_first_rank else None
        if loss is not None:
            self.losses.measure(moment.step, {"validation_loss": loss})
            self.on_event(Note(message=f"Validation loss at step {moment.step}: {loss:.4f}"))
