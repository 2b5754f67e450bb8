"""Lightning's callback, which calls the parts in their order."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from tintype.training.between.gradients import Gradients
from tintype.training.between.losses import Losses
from tintype.training.between.part import Moment, Part, any_rank
from tintype.training.between.sampling import Sampling
from tintype.training.between.saving import Saving
from tintype.training.between.validation import Validation
from tintype.training.checkpoint import Origin
from tintype.training.interrupt import StopWish
from tintype.training.task import Task
from tintype.training.watch.likeness import Sample
from tintype.training.watch.watch import Watch
from tintype.types import Event


class Between(pl.Callback):
    """Runs after each optimiser step, on every rank; only rank 0 writes.

    `stopped_at` is the step after which someone wished to stop, or None.
    """

    def __init__(
        self,
        run: Path,
        *,
        origin: Origin,
        before: Mapping[str, Any],
        wish: StopWish,
        watch: Watch,
        sample: Callable[[int], list[Sample]],
        on_event: Callable[[Event], None],
    ) -> None:
        self.wish, self.watch = wish, watch
        self.stopped_at: int | None = None
        self.losses = Losses(run, watch, on_event)
        self.parts: tuple[Part, ...] = (
            Validation(self.losses, on_event),
            Sampling(sample, self.losses, watch),
            self.losses,
            Gradients(watch),
            Saving(run, self.losses, origin=origin, before=before, on_event=on_event),
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: Task) -> None:
        self.wish.take_over()
        if pl_module.restored is not None:
            if pl_module.restored.scaler:
                trainer.precision_plugin.load_state_dict(pl_module.restored.scaler)
            pl_module.restored = None
        if trainer.is_global_zero:
            self.watch.begin(pl_module.steps_done)
        for part in self.parts:
            part.begin(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Task, batch: int, batch_idx: int
    ) -> None:
        self.losses.before_micro_step(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Task, outputs: Any, batch: int, batch_idx: int
    ) -> None:
        self.losses.after_micro_step(outputs["parts"])
        accumulate = pl_module.config.accumulate
        if (batch + 1) % accumulate:
            return
        step = (batch + 1) // accumulate
        assert pl_module.updates is not None, "training has begun"
        pl_module.updates.after_step(step)
        stop = any_rank(trainer, self.wish.made)
        moment = Moment(trainer=trainer, task=pl_module, step=step, stop=stop)
        for part in self.parts:
            part.after_step(moment)
        if stop:
            self.stopped_at = step
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: Task) -> None:
        for part in self.parts:
            part.end(pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: Task, stage: str) -> None:
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Task, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        for part in self.parts:
            part.close()
