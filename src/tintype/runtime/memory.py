"""How much memory a device has free."""

import psutil
import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes; None where the device doesn't tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) if device.type in ("cpu", "mps") else None
