"""Gradients clipped by their norm."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

EPSILON = 1e-6  # torch's own, beside the norm that is divided by


def clip(parameters: Sequence[Tensor], most: float) -> Tensor:
    """Scale the gradients so that their norm is at most `most`; gives the norm that they had.

    As `torch.nn.utils.clip_grad_norm_`, which also multiplies by 1 what is small enough: where
    the norm can be looked at without waiting for a device, nothing is multiplied then.
    """
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    known = type(norm) is Tensor and norm.device.type == "cpu"
    if not (known and bool(norm + EPSILON <= most)):
        clip_grads_with_norm_(parameters, most, norm)
    return norm
