"""Leaving parameters out of training by their names."""

import fnmatch
from collections.abc import Iterable, Sequence

import torch

from tintype.errors import ConfigError, nearest

Parameters = dict[str, torch.nn.Parameter]


def without(groups: Sequence[Parameters], patterns: Iterable[str]) -> list[Parameters]:
    """The groups less the parameters whose names match a pattern ("unet.down_blocks.*"), which
    no longer take gradients.

    Raises ConfigError for a pattern that matches nothing, with the nearest names, and where
    nothing is left to train.
    """
    patterns = tuple(patterns)
    names = [name for group in groups for name in group]
    frozen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise ConfigError(
                f"matches nothing that trains here. {like(pattern, names)}",
                field="freeze",
                value=pattern,
            )
        frozen.update(found)
    if patterns and len(frozen) == len(names):
        raise ConfigError("leaves nothing to train", field="freeze", value=list(patterns))
    for group in groups:
        for name in frozen & group.keys():
            group[name].requires_grad_(False)
    return [
        {name: value for name, value in group.items() if name not in frozen} for group in groups
    ]


def like(pattern: str, names: Iterable[str]) -> str:
    """A sentence with the beginnings of names that look most like a pattern."""
    depth = max(1, len(pattern.rstrip(".*").split(".")))
    beginnings = dict.fromkeys(".".join(name.split(".")[:depth]) + ".*" for name in names)
    found = nearest(pattern, beginnings) or list(beginnings)[:4]
    return f"Nearest: {', '.join(found)}."
