"""How often each noise level is trained; one row a way.

A way maps u, uniform in 0..1, to a place in 0..1 on the way from no noise to all noise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tintype.types import LossConfig

ShapePlace = Callable[[Tensor, float, float], Tensor]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A way of choosing noise levels; `mean` and `std` are what its normal distribution has if
    the config doesn't say, or None where there is none.

    `place` is None for log-normal noise levels, which are not places but standard deviations.
    """

    place: ShapePlace | None
    mean: float | None = None
    std: float | None = None

    def moments(self, config: LossConfig) -> tuple[float, float]:
        """Mean and standard deviation of the normal distribution; 0 and 1 where none is used."""
        mean = self.mean if config.timestep_mean is None else config.timestep_mean
        std = self.std if config.timestep_std is None else config.timestep_std
        return (0.0 if mean is None else mean), (1.0 if std is None else std)


def uniform(u: Tensor, mean: float, std: float) -> Tensor:
    """Every level as often."""
    return u


def logit_normal(u: Tensor, mean: float, std: float) -> Tensor:
    """The middle more often than the ends (arXiv:2403.03206, section 3.1)."""
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


def cubic(u: Tensor, mean: float, std: float) -> Tensor:
    """Much noise more often: 1 - u^3 (arXiv:2302.08453)."""
    return 1 - u**3


SAMPLINGS = {
    "uniform": Sampling(place=uniform),
    "logit-normal": Sampling(place=logit_normal, mean=0.0, std=1.0),
    "cubic": Sampling(place=cubic),
    # table 1 of arXiv:2206.00364
    "log-normal": Sampling(place=None, mean=-1.2, std=1.2),
}
# A place of exactly 0 or 1 has no quantile.
EDGE = 1e-6


def draw_timesteps(n: int, total: int, config: LossConfig, generator: torch.Generator) -> Tensor:
    """Timesteps [n] of `total`, on the CPU, within the config's range (its end not included)."""
    low, high = config.timestep_range or (0, total)
    name = config.timesteps or "uniform"
    if name == "uniform":
        return torch.randint(low, high, (n,), generator=generator)
    place = _places(n, name, config, generator)
    return (low + (high - low) * place).long().clamp(low, high - 1)


def draw_sigmas(n: int, bounds: "SigmaRange", config: LossConfig, gen: torch.Generator) -> Tensor:
    """Standard deviations of the noise [n] of an EDM model, on the CPU.

    Log-normal ones are cut at the ends of the range; others are places on the schedule that EDM
    samples with (arXiv:2206.00364, equation 5).
    """
    low, high = (edge / bounds.total for edge in config.timestep_range or (0, bounds.total))
    name = config.timesteps or "log-normal"
    if name != "log-normal":
        return bounds.at(low + (high - low) * _places(n, name, config, gen))
    mean, std = SAMPLINGS[name].moments(config)
    ends = (bounds.at(torch.tensor([low, high], dtype=torch.float64)).log() - mean) / std
    start, end = torch.special.ndtr(ends)
    u = start + (end - start) * torch.rand(n, generator=gen, dtype=torch.float64)
    return (mean + std * torch.special.ndtri(u.clamp(EDGE, 1 - EDGE))).exp()


@dataclass(frozen=True, kw_only=True)
class SigmaRange:
    """The noise levels of an EDM model: from `smallest` to `largest` in `total` steps."""

    smallest: float
    largest: float
    rho: float
    total: int

    def at(self, place: Tensor) -> Tensor:
        """The standard deviation at each place in 0..1."""
        ends = [math.pow(edge, 1 / self.rho) for edge in (self.smallest, self.largest)]
        return (ends[0] + place * (ends[1] - ends[0])) ** self.rho


def _places(n: int, name: str, config: LossConfig, generator: torch.Generator) -> Tensor:
    sampling = SAMPLINGS[name]
    assert sampling.place is not None, "log-normal has no places: checked by check_loss"
    u = torch.rand(n, generator=generator, dtype=torch.float64).clamp(EDGE, 1 - EDGE)
    return sampling.place(u, *sampling.moments(config))
