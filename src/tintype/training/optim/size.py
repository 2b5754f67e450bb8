"""How large the state of an optimiser will be, and what a step of it takes, before it made one."""

from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tintype.runtime.ledger import Ledger, Work
from tintype.training.keeping.space import size_of
from tintype.training.methods.method import Group, Trained
from tintype.training.nested import flatten
from tintype.training.optim.make import make_optimizer
from tintype.training.optim.table import optimizer_spec
from tintype.types import TrainConfig

SIDE = 512  # of the matrix that is tried: bitsandbytes' tables for one would count in a smaller


def kept_size(trained: Trained, config: TrainConfig) -> int:
    """Bytes of the weights that are set aside while their average stands for them."""
    own = trained.parameters.values()
    if optimizer_spec(config.optimizer.name).averages:
        return size_of(own)
    if config.optimizer.ema_decay is None:
        return 0
    return size_of(p for p in own if p.dtype != torch.float32)


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
    # whatever the weights are in, their updates are in float32
    wide = matrix.itemsize * sum(p.numel() for p in trained.parameters.values())
    return round((ratio + averaged) * wide)


def update_work(trained: Trained, config: TrainConfig, device: torch.device) -> Work:
    """What a step of the optimiser does on that device: reads and writes its state and the weights,
    and gradients for their norm and for the step; or, of one that multiplies matrices, all of its
    operators."""
    if not optimizer_spec(config.optimizer.name).multiplies:
        gradients = size_of(trained.parameters.values())
        moved = 2 * state_size(trained, config) + 4 * gradients
        return Work(convolutions=0, products=0, moved=moved)
    with FakeTensorMode():
        groups = [
            replace(
                group,
                parameters={n: _with_gradient(p, device) for n, p in group.parameters.items()},
            )
            for group in trained.groups
        ]
        optimizer = make_optimizer(groups, config)
        with Ledger() as ledger:
            optimizer.step()
    return ledger.work


def _with_gradient(like: torch.nn.Parameter, device: torch.device) -> torch.nn.Parameter:
    empty = torch.empty(like.shape, dtype=like.dtype, device=device)
    parameter = torch.nn.Parameter(empty)
    parameter.grad = torch.empty_like(parameter)
    return parameter
