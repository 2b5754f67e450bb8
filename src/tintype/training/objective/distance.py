"""How far a prediction is from its target; one row a kind of distance, and of its threshold."""

from collections.abc import Callable

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]


def l2(error: Tensor, delta: Tensor) -> Tensor:
    """The squared error."""
    return error**2


def huber(error: Tensor, delta: Tensor) -> Tensor:
    """Pseudo-Huber: the squared error below `delta`, twice `delta` times the absolute one far
    above it (arXiv:2403.16728)."""
    return 2 * delta * ((error**2 + delta**2).sqrt() - delta)


def smooth_l1(error: Tensor, delta: Tensor) -> Tensor:
    """`huber` over `delta`: twice the absolute error far above `delta`."""
    return 2 * ((error**2 + delta**2).sqrt() - delta)


DISTANCES: dict[str, Distance] = {"l2": l2, "huber": huber, "smooth-l1": smooth_l1}


def constant(delta: float, place: Tensor, sigma: Tensor) -> Tensor:
    """The same threshold at every noise level."""
    return torch.full_like(sigma, delta)


def exponential(delta: float, place: Tensor, sigma: Tensor) -> Tensor:
    """From 1 without noise to `delta` at the last timestep (arXiv:2403.16728)."""
    return torch.pow(delta, place)


def by_snr(delta: float, place: Tensor, sigma: Tensor) -> Tensor:
    """From 1 without noise to `delta` at much noise, by the ratio of noise to signal."""
    return (1 - delta) / (1 + sigma) ** 2 + delta


THRESHOLDS: dict[str, Callable[[float, Tensor, Tensor], Tensor]] = {
    "constant": constant,
    "exponential": exponential,
    "snr": by_snr,
}


def mean_over_pixels(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of each picture, [n], of `values` [n, channels, height, width].

    `mask` [n, 1, height, width] weighs the pixels; the weights of a picture are divided by their
    sum, so that a small subject counts as much as one that fills its picture.
    """
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    total = mask.sum(dim=(1, 2, 3)).clamp(min=torch.finfo(mask.dtype).tiny)
    return (values.mean(dim=1, keepdim=True) * mask).sum(dim=(1, 2, 3)) / total
