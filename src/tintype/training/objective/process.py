"""How noise is mixed with latents, and what a model then predicts: by timesteps, or as in EDM."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from tintype.models.families.predicts import edm_coefficients
from tintype.training.objective.distance import THRESHOLDS
from tintype.training.objective.sampling import SigmaRange, draw_sigmas, draw_timesteps
from tintype.training.objective.weighting import weights_of
from tintype.types import LossConfig

# What should come out of the UNet: from latents, noise, signal rate and noise rate.
TARGETS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda latents, noise, signal, rate: noise,
    # arXiv:2202.00512, appendix D
    "v_prediction": lambda latents, noise, signal, rate: signal * noise - rate * latents,
    "sample": lambda latents, noise, signal, rate: latents,
}


class Process(torch.nn.Module, ABC):
    """A way of adding noise; holds its schedule on its device.

    A `level` is a timestep, or a standard deviation of noise, [n].
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Levels [n] to train at, on the CPU."""

    @abstractmethod
    def mix(
        self, latents: Tensor, noise: Tensor, added: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What goes into the UNet, its timesteps [n], and what should come out.

        `added` is the noise that is mixed in, `noise` that to be predicted.
        """

    @abstractmethod
    def weights(self, levels: Tensor) -> Tensor | None:
        """The weights [n] of the losses, or None."""

    @abstractmethod
    def thresholds(self, levels: Tensor) -> Tensor:
        """The thresholds [n] of the Huber distances."""


class Timesteps(Process):
    """x_t = signal_rate * x0 + noise_rate * noise (arXiv:2006.11239, equation 4)."""

    signal_rate: Tensor
    noise_rate: Tensor

    def __init__(self, scheduler: dict[str, Any], prediction: str, config: LossConfig) -> None:
        super().__init__(config)
        self.prediction = prediction
        kept = DDPMScheduler.from_config(scheduler).alphas_cumprod.float()
        self.register_buffer("signal_rate", kept.sqrt(), persistent=False)
        self.register_buffer("noise_rate", (1 - kept).sqrt(), persistent=False)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return draw_timesteps(n, len(self.signal_rate), self.config, generator)

    def mix(
        self, latents: Tensor, noise: Tensor, added: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        signal = self.signal_rate[levels].view(-1, 1, 1, 1)
        rate = self.noise_rate[levels].view(-1, 1, 1, 1)
        target = TARGETS[self.prediction](latents, noise, signal, rate)
        return signal * latents + rate * added, levels, target

    def weights(self, levels: Tensor) -> Tensor | None:
        snr = (self.signal_rate[levels] / self.noise_rate[levels]) ** 2
        return weights_of(snr, self.prediction, self.config)

    def thresholds(self, levels: Tensor) -> Tensor:
        sigma = self.noise_rate[levels] / self.signal_rate[levels]
        place = levels / len(self.signal_rate)
        return THRESHOLDS[self.config.huber_schedule](self.config.huber_delta, place, sigma)


class Edm(Process):
    """x = x0 + sigma * noise, preconditioned (arXiv:2206.00364, section 5).

    The target is that of the network itself, with which a plain squared error is EDM's weighting
    lambda(sigma) = 1 / c_out^2 of the error of the denoised latents (equation 8).
    """

    def __init__(self, scheduler: dict[str, Any], config: LossConfig) -> None:
        super().__init__(config)
        self.scheduler = scheduler
        self.range = SigmaRange(
            smallest=float(scheduler.get("sigma_min", 0.002)),
            largest=float(scheduler.get("sigma_max", 80.0)),
            rho=float(scheduler.get("rho", 7.0)),
            total=int(scheduler.get("num_train_timesteps", 1000)),
        )

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return draw_sigmas(n, self.range, self.config, generator).float()

    def mix(
        self, latents: Tensor, noise: Tensor, added: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        sigma = levels.view(-1, 1, 1, 1)
        c_in, c_noise, c_skip, c_out = edm_coefficients(self.scheduler, sigma)
        # (x0 - c_skip * x) / c_out, with 1 - c_skip = (sigma * c_in)^2, which little noise
        # doesn't round away
        target = ((sigma * c_in) ** 2 * latents - c_skip * sigma * noise) / c_out
        return c_in * (latents + sigma * added), c_noise.flatten(), target

    def weights(self, levels: Tensor) -> Tensor | None:
        return None

    def thresholds(self, levels: Tensor) -> Tensor:
        return torch.full_like(levels, self.config.huber_delta)
