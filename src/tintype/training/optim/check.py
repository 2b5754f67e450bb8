"""Settings of the optimiser that can't be, found before anything is loaded."""

import inspect
from typing import Any

import torch

from tintype.errors import ConfigError
from tintype.training.methods.method import Group
from tintype.training.methods.narrow import PURE
from tintype.training.optim.make import ONE_RATE, contradiction, make_optimizer
from tintype.training.optim.schedules import check_schedule
from tintype.training.optim.table import OPTIMIZERS, OptimizerSpec, optimizer_spec
from tintype.types import OptimizerConfig, TrainConfig

# Arguments that fields of the config stand for.
FIELDS = {"lr": "learning_rate", "weight_decay": "optimizer.weight_decay"}
OURS = ("self", "params", "fused")


def check_optimizer(config: TrainConfig) -> None:
    """Raises ConfigError for a name or an argument that isn't there and for settings that
    contradict each other, MissingExtraError for a package that isn't installed."""
    ours = config.optimizer
    spec = optimizer_spec(ours.name)
    check_schedule(ours)
    _check_arguments(spec, ours)
    if spec.averages and ours.schedule != "constant":
        raise contradiction("schedule", ours, "it averages in place of a schedule")
    if spec.averages and ours.ema_decay is not None:
        raise contradiction("ema_decay", ours, "it averages the weights itself")
    rates = (None, config.learning_rate or spec.learning_rate)
    if spec.one_rate and ours.text_encoder_learning_rate not in rates:
        raise contradiction("text_encoder_learning_rate", ours, ONE_RATE)
    if config.precision == PURE and not spec.each_alone:
        raise ConfigError(
            f"its updates aren't those of each weight by itself, so not with precision {PURE}",
            field="optimizer.name",
            value=ours.name,
            choices=[name for name, row in OPTIMIZERS.items() if row.each_alone],
        )
    # what only its own constructor can tell
    make_optimizer([_something()], config)


def optimizer_defaults(name: str) -> dict[str, Any]:
    """Values of a config that an optimiser wants in place of the model's; raises ConfigError."""
    rate = optimizer_spec(name).learning_rate
    return {} if rate is None else {"learning_rate": rate}


def _check_arguments(spec: OptimizerSpec, config: OptimizerConfig) -> None:
    """Raises ConfigError for an argument that the optimiser's class doesn't name."""
    named = inspect.signature(spec.load().__init__).parameters.values()
    known = [p.name for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [name for name in known if name not in (*OURS, *FIELDS)]
    for key in config.arguments:
        if key in FIELDS:
            raise ConfigError(
                f"is the config's own: set {FIELDS[key]}", field="optimizer.arguments", value=key
            )
        if key not in known:
            raise ConfigError(
                f"no such argument of {config.name}",
                field="optimizer.arguments",
                value=key,
                choices=known,
            )


def _something() -> Group:
    """Any group of parameters."""
    return Group(
        name="any", parameters={"any": torch.nn.Parameter(torch.zeros(2, 2))}, learning_rate=1e-4
    )
