"""Which kernels a GPU's work is done by: contexts that leave things as they found them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

ATTENTION = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@contextmanager
def channels_last(module: Any) -> Iterator[None]:
    """Convolutions' weights laid out as tensor cores take them; the same values."""
    module.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        module.to(memory_format=torch.contiguous_format)


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 matrices with 10 bits of mantissa, on GPUs that have such units."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def prefer_attention(name: str) -> Iterator[None]:
    """That kernel of ATTENTION for scaled dot products, where it can; the others where not."""
    order = [ATTENTION[name], *(kind for other, kind in ATTENTION.items() if other != name)]
    with sdpa_kernel(order, set_priority=True):
        yield
