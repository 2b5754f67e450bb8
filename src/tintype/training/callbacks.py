"""What happens between steps: metrics, checkpoints, samples, and stopping."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from tintype.errors import TrainingError
from tintype.training.checkpoint import Checkpoint, list_checkpoints, save_checkpoint
from tintype.training.interrupt import StopWish
from tintype.training.metrics import Metrics, Row
from tintype.training.task import Task
from tintype.types import Event, Note, Progress

PHASE = "training"
READ_EVERY_SECONDS = 0.5
READ_EVERY_STEPS = 50


class Between(pl.Callback):
    """Runs after each optimiser step, on every rank; only rank 0 writes.

    Losses stay on the device and are read in one go every half second, so that no step waits for
    the device; before a checkpoint they are read too, so that none is written after a loss that
    isn't finite.
    """

    def __init__(
        self,
        run: Path,
        *,
        data_hash: str,
        config_hash: str,
        wish: StopWish,
        sample: Callable[[int], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self.run, self.data_hash, self.config_hash = run, data_hash, config_hash
        self.wish, self.sample, self.on_event = wish, sample, on_event
        self.metrics: Metrics | None = None
        self.parts: Tensor | None = None
        self.unread: list[tuple[int, Tensor, float]] = []
        self.last_read = time.monotonic()
        self.last_loss: float | None = None
        self.learning_rate = 0.0
        self.stopped_at: int | None = None
        self.validation: dict[int, float | None] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Task) -> None:
        self.wish.take_over()
        if pl_module.restored is not None:
            trainer.precision_plugin.load_state_dict(pl_module.restored.scaler)
            pl_module.restored = None
        if trainer.is_global_zero:
            self.metrics = Metrics(self.run, pl_module.steps_done)
        self._report(pl_module.steps_done, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Task, batch: int, batch_idx: int
    ) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.learning_rate = group["lr"] * group.get("d", 1.0)  # "d" is what Prodigy finds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Task, outputs: Any, batch: int, batch_idx: int
    ) -> None:
        accumulate = pl_module.config.accumulate
        parts = outputs["parts"]
        self.parts = parts if self.parts is None else self.parts + parts
        if (batch + 1) % accumulate:
            return
        step = (batch + 1) // accumulate
        self.unread.append((step, self.parts / accumulate, self.learning_rate))
        self.parts = None
        self._after_step(trainer, pl_module, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Task) -> None:
        self.read(pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: Task, stage: str) -> None:
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Task, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None

    def _after_step(self, trainer: pl.Trainer, module: Task, step: int) -> None:
        config = module.config
        assert config.checkpoint_every is not None, "a resolved config"
        assert module.updates is not None, "training has begun"
        module.updates.after_step(step)
        if step % config.checkpoint_every == 0 or step == config.steps:
            self._validate(trainer, module, step)
        stop = self._stop(trainer)
        late = time.monotonic() - self.last_read > READ_EVERY_SECONDS
        if late or len(self.unread) >= READ_EVERY_STEPS:
            self.read(module)
        self._report(step, module)
        if (stop and step < (config.steps or 0)) or step % config.checkpoint_every == 0:
            self.read(module)
            self._save(trainer, module, step)
        if stop:
            self.stopped_at = step
            trainer.should_stop = True
        elif config.sample_every and step % config.sample_every == 0 and trainer.is_global_zero:
            with module.as_used():
                self.sample(step)

    def _validate(self, trainer: pl.Trainer, module: Task, step: int) -> None:
        """Measure the loss of the pictures that were held out, if any were."""
        if module.data.validation is None or not trainer.is_global_zero:
            return
        with module.as_used():
            loss = module.validation_loss()
        self.validation[step] = loss
        self.on_event(Note(message=f"Validation loss at step {step}: {loss:.4f}"))

    def _stop(self, trainer: pl.Trainer) -> bool:
        """Whether any rank was asked to stop: all then do so after the same step."""
        if trainer.world_size == 1:
            return self.wish.made
        return bool(trainer.strategy.reduce_boolean_decision(self.wish.made, all=False))

    def _report(self, step: int, module: Task) -> None:
        event = Progress(phase=PHASE, step=step, total=module.config.steps, loss=self.last_loss)
        if module.global_rank == 0:
            self.on_event(event)

    def read(self, module: Task) -> None:
        """Bring the losses since the last reading to the host, check and write them.

        Raises TrainingError for one that isn't finite.
        """
        self.last_read = time.monotonic()
        if not self.unread:
            return
        values = torch.stack([parts for _, parts, _ in self.unread]).tolist()
        rows = [
            _row(step, parts, module.prior_weight, rate, self.validation.pop(step, None))
            for (step, _, rate), parts in zip(self.unread, values, strict=True)
        ]
        self.unread = []
        finite = [row for row in rows if math.isfinite(row.loss)]
        if self.metrics is not None:
            self.metrics.write(rows)
        if len(finite) < len(rows):
            bad = next(row for row in rows if not math.isfinite(row.loss))
            raise _not_finite(self.run, bad)
        self.last_loss = rows[-1].loss

    def _save(self, trainer: pl.Trainer, module: Task, step: int) -> None:
        """Write a checkpoint; raises TrainingError rather than write weights that aren't finite."""
        if not trainer.is_global_zero:
            return
        weights = {name: p.detach() for name, p in module.trained.parameters.items()}
        finite = torch.stack([value.isfinite().all() for value in weights.values()])
        if not bool(finite.all()):
            bad = list(weights)[finite.tolist().index(False)]
            raise TrainingError(
                f"The weights {bad!r} aren't finite after step {step}.{_advice(self.run)}"
            )
        assert module.updates is not None, "training has begun"
        checkpoint = Checkpoint(
            step=step,
            weights=weights,
            updates=module.updates.state(),
            scaler=trainer.precision_plugin.state_dict(),
            config_hash=self.config_hash,
            data_hash=self.data_hash,
        )
        save_checkpoint(self.run, checkpoint, keep=module.config.keep_checkpoints)


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


def _not_finite(run: Path, row: Row) -> TrainingError:
    return TrainingError(
        f"The loss at step {row.step} isn't finite ({row.loss}): training has stopped."
        f"{_advice(run)}"
    )


def _advice(run: Path) -> str:
    kept = list_checkpoints(run)
    last = f" The last good checkpoint is {kept[0]}." if kept else ""
    return f"{last} Try a lower --learning-rate, or --set precision=32."
