"""Nested state survives the disk to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tintype.training.nested import flatten, rebuild


def same(one: Any, other: Any) -> bool:
    """Of the same types and values, to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return all(a == b and same(x, y) for (a, x), (b, y) in pairs)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


def test_nested_state_survives_the_disk(tmp_path: Path) -> None:
    shared = torch.randn(3, generator=torch.Generator().manual_seed(0))
    strided = torch.arange(6.0).view(2, 3).t()
    state = {
        "state": {
            0: {"step": 3, "nested": {"codes": torch.arange(5, dtype=torch.uint8)}, "map": shared},
            7: {"step": torch.tensor(3.0), "half": torch.ones(2, dtype=torch.bfloat16) / 3},
        },
        "param_groups": [
            {"betas": (0.9, 0.999), "best": float("-inf"), "none": None, "flag": True},
            {"map": shared, "empty": torch.empty(0), "strided": strided, "lr": 0.1 + 0.2},
        ],
    }
    text, tensors = flatten(state)
    save_file(tensors, tmp_path / "state.safetensors")
    text = json.loads(json.dumps(text))
    back = rebuild(text, load_file(tmp_path / "state.safetensors"))
    assert same(back, state)
    assert len(tensors) == 6, "what is shared is stored once"
    assert back["state"][0]["map"] is back["param_groups"][1]["map"]


def test_what_cannot_be_kept_is_an_error_that_says_where() -> None:
    with pytest.raises(TypeError, match=r"groups\.1\.kind is a set"):
        flatten({"groups": [0, {"kind": {1}}]})
    text, _ = flatten({"a": torch.zeros(1)})
    with pytest.raises(KeyError):
        rebuild(text, {})
