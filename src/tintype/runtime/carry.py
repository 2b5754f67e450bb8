"""Tensors carried to a device that goes on working."""

import torch
from torch import Tensor


def carried(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on that device, without waiting for what the device is doing.

    A copy from ordinary memory to a GPU may wait for the work before it; one from pinned memory
    takes its turn there.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
