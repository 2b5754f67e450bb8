"""What happens between the optimiser's steps: a part for each thing that is done there."""

from tintype.training.between.between import Between

__all__ = ["Between"]
