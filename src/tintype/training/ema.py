"""The exponential moving average of the trained parameters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def decay_at(step: int, decay: float) -> float:
    """How much of the average is kept at the step-th update, from 1 on: (1 + step) / (10 + step)
    until that reaches `decay`, so that a short run doesn't end near where it began."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """The average of parameters, by name, on their device, in float32."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().float().clone() for name, p in parameters.items()}

    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """average = decay * average + (1 - decay) * parameter, after the step-th step."""
        average = get_ema_multi_avg_fn(decay_at(step, self.decay))
        wide = [name for name in self.values if parameters[name].dtype == torch.float32]
        narrow = [[name] for name in self.values if name not in wide]  # widened one by one
        for names in ([wide] if wide else []) + narrow:
            values = [self.values[name] for name in names]
            average(values, [parameters[name].detach().float() for name in names], step)

    @contextmanager
    def instead_of(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """The parameters as their averages, nearly where they are narrower; then exactly as they
        were."""
        narrow = {n: p.detach().clone() for n, p in parameters.items() if p.dtype != torch.float32}
        self._swap(parameters)
        try:
            yield
        finally:
            self._swap(parameters)
            with torch.no_grad():
                for name, value in narrow.items():
                    parameters[name].copy_(value)

    @torch.no_grad()
    def _swap(self, parameters: Mapping[str, Tensor]) -> None:
        """Exchange averages and parameters, one by one, which takes no memory; a second time undoes
        it."""
        for name, value in self.values.items():
            if parameters[name].dtype == value.dtype:
                kept = parameters[name].clone()
                parameters[name].copy_(value)
                value.copy_(kept)
            else:
                parameters[name].copy_(value)

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Take up these values."""
        for name, value in self.values.items():
            value.copy_(values[name])
