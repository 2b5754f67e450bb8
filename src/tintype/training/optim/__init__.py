"""How the trained parameters are changed: optimisers, the learning rate's course, averages."""

from tintype.training.optim.check import check_optimizer, optimizer_defaults
from tintype.training.optim.size import kept_size, state_size, update_work
from tintype.training.optim.table import OPTIMIZERS, optimizer_spec
from tintype.training.optim.updates import Updates

__all__ = [
    "OPTIMIZERS",
    "Updates",
    "check_optimizer",
    "kept_size",
    "optimizer_defaults",
    "optimizer_spec",
    "state_size",
    "update_work",
]
