"""Checkpoints at their intervals, and where a run is stopped."""

from pathlib import Path

import torch

from tintype.errors import TrainingError
from tintype.training.between.losses import Losses, advice
from tintype.training.between.part import Moment, Part
from tintype.training.checkpoint import Checkpoint, save_checkpoint


class Saving(Part):
    """Reads the losses first, so that no checkpoint is written after one that isn't finite."""

    def __init__(self, run: Path, losses: Losses, *, data_hash: str, config_hash: str) -> None:
        self.run, self.losses = run, losses
        self.data_hash, self.config_hash = data_hash, config_hash

    def after_step(self, moment: Moment) -> None:
        every = moment.task.config.checkpoint_every
        assert every is not None, "a resolved config"
        if (moment.stop and not moment.is_last) or moment.step % every == 0:
            self.losses.read(moment.task)
            self._save(moment)

    def _save(self, moment: Moment) -> None:
        """Write a checkpoint; raises TrainingError rather than write weights that aren't finite."""
        task = moment.task
        if not moment.is_first_rank:
            return
        weights = {name: p.detach() for name, p in task.trained.parameters.items()}
        finite = torch.stack([value.isfinite().all() for value in weights.values()])
        if not bool(finite.all()):
            bad = list(weights)[finite.tolist().index(False)]
            raise TrainingError(
                f"The weights {bad!r} aren't finite after step {moment.step}.{advice(self.run)}"
            )
        assert task.updates is not None, "training has begun"
        checkpoint = Checkpoint(
            step=moment.step,
            weights=weights,
            updates=task.updates.state(),
            scaler=moment.trainer.precision_plugin.state_dict(),
            config_hash=self.config_hash,
            data_hash=self.data_hash,
        )
        save_checkpoint(self.run, checkpoint, keep=task.config.keep_checkpoints)
