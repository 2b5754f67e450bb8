"""The optimiser and the learning rate's course."""

import math
from collections.abc import Iterable

import torch
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tintype.types import TrainConfig


def make_optimizer(parameters: Iterable[torch.nn.Parameter], config: TrainConfig) -> AdamW:
    """AdamW (arXiv:1711.05101), fused into one kernel.

    With 16-mixed it is not fused: a fused one unscales the gradients itself, which would then be
    clipped while still scaled.
    """
    assert config.learning_rate is not None, "a resolved config"
    return AdamW(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=config.precision != "16-mixed",
    )


def make_schedule(optimizer: Optimizer, config: TrainConfig) -> LambdaLR:
    """The learning rate of each step: a linear rise over `warmup_steps`, then `schedule`."""
    assert config.steps is not None, "a resolved config"
    steps, warmup = config.steps, config.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        if config.schedule == "linear":
            return 1 - done
        if config.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    return LambdaLR(optimizer, factor)
