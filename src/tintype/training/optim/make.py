"""An optimiser made from its row and the config."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from tintype.errors import ConfigError
from tintype.training.methods.method import Group
from tintype.training.methods.narrow import PURE
from tintype.training.optim.rounding import Rounded
from tintype.training.optim.table import optimizer_spec
from tintype.types import OptimizerConfig, TrainConfig

ONE_RATE = "it finds one learning rate for all that trains"


def make_optimizer(groups: Sequence[Group], config: TrainConfig) -> Optimizer:
    """The optimiser of these groups of parameters, fused into one kernel where it can be.

    With 16-mixed none is fused: a fused one unscales the gradients itself, which would then be
    clipped while still scaled. With bf16-true it rounds by chance. Raises ConfigError for values
    that it refuses.
    """
    ours = config.optimizer
    spec = optimizer_spec(ours.name)
    rates = {group.learning_rate for group in groups}
    if spec.one_rate and len(rates) > 1:
        told = ", ".join(f"{group.name} {group.learning_rate:g}" for group in groups)
        raise contradiction("name", ours, f"{ONE_RATE}, and there are several ({told})")
    arguments = {**spec.defaults, **{k: _tupled(v) for k, v in ours.arguments.items()}}
    if spec.fused:
        arguments["fused"] = config.precision != "16-mixed"
    parameters = [{**group, "weight_decay": ours.weight_decay} for group in spec.groups(groups)]
    try:
        made = spec.load()(parameters, **arguments)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(
            f"{ours.name} refuses it: {error}", field="optimizer.arguments", value=ours.arguments
        ) from None
    return Rounded(made, config.seed) if config.precision == PURE else made


def contradiction(field: str, config: OptimizerConfig, why: str) -> ConfigError:
    return ConfigError(
        f"contradicts optimizer.name {config.name}: {why}",
        field=f"optimizer.{field}",
        value=getattr(config, field),
    )


def _tupled(value: Any) -> Any:
    """Lists, which is what YAML has for tuples."""
    return tuple(value) if isinstance(value, list) else value
