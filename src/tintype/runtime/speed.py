"""How fast this machine multiplies and moves, measured in a moment."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 1024  # of the matrices
IMAGE = (2, 320, 32, 32)  # a UNet's convolution
LARGE = 1 << 22  # values, more than a cache holds
ENOUGH = 0.15  # seconds of measuring


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in products of matrices."""
    matrix = torch.randn(SIDE, SIDE, device=device).to(dtype)
    return 2 * SIDE**3 / _best(lambda: matrix @ matrix, device)


def convolution_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in 3x3 convolutions."""
    image = torch.randn(IMAGE, device=device).to(dtype)
    weight = torch.randn(IMAGE[1], IMAGE[1], 3, 3, device=device).to(dtype)
    operations = 2 * 9 * IMAGE[1] * image.numel()
    return operations / _best(lambda: functional.conv2d(image, weight, padding=1), device)


def moving_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes a second that an operator of single values reads and writes."""
    values = torch.randn(LARGE, device=device).to(dtype)
    return 2 * values.nbytes / _best(lambda: functional.silu(values), device)


@torch.no_grad()
def _best(run: Callable[[], Tensor], device: torch.device) -> float:
    """The seconds of the fastest run of a few."""
    best, spent = float("inf"), 0.0
    run()
    while spent < ENOUGH:
        wait_for(device)
        began = time.perf_counter()
        run()
        wait_for(device)
        seconds = time.perf_counter() - began
        best, spent = min(best, seconds), spent + seconds
    return best


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
