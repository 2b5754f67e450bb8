"""Losses: read late, checked, written, and told."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from tintype.errors import TrainingError
from tintype.training.between.part import Moment, Part
from tintype.training.checkpoint import list_checkpoints
from tintype.training.metrics import Metrics, Row
from tintype.training.task import Task
from tintype.types import Event, Progress

PHASE = "training"
READ_EVERY_SECONDS = 0.5
READ_EVERY_STEPS = 50


class Losses(Part):
    """Losses stay on the device and are read in one go every half second, so that no step waits
    for the device."""

    def __init__(self, run: Path, on_event: Callable[[Event], None]) -> None:
        self.run, self.on_event = run, on_event
        self.metrics: Metrics | None = None
        self.parts: Tensor | None = None
        self.unread: list[tuple[int, Tensor, float]] = []
        self.last_read = time.monotonic()
        self.last_loss: float | None = None
        self.learning_rate = 0.0
        self.validation: dict[int, float | None] = {}

    def begin(self, trainer: pl.Trainer, task: Task) -> None:
        if trainer.is_global_zero:
            self.metrics = Metrics(self.run, task.steps_done)
        self._report(task.steps_done, task)

    def before_micro_step(self, trainer: pl.Trainer) -> None:
        """Note the learning rate that the step is made with."""
        group = trainer.optimizers[0].param_groups[0]
        self.learning_rate = group["lr"] * group.get("d", 1.0)  # "d" is what Prodigy finds

    def after_micro_step(self, parts: Tensor) -> None:
        """Add the losses `parts` [2] of one micro-step to those of its step."""
        self.parts = parts if self.parts is None else self.parts + parts

    def after_step(self, moment: Moment) -> None:
        assert self.parts is not None, "a micro-step was made"
        mean = self.parts / moment.task.config.accumulate
        self.unread.append((moment.step, mean, self.learning_rate))
        self.parts = None
        late = time.monotonic() - self.last_read > READ_EVERY_SECONDS
        if late or len(self.unread) >= READ_EVERY_STEPS:
            self.read(moment.task)
        self._report(moment.step, moment.task)

    def end(self, task: Task) -> None:
        self.read(task)

    def close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None

    def read(self, task: Task) -> None:
        """Bring the losses since the last reading to the host, check and write them.

        Raises TrainingError for one that isn't finite.
        """
        self.last_read = time.monotonic()
        if not self.unread:
            return
        values = torch.stack([parts for _, parts, _ in self.unread]).tolist()
        rows = [
            _row(step, parts, task.prior_weight, rate, self.validation.pop(step, None))
            for (step, _, rate), parts in zip(self.unread, values, strict=True)
        ]
        self.unread = []
        if self.metrics is not None:
            self.metrics.write(rows)
        for row in rows:
            if not math.isfinite(row.loss):
                raise TrainingError(
                    f"The loss at step {row.step} isn't finite ({row.loss}): training has "
                    f"stopped.{advice(self.run)}"
                )
        self.last_loss = rows[-1].loss

    def _report(self, step: int, task: Task) -> None:
        event = Progress(phase=PHASE, step=step, total=task.config.steps, loss=self.last_loss)
        if task.global_rank == 0:
            self.on_event(event)


def advice(run: Path) -> str:
    """Where the last good checkpoint is, and what to try."""
    kept = list_checkpoints(run)
    last = f" The last good checkpoint is {kept[0]}." if kept else ""
    return f"{last} Try a lower --learning-rate, or --set precision=32."


def _row(
    step: int,
    parts: list[float],
    prior_weight: float | None,
    learning_rate: float,
    validation_loss: float | None,
) -> Row:
    """`prior_weight` is None without prior preservation."""
    prior = None if prior_weight is None else parts[1]
    return Row(
        step=step,
        loss=parts[0] + (prior_weight or 0.0) * parts[1],
        instance_loss=parts[0],
        prior_loss=prior,
        learning_rate=learning_rate,
        validation_loss=validation_loss,
    )
