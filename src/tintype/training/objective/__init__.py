"""What a model is asked at each noise level, and how its answer is judged."""

from tintype.training.objective.check import check_loss
from tintype.training.objective.objective import (
    Noised,
    Objective,
    check_trainable,
    with_schedule,
)

__all__ = ["Noised", "Objective", "check_loss", "check_trainable", "with_schedule"]
