"""The optimiser and the learning rate's course."""

import math
from collections.abc import Sequence

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tintype.training.methods.method import Group
from tintype.types import TrainConfig


def make_optimizer(groups: Sequence[Group], config: TrainConfig) -> AdamW:
    """AdamW (arXiv:1711.05101), fused into one kernel.

    With 16-mixed it is not fused: a fused one unscales the gradients itself, which would then be
    clipped while still scaled.
    """
    return AdamW(
        [{"params": list(g.parameters.values()), "lr": g.learning_rate} for g in groups],
        weight_decay=config.optimizer.weight_decay,
        fused=config.precision != "16-mixed",
    )


def make_schedule(optimizer: Optimizer, config: TrainConfig) -> LambdaLR:
    """The learning rate of each step: a linear rise over `warmup_steps`, then `schedule`."""
    assert config.steps is not None, "a resolved config"
    steps, warmup = config.steps, config.optimizer.warmup_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        if config.optimizer.schedule == "linear":
            return 1 - done
        if config.optimizer.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    return LambdaLR(optimizer, factor)
