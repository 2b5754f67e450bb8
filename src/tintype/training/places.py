"""The places of a run at which data is drawn, all of them known before it begins."""

import math
from collections.abc import Iterator

from tintype.training.batch import Where
from tintype.training.seeds import stream_seed
from tintype.types import TrainConfig

DRAWS = 200  # of the base's predictions, where they have to be written down


def micro_steps(config: TrainConfig, done: int) -> range:
    """The micro-steps from the step `done` to the end."""
    assert config.steps is not None, "a resolved config"
    return range(done * config.accumulate, config.steps * config.accumulate)


def lesson_places(config: TrainConfig) -> list[Where]:
    """Where data is drawn for a teacher's Notebook: for as many as class pictures would be."""
    assert config.batch_size is not None, "a resolved config"
    draws = (config.prior.pictures or DRAWS) * (1 + config.prior.unconditional)
    pages = math.ceil(draws / config.batch_size)
    own = stream_seed(config.seed, 0, 0, "prior")
    return [Where(seed=own, step=page) for page in range(pages)]


def unconditional_share(config: TrainConfig) -> float:
    """How much of what a teacher is asked about has the empty prompt: as of pictures."""
    return config.prior.unconditional / (1 + config.prior.unconditional)


def class_batch(config: TrainConfig) -> int:
    """How many pictures of a micro-step preserve the class."""
    assert config.batch_size is not None, "a resolved config"
    prior = config.prior
    if not prior.weight:
        return 0
    if prior.source == "model":
        return config.batch_size
    return min(config.batch_size, prior.batch_size or config.batch_size) if prior.pictures else 0


def asks_base(config: TrainConfig) -> bool:
    """Whether the base's own predictions are what preserves the class."""
    prior = config.prior
    return bool(prior.weight) and (prior.source == "model" or prior.distill)


class Places:
    """All places from a step on; those of a Notebook before them, if there is one."""

    def __init__(self, config: TrainConfig, done: int, *, notebook: bool) -> None:
        self.before = lesson_places(config) if notebook else []
        self.seed, self.steps = config.seed, micro_steps(config, done)

    def __iter__(self) -> Iterator[Where]:
        yield from self.before
        for step in self.steps:
            yield Where(seed=self.seed, step=step)
