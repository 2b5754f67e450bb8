"""Losses: read late, checked, handed on to be watched, and told."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor

from tintype.errors import TrainingError
from tintype.training.between.part import Moment, Part
from tintype.training.checkpoint import list_checkpoints
from tintype.training.task import Task
from tintype.training.watch.pace import Pace, Smoothed
from tintype.training.watch.rows import Row
from tintype.training.watch.watch import Watch
from tintype.types import Event, Progress

PHASE = "training"
READ_EVERY_SECONDS = 0.5
READ_EVERY_STEPS = 50


class Losses(Part):
    """Losses and gradient norms stay on the device and are read in one go every half second, so
    that no step waits for the device.

    `measured` is what other parts have measured last, by name, and `measured_at` the step of it.
    """

    def __init__(self, run: Path, watch: Watch, on_event: Callable[[Event], None]) -> None:
        self.run, self.watch, self.on_event = run, watch, on_event
        self.parts: Tensor | None = None
        self.unread: list[tuple[int, Tensor, list[float]]] = []
        self.rates: list[float] = []
        self.measured: dict[str, float] = {}
        self.measured_at: int | None = None
        self._beside: dict[int, dict[str, float]] = {}
        self._loss = Smoothed()
        self._pace = Pace()

    def begin(self, trainer: pl.Trainer, task: Task) -> None:
        self._report(task.steps_done, task)

    def before_micro_step(self, trainer: pl.Trainer) -> None:
        """Note the learning rates that the step is made with."""
        groups = trainer.optimizers[0].param_groups
        self.rates = [group["lr"] * group.get("d", 1.0) for group in groups]  # Prodigy finds "d"
        self._pace.start()

    def after_micro_step(self, parts: Tensor) -> None:
        """Add the losses `parts` [2] of one micro-step to those of its step."""
        self.parts = parts if self.parts is None else self.parts + parts

    def measure(self, step: int, values: Mapping[str, float]) -> None:
        """Take what was measured at a step, to be written beside its losses; before those are."""
        self.measured = {**self.measured, **values}
        self.measured_at = step
        self._beside.setdefault(step, {}).update(values)

    def after_step(self, moment: Moment) -> None:
        assert self.parts is not None, "a micro-step was made"
        values = moment.task.crew.mean(self.parts / moment.task.config.accumulate)
        norm = moment.task.gradient_norm
        if norm is not None:
            values = torch.cat([values, norm.reshape(1).to(values)])
        self.unread.append((moment.step, values, self.rates))
        self.parts = None
        if self._pace.since_read > READ_EVERY_SECONDS or len(self.unread) >= READ_EVERY_STEPS:
            self.read(moment.task)
        self._pace.stop()
        self._report(moment.step, moment.task)

    def end(self, task: Task) -> None:
        self.read(task)
        self.watch.close(ok=True)

    def close(self) -> None:
        self.watch.close(ok=False)

    def read(self, task: Task) -> None:
        """Bring the losses since the last reading to the host, check and hand them on.

        Raises TrainingError for one that isn't finite.
        """
        if not task.crew.is_first:
            self.unread = []  # the first tells all what is wrong with them
        if not self.unread:
            return
        values = torch.stack([parts for _, parts, _ in self.unread]).tolist()
        rows = [
            _row(step, found, task, rates, self._beside.pop(step, {}))
            for (step, _, rates), found in zip(self.unread, values, strict=True)
        ]
        self.unread = []
        seconds = self._pace.read(len(rows))
        if self.watch.is_open:
            self.watch.rows(rows)
            self.watch.speed(rows[-1].step, len(rows), seconds)
        for row in rows:
            if not math.isfinite(row.loss):
                raise TrainingError(
                    f"The loss at step {row.step} isn't finite ({row.loss}): training has "
                    f"stopped.{advice(self.run)}"
                )
            self._loss.add(row.loss)

    def _report(self, step: int, task: Task) -> None:
        if task.global_rank == 0:
            self.on_event(
                Progress(
                    phase=PHASE,
                    step=step,
                    total=task.config.steps,
                    loss=self._loss.value,
                    per_second=self._pace.per_second,
                    memory=self.watch.memory,
                )
            )


def advice(run: Path) -> str:
    """Where the last good checkpoint is, and what to try."""
    kept = list_checkpoints(run)
    last = f" The last good checkpoint is {kept[0]}." if kept else ""
    return f"{last} Try a lower --learning-rate, or --set precision=32."


def _row(
    step: int,
    read: list[float],
    task: Task,
    rates: list[float],
    beside: Mapping[str, float],
) -> Row:
    """`read` is the instance loss, the prior loss and, if gradients are clipped, their norm."""
    instance, prior, *norm = read
    prior_weight = task.prior_weight  # None without prior preservation
    groups = [group.name for group in task.trained.groups]
    several = len(groups) == len(rates) > 1  # some optimisers make other groups
    return Row(
        step=step,
        loss=instance + (prior_weight or 0.0) * prior,
        instance_loss=instance,
        prior_loss=None if prior_weight is None else prior,
        learning_rate=rates[0],
        gradient_norm=norm[0] if norm else None,
        rates=dict(zip(groups, rates, strict=True)) if several else {},
        **beside,
    )
