"""Which device a person means: "auto" or a name, to a torch device."""

import torch

from tintype.errors import InputError

CHOICES = ("auto", "cpu", "cuda", "cuda:N", "mps")


def available() -> tuple[str, ...]:
    """The kinds of device of this machine, fastest first; "cpu" is always the last."""
    kinds = []
    if torch.cuda.is_available():
        kinds.append("cuda")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    return (*kinds, "cpu")


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is cuda if there, else mps, else cpu.

    Raises InputError for a name that torch doesn't know, a kind that isn't here, and a GPU
    number past the last one.
    """
    if str(name) == "auto":
        return torch.device(available()[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("no such device", field="device", value=name, choices=CHOICES) from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError("not supported", field="device", value=str(name), choices=CHOICES)
    if device.type not in available():
        here = ("auto", *available())
        raise InputError("is not on this machine", field="device", value=str(name), choices=here)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise InputError("no such GPU", field="device", value=str(name), choices=gpus)
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether it computes in bfloat16 itself; a CPU that doesn't takes several times as long in it
    as in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = device.type == "cpu" and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
