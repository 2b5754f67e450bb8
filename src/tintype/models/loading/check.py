"""What weights must be before they are used: safe to read, of the right shapes, finite."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tintype.errors import WeightsError

State = dict[str, torch.Tensor]


def read_pickle(path: Path) -> State:
    """The tensors of a pickle, read with `weights_only=True` alone: nothing in it is run.

    Lightning's {"state_dict": ...} is unwrapped. Raises WeightsError for a file that holds
    anything but tensors, and for one that can't be read.
    """
    loaded = unpickle(path)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict):
        raise WeightsError("holds no tensors by name", field="weights", value=str(path))
    return {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}


def unpickle(path: Path) -> Any:
    """What a pickle of tensors and plain values holds, read with `weights_only=True` alone.

    Raises WeightsError for a file that holds anything else, and for one that can't be read.
    """
    if not path.stat().st_size:
        raise WeightsError("is empty (0 bytes)", field="weights", value=str(path))
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ").partition("Please file")[0]
        asked = reason.rpartition("Unsupported")[2] or reason
        raise WeightsError(
            "holds more than tensors and was refused; nothing in it was run "
            f"({asked.strip()[:160]})",
            field="weights",
            value=str(path),
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"is truncated or damaged: {str(error).splitlines()[0]}",
            field="weights",
            value=str(path),
        ) from None


def check_shapes(
    expected: Mapping[str, torch.Size], state: State, *, part: str, path: Path
) -> None:
    """Raises WeightsError for the first tensor that is missing or disagrees with the config."""
    for name, shape in expected.items():
        if name in state and state[name].shape != shape:
            raise WeightsError(
                f"{part}: tensor {name} has shape {list(state[name].shape)}, "
                f"but its config expects {list(shape)}",
                field="weights",
                value=str(path),
            )
    missing = [name for name in expected if name not in state]
    if missing:
        raise WeightsError(
            f"{part}: {len(missing)} of {len(expected)} tensors are missing, "
            f"{missing[0]} for one; the file or its config is of another model",
            field="weights",
            value=str(path),
        )
    extra = [name for name in state if name not in expected]
    if extra:
        raise WeightsError(
            f"{part}: holds {len(extra)} tensors that its config has no place for, "
            f"{extra[0]} for one; the file or its config is of another model",
            field="weights",
            value=str(path),
        )


def check_finite(
    name: str, tensor: torch.Tensor, source: torch.Tensor, *, part: str, path: Path
) -> None:
    """Raises WeightsError, naming the tensor, if it holds NaN or infinity.

    `source` is the tensor before its cast, to tell damage from overflow. Minimum and maximum
    carry NaN and infinity, and are read some 10-40 times faster than `isfinite`.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return
    low, high = torch.aminmax(tensor)
    if math.isfinite(low.item()) and math.isfinite(high.item()):
        return
    wide = source.double()
    bad = int((~torch.isfinite(wide)).sum())
    if not bad:
        problem = f"is too large for {str(tensor.dtype).removeprefix('torch.')}: load it as float32"
    else:
        kind = "NaN" if bool(torch.isnan(wide).any()) else "infinity"
        problem = (
            f"holds {kind} ({bad} of {tensor.numel()} values are not finite); "
            "the file was damaged or its training diverged"
        )
    raise WeightsError(f"{part}: tensor {name} {problem}", field="weights", value=str(path))
