"""The loss of a denoising model: what is asked of it at each noise level, and how it is judged."""

import inspect
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from tintype.errors import ModelError
from tintype.models.model import Model
from tintype.runtime.carry import carried
from tintype.training.batch import Batch, Where
from tintype.training.objective.check import check_loss
from tintype.training.objective.distance import DISTANCES, mean_over_pixels
from tintype.training.objective.noise import make_noise, perturbed
from tintype.training.objective.process import TARGETS, Edm, Process, Timesteps
from tintype.types import LossConfig


@dataclass(frozen=True, kw_only=True)
class Noised:
    """A batch with noise on it: `inputs` go into the UNet at `timesteps`, `target` should come
    out; `weights` [n] are those of the losses and `thresholds` [n] of the Huber distances, or
    None."""

    inputs: Tensor
    timesteps: Tensor
    target: Tensor
    weights: Tensor | None = None
    thresholds: Tensor | None = None


class Objective(torch.nn.Module):
    """Noise and loss for one base model and one LossConfig; holds the schedule on its device.

    Raises ModelError for a prediction type that can't be trained, ConfigError for settings that
    contradict it or each other.
    """

    def __init__(self, model: Model, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.process = make_process(model, config)

    def noise(self, batch: Batch, where: Where, part: int = 0) -> Noised:
        """The batch with the noise and noise levels of that place in the run; `part` is the number
        of the batch within its micro-step."""

        def generator(stream: str) -> torch.Generator:
            made: torch.Generator = where.generator(f"{stream}/{part}" if part else stream)
            return made

        noise = make_noise(batch.latents.shape, self.config, generator)
        return self.apply_noise(
            batch,
            noise,
            self.process.draw(len(batch), generator("timestep")),
            perturbed(noise, self.config, generator),
        )

    def apply_noise(
        self, batch: Batch, noise: Tensor, levels: Tensor, added: Tensor | None = None
    ) -> Noised:
        """The noisy latents and the target of this noise [n, channels, height, width] at these
        timesteps (EDM: standard deviations) [n]; `added` is what is mixed in, if that differs."""
        device = batch.latents.device
        target_noise, levels = carried(noise, device), carried(levels, device)
        mixed = target_noise if added is None or added is noise else carried(added, device)
        inputs, timesteps, target = self.process.mix(batch.latents, target_noise, mixed, levels)
        return Noised(
            inputs=inputs,
            timesteps=timesteps,
            target=target,
            weights=self.process.weights(levels),
            thresholds=None if self.config.kind == "l2" else self.process.thresholds(levels),
        )

    def losses(self, prediction: Tensor, noised: Noised, mask: Tensor | None = None) -> Tensor:
        """The loss of each picture, [n]; `mask` [n, 1, height, width] weighs the latent pixels."""
        error = prediction.float() - noised.target
        thresholds = noised.target.new_zeros(1) if noised.thresholds is None else noised.thresholds
        distances = DISTANCES[self.config.kind](error, thresholds.view(-1, 1, 1, 1))
        losses = mean_over_pixels(distances, mask)
        return losses if noised.weights is None else losses * noised.weights


def make_process(model: Model, config: LossConfig) -> Process:
    """How this model is trained; raises as Objective does."""
    prediction = model.prediction_type
    if prediction != "edm" and prediction not in TARGETS:
        raise ModelError(
            "a model with this prediction can't be trained",
            field="prediction_type",
            value=prediction,
            choices=[*TARGETS, "edm"],
        )
    check_loss(config, prediction)
    if prediction == "edm":
        return Edm(model.scheduler_config, config)
    return Timesteps(with_schedule(model.scheduler_config, config), prediction, config)


def check_trainable(model: Model, config: LossConfig) -> None:
    """Raises as Objective does, before there is anything to train."""
    make_process(model, config)


def with_schedule(scheduler: dict[str, Any], config: LossConfig) -> dict[str, Any]:
    """A scheduler's config as it is after training with `config`.

    With `zero_terminal_snr` the last timestep has no signal (arXiv:2305.08891, algorithm 1), and
    whoever samples has to begin at it: with DDIM where the model's own scheduler can't.
    """
    if not config.zero_terminal_snr:
        return scheduler
    name = scheduler.get("_class_name", "DDIMScheduler")
    can = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {
        **scheduler,
        "_class_name": name if "rescale_betas_zero_snr" in can else "DDIMScheduler",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
