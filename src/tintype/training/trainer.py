"""Lightning's Trainer, set up for short steps and kept quiet."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.between import Between
from tintype.training.methods.method import Trained
from tintype.training.task import Task
from tintype.types import TrainConfig

LOGGERS = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to train, in Lightning's words, and the torch device of this process."""

    accelerator: str
    devices: int | str | list[int]
    device: torch.device

    @classmethod
    def of(cls, config: TrainConfig, device: str) -> "Place":
        """`device` ("auto", "cpu", "cuda", "cuda:1", "mps") goes before the config's accelerator.

        Raises ConfigError for an accelerator that isn't there.
        """
        kind, _, index = device.partition(":")
        accelerator = {"auto": config.accelerator, "cuda": "gpu"}.get(kind, kind)
        if accelerator in ("auto", "gpu", "cuda"):
            found = _found()
            if accelerator != "auto" and found == "cpu":
                raise ConfigError("no GPU is found here", field="device", value=device)
            accelerator = found
        names = {"cuda": "cuda", "mps": "mps", "cpu": "cpu"}
        if accelerator not in names:
            raise ConfigError(
                "not an accelerator known here",
                field="accelerator",
                value=accelerator,
                choices=["auto", "gpu", *sorted(set(AcceleratorRegistry.available_accelerators()))],
            )
        devices: int | str | list[int] = [int(index)] if index else config.devices
        number = index or os.environ.get("LOCAL_RANK", "0")
        where = torch.device("cuda", int(number)) if accelerator == "cuda" else accelerator
        return cls(accelerator=accelerator, devices=devices, device=torch.device(where))


def _found() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def train(task: Task, between: Between, place: Place, run: Path) -> None:
    """All steps from `task.steps_done` on; raises ConfigError for what Lightning can't set up."""
    config = task.config
    assert config.steps is not None, "a resolved config"
    strategy = config.strategy
    if strategy == "auto" and config.train_text_encoder and place.devices not in (1, "1"):
        # SDXL takes a hidden state before the last layers, which then have no gradient
        strategy = "auto" if isinstance(place.devices, list) else "ddp_find_unused_parameters_true"
    with quiet():
        try:
            trainer = pl.Trainer(
                accelerator=place.accelerator,
                devices=place.devices,
                strategy=strategy,
                precision=config.precision,
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
        micro_steps = range(task.steps_done * config.accumulate, config.steps * config.accumulate)
        if micro_steps:
            try:
                trainer.fit(task, train_dataloaders=micro_steps)
            except SystemExit:  # what Lightning makes of a KeyboardInterrupt
                raise KeyboardInterrupt from None
        else:  # a run that was killed between its last step and its end
            task.configure_optimizers()


def release(model: Model, trained: Trained, *, encodes: bool = False) -> None:
    """Move the parts that aren't trained off the device, but for text encoders that are asked at
    each step."""
    kept = {*trained.parts, *(spec.folder for spec in model.family.text_encoders if encodes)}
    for name, part in model.parts.items():
        if name not in kept:
            part.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's banners and advice, which are about choices made here, off the screen."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            warnings.filterwarnings("ignore", message=".*(lr_scheduler.step|LeafSpec).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
