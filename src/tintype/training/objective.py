"""The loss of a denoising model: what is asked of it at each timestep, and how it is judged."""

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional

from tintype.errors import ModelError
from tintype.models.model import Model
from tintype.training.batch import Batch, Where
from tintype.types import LossConfig

PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True, kw_only=True)
class Noised:
    """A batch with noise on it: `inputs` go into the UNet at `timesteps`, `target` should come
    out; `weights` [n] are those of the losses, or None."""

    inputs: Tensor
    timesteps: Tensor
    target: Tensor
    weights: Tensor | None = None


class Objective(torch.nn.Module):
    """Noise and loss for one base model and one LossConfig; holds the schedule on its device.

    Raises ModelError for a prediction type that can't be trained.
    """

    def __init__(self, model: Model, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        schedule = DDPMScheduler.from_config(model.scheduler_config)
        self.prediction_type = schedule.config.prediction_type
        if self.prediction_type not in PREDICTIONS:
            raise ModelError(
                "a model with this prediction can't be trained",
                field="prediction_type",
                value=self.prediction_type,
                choices=PREDICTIONS,
            )
        kept = schedule.alphas_cumprod.float()
        self.register_buffer("signal_rate", kept.sqrt(), persistent=False)
        self.register_buffer("noise_rate", (1 - kept).sqrt(), persistent=False)

    def noise(self, batch: Batch, where: Where) -> Noised:
        """The batch with the noise and timesteps of that place in the run."""
        device = batch.latents.device
        noise = torch.randn(batch.latents.shape, generator=where.generator("noise"))
        timesteps = torch.randint(
            len(self.signal_rate), (len(batch),), generator=where.generator("timestep")
        )
        return self.apply_noise(
            batch, noise.to(device, non_blocking=True), timesteps.to(device, non_blocking=True)
        )

    def apply_noise(self, batch: Batch, noise: Tensor, timesteps: Tensor) -> Noised:
        """The noisy latents and the target of this noise at these timesteps."""
        signal = self.signal_rate[timesteps].view(-1, 1, 1, 1)
        rate = self.noise_rate[timesteps].view(-1, 1, 1, 1)
        target = noise
        if self.prediction_type == "v_prediction":  # arXiv:2202.00512, appendix D
            target = signal * noise - rate * batch.latents
        return Noised(
            inputs=signal * batch.latents + rate * noise, timesteps=timesteps, target=target
        )

    def losses(self, prediction: Tensor, noised: Noised, mask: Tensor | None = None) -> Tensor:
        """The loss of each picture, [n]; `mask` weighs the latent pixels."""
        error = functional.mse_loss(prediction.float(), noised.target, reduction="none")
        losses = error.mean(dim=(1, 2, 3))
        return losses if noised.weights is None else losses * noised.weights
