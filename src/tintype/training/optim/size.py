"""How large the state of an optimiser will be, before it has made a step."""

import torch

from tintype.training.keeping.space import size_of
from tintype.training.methods.method import Group, Trained
from tintype.training.nested import flatten
from tintype.training.optim.make import make_optimizer
from tintype.types import TrainConfig

SIDE = 512  # of the matrix that is tried: bitsandbytes' tables for one would count in a smaller


def state_size(trained: Trained, config: TrainConfig) -> int:
    """Bytes of what a checkpoint keeps beside the weights, from what one step leaves for a matrix;
    nearly, where an optimiser keeps another share for other shapes."""
    matrix = torch.nn.Parameter(torch.ones(SIDE, SIDE))
    rate = trained.groups[0].learning_rate
    group = Group(name="any", parameters={"any.weight": matrix}, learning_rate=rate)
    optimizer = make_optimizer([group], config)
    matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    _, tensors = flatten(optimizer.state_dict())
    ratio = size_of(tensors.values()) / size_of([matrix])
    averaged = config.optimizer.ema_decay is not None
    return round((ratio + averaged) * size_of(trained.parameters.values()))
