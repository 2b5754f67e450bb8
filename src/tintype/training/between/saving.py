"""Checkpoints at their intervals, at the last step, and where a run is stopped."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from tintype.errors import TrainingError
from tintype.training.between.losses import Losses, advice
from tintype.training.between.part import Moment, Part, any_rank
from tintype.training.checkpoint import Checkpoint, Origin, save_checkpoint
from tintype.training.keeping.best import scores
from tintype.training.keeping.machine import Machine
from tintype.training.task import Task
from tintype.types import Event


class Saving(Part):
    """Reads the losses first, so that no checkpoint is written after one that isn't finite.

    `before` is the machine of the checkpoint that the run goes on from, if it does.
    """

    def __init__(
        self,
        run: Path,
        losses: Losses,
        *,
        origin: Origin,
        before: Mapping[str, Any],
        on_event: Callable[[Event], None],
    ) -> None:
        self.run, self.losses, self.on_event = run, losses, on_event
        self.origin, self.before = origin, before
        self.machine: Machine | None = None
        self.saved_at = time.monotonic()

    def begin(self, trainer: pl.Trainer, task: Task) -> None:
        self.machine = Machine.of(trainer)
        if note := self.machine.note(self.before):
            self.on_event(note)
        self.saved_at = time.monotonic()

    def after_step(self, moment: Moment) -> None:
        if self._due(moment):
            self.losses.read(moment.task)
            self._save(moment)
            self.saved_at = time.monotonic()

    def _due(self, moment: Moment) -> bool:
        """By steps, or else by the clock of the first rank."""
        config = moment.task.config
        if moment.stop or _on_grid(moment):
            return True
        if config.checkpoint_minutes is None:
            return False
        late = time.monotonic() - self.saved_at >= 60 * config.checkpoint_minutes
        return any_rank(moment.trainer, late and moment.is_first_rank)

    def _save(self, moment: Moment) -> None:
        """Write a checkpoint; raises TrainingError rather than write weights that aren't finite."""
        task = moment.task
        weights, updates = task.weights(), task.state()
        if not moment.is_first_rank:
            return
        finite = torch.stack([value.isfinite().all() for value in weights.values()])
        if not bool(finite.all()):
            bad = list(weights)[finite.tolist().index(False)]
            raise TrainingError(
                f"The weights {bad!r} aren't finite after step {moment.step}.{advice(self.run)}"
            )
        assert self.machine is not None, "training has begun"
        config = task.config
        assert config.checkpoint_every is not None, "a resolved config"
        # others are there by chance: what a run ends with mustn't depend on where it was stopped
        scored = scores(self.run, moment.step, config.checkpoint_every) if _on_grid(moment) else {}
        checkpoint = Checkpoint(
            step=moment.step,
            weights=weights,
            updates=updates,
            scaler=moment.trainer.precision_plugin.state_dict(),
            origin=self.origin,
            machine=asdict(self.machine),
            scores=scored,
        )
        save_checkpoint(self.run, checkpoint, keep=config.keep_checkpoints, best=config.keep_best)


def _on_grid(moment: Moment) -> bool:
    """Whether a run saves here wherever it was stopped before."""
    every = moment.task.config.checkpoint_every
    assert every is not None, "a resolved config"
    return moment.is_last or moment.step % every == 0
