"""The memory of a device: how much is free, and who has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import nn


def free_memory(device: torch.device) -> int | None:
    """Bytes; None where the device doesn't tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) if device.type in ("cpu", "mps") else None


def let_go(device: torch.device) -> None:
    """Give back what torch keeps for later but nothing uses."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


@contextmanager
def visiting(part: nn.Module, device: torch.device) -> Iterator[None]:
    """A module on that device for as long as this lasts, then where it was, to the bit.

    Its own tensors wait for it, so that nothing is copied back: what is changed meanwhile is lost.
    """
    if next(part.parameters()).device == device:
        yield
        return
    with torch.inference_mode(False):  # or it couldn't be trained through afterwards
        stores: list[dict[str, Any]] = [
            store for module in part.modules() for store in (module._parameters, module._buffers)
        ]
        homes = [
            (store, name, tensor, tensor.data)
            for store in stores
            for name, tensor in store.items()
            if tensor is not None
        ]
        part.to(device)
    try:
        yield
    finally:
        with torch.inference_mode(False):
            for store, name, tensor, data in homes:
                tensor.data = data
                store[name] = tensor
