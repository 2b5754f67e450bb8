"""The exponential moving average of the trained parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def decay_at(step: int, decay: float) -> float:
    """How much of the average is kept at the step-th update, from 1 on: (1 + step) / (10 + step)
    until that reaches `decay`, so that a short run doesn't end near where it began."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """The average of parameters, by name, on their device."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """average = decay * average + (1 - decay) * parameter, after the step-th step."""
        new = [parameters[name].detach() for name in self.values]
        get_ema_multi_avg_fn(decay_at(step, self.decay))(list(self.values.values()), new, step)

    @torch.no_grad()
    def swap(self, parameters: Mapping[str, Tensor]) -> None:
        """Exchange averages and parameters, exactly, one by one; a second time undoes it."""
        for name, value in self.values.items():
            kept = parameters[name].clone()
            parameters[name].copy_(value)
            value.copy_(kept)

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Take up these values."""
        for name, value in self.values.items():
            value.copy_(values[name])
