"""Nested state (of optimisers, schedules…) as tensors by name and JSON, and back, to the bit."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

PLAIN = (type(None), bool, int, float, str)
CONTAINERS = {"list": list, "tuple": tuple}


def flatten(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """What JSON can hold of `value`, and its tensors, named after where they are.

    Dicts (with plain keys), lists, tuples, tensors and plain values are known; a tensor that is
    found in several places is stored once. Raises TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[Any, str] = {}

    def visit(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            place = (value.data_ptr(), value.dtype, value.shape, value.stride())
            known = names.setdefault(place if value.numel() else id(value), path[:-1])
            tensors.setdefault(known, value.detach().contiguous())
            return {"tensor": known}
        if isinstance(value, Mapping):
            return {"dict": [[key, visit(each, f"{path}{key}.")] for key, each in value.items()]}
        for kind, container in CONTAINERS.items():
            if isinstance(value, container):
                return {kind: [visit(each, f"{path}{i}.") for i, each in enumerate(value)]}
        if isinstance(value, PLAIN):
            return value
        raise TypeError(f"{path[:-1]} is a {type(value).__name__}, which no checkpoint can hold")

    return visit(value, ""), tensors


def rebuild(text: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `flatten` was given; raises KeyError for a tensor that is missing."""
    if not isinstance(text, dict):
        return text
    [(kind, held)] = text.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {key: rebuild(each, tensors) for key, each in held}
    return CONTAINERS[kind](rebuild(each, tensors) for each in held)
