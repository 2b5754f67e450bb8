"""The course of the learning rate, by name: one row each."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tintype.errors import ConfigError
from tintype.types import OptimizerConfig, TrainConfig

SMALLEST = 0.01  # of the learning rate, where an exponential course ends

# A factor of the learning rate, from how much is done, 0..1.
Course = Callable[[float, OptimizerConfig], float]


def constant(done: float, config: OptimizerConfig) -> float:
    """The same throughout."""
    return 1.0


def linear(done: float, config: OptimizerConfig) -> float:
    """Straight to 0."""
    return 1 - done


def cosine(done: float, config: OptimizerConfig) -> float:
    """Half a cosine to 0 (arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def cosine_restarts(done: float, config: OptimizerConfig) -> float:
    """`cycles` half cosines, each from the top again (arXiv:1608.03983)."""
    return 0.0 if done >= 1 else cosine(config.cycles * done % 1, config)


def polynomial(done: float, config: OptimizerConfig) -> float:
    """A power of what is left."""
    return float((1 - done) ** config.power)


def exponential(done: float, config: OptimizerConfig) -> float:
    """By the same factor each step, to a hundredth."""
    return float(SMALLEST**done)


def rex(done: float, config: OptimizerConfig) -> float:
    """Slowly at first, then fast, to 0 (arXiv:2107.04197)."""
    return (1 - done) / (1 - done / 2)


SCHEDULES: dict[str, Course] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine-restarts": cosine_restarts,
    "polynomial": polynomial,
    "exponential": exponential,
    "rex": rex,
}


def make_schedule(optimizer: Optimizer, config: TrainConfig) -> LambdaLR:
    """The learning rate of each step: a linear rise over `warmup_steps`, then the schedule."""
    assert config.steps is not None, "a resolved config"
    steps, warmup = config.steps, config.optimizer.warmup_steps
    course = SCHEDULES[config.optimizer.schedule]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return course(min(1.0, (step - warmup) / max(1, steps - warmup)), config.optimizer)

    return LambdaLR(optimizer, factor)


def check_schedule(config: OptimizerConfig) -> None:
    """Raises ConfigError for a name that isn't there, or a parameter that it doesn't have."""
    name = config.schedule
    if name not in SCHEDULES:
        raise ConfigError(
            "no such schedule", field="optimizer.schedule", value=name, choices=SCHEDULES
        )
    for field, owner, default in (("cycles", "cosine-restarts", 1), ("power", "polynomial", 2.0)):
        value = getattr(config, field)
        if value != default and name != owner:
            raise ConfigError(
                f"contradicts optimizer.schedule {name}: only {owner} has it",
                field=f"optimizer.{field}",
                value=value,
            )
