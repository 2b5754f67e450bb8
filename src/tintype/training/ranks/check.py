"""Settings that can't be on several devices, found before anything is loaded."""

from tintype.errors import ConfigError
from tintype.training.methods import METHODS, method
from tintype.training.optim import OPTIMIZERS
from tintype.training.ranks.ranks import Ranks
from tintype.training.ranks.shards import SHARDED
from tintype.types import TrainConfig

STRATEGIES = ("auto", "ddp", SHARDED)
SHARDABLE = ("32", "bf16-mixed")


def check_strategy(config: TrainConfig) -> None:
    """Raises ConfigError for a strategy that isn't there, and for what can't be sharded."""
    if config.strategy not in STRATEGIES:
        raise ConfigError(
            "no such strategy", field="strategy", value=config.strategy, choices=STRATEGIES
        )
    if config.strategy != SHARDED:
        return
    if not method(config.method).shards:
        able = " or ".join(name for name in METHODS if method(name).shards)
        raise ConfigError(
            f"spreads the weights of a whole model, which only {able} trains: with method "
            f"{config.method}, which has few to spread, type --strategy ddp",
            field="strategy",
            value=SHARDED,
        )
    if not OPTIMIZERS[config.optimizer.name].shards:
        raise ConfigError(
            "its state can't be spread over devices, so not with strategy fsdp",
            field="optimizer.name",
            value=config.optimizer.name,
            choices=[name for name, spec in OPTIMIZERS.items() if spec.shards],
        )
    if config.precision not in SHARDABLE:
        raise ConfigError(
            "not with strategy fsdp",
            field="precision",
            value=config.precision,
            choices=SHARDABLE,
        )


def check_batch(config: TrainConfig, ranks: Ranks) -> None:
    """Raises ConfigError unless each process gets as many pictures, once their number is known."""
    batch, number = config.batch_size, ranks.ranks
    if batch is None or batch % number == 0:
        return
    over = f"{number} devices"
    if ranks.nodes > 1:
        over = f"{ranks.nodes} machines with {ranks.devices} devices each"
    more = -(-batch // number) * number
    raise ConfigError(
        f"instance pictures of a step over all devices, so a multiple of {number} with {over}: "
        f"type --batch-size {more}",
        field="batch_size",
        value=batch,
    )
