"""Lightning's Trainer, set up for short steps and kept quiet."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.between import Between
from tintype.training.methods.method import Trained
from tintype.training.methods.narrow import PURE
from tintype.training.place import Place
from tintype.training.places import micro_steps
from tintype.training.ranks.quiet import quiet
from tintype.training.ranks.ranks import Ranks, RanksEnvironment
from tintype.training.ranks.shards import SHARDED
from tintype.training.speed import choose
from tintype.training.task import Task
from tintype.types import TrainConfig


def train(task: Task, between: Between, place: Place, run: Path) -> None:
    """All steps from `task.steps_done` on; raises ConfigError for what Lightning can't set up."""
    config = task.config
    steps = micro_steps(config, task.steps_done)
    tell = between.watch.on_event
    task.speed = choose(config, task.model.unet, place.device, calls=len(steps), tell=tell)
    with quiet(), task.speed:
        try:
            trainer = pl.Trainer(
                accelerator=place.accelerator,
                devices=place.devices,
                num_nodes=place.ranks.nodes,
                strategy=strategy_of(config, place.ranks),
                plugins=[RanksEnvironment(place.ranks)],
                # which would also narrow the noise schedule
                precision="32" if config.precision == PURE else config.precision,
                max_epochs=1,
                accumulate_grad_batches=config.accumulate,
                gradient_clip_val=config.optimizer.clip_norm or None,
                callbacks=[between],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                default_root_dir=run,
            )
        except (MisconfigurationException, ValueError) as error:
            raise ConfigError(f"Lightning can't set this up: {error}", field="devices") from None
        if steps:
            try:
                trainer.fit(task, train_dataloaders=steps)
            except SystemExit:  # what Lightning makes of a KeyboardInterrupt
                raise KeyboardInterrupt from None
        else:  # a run that was killed between its last step and its end
            task.configure_model()
            task.configure_optimizers()


def strategy_of(config: TrainConfig, ranks: Ranks) -> Strategy | str:
    """How processes bring their gradients together; the environment is given to the Trainer."""
    if ranks.ranks == 1:
        return "auto"
    if config.strategy == SHARDED:
        return ModelParallelStrategy(data_parallel_size=ranks.ranks, tensor_parallel_size=1)
    return DDPStrategy(
        # all make the same model, whose buffers don't change
        broadcast_buffers=False,
        # SDXL takes a hidden state before the last layers, which then have no gradient
        find_unused_parameters=config.train_text_encoder,
    )


def release(model: Model, trained: Trained, *, encodes: bool = False) -> None:
    """Move the parts that aren't trained off the device, but for text encoders that are asked at
    each step."""
    kept = {*trained.parts, *(spec.folder for spec in model.family.text_encoders if encodes)}
    for name, part in model.parts.items():
        if name not in kept:
            part.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
