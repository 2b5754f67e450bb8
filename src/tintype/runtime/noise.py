"""Noise that depends on nothing but a picture's own seed."""

from collections.abc import Sequence

import torch


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator a picture."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(
    shape: Sequence[int],
    sources: Sequence[torch.Generator],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Standard normal noise [batch, *shape] in fp32, row i from source i alone.

    Drawn on the CPU in fp32 whatever the device and precision, so that neither changes a picture.
    """
    rows = [torch.randn((1, *shape), generator=source) for source in sources]
    return torch.cat(rows).to(device)
