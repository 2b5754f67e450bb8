"""Checkpoints: all that a resume needs, whole or not there.

A checkpoint `checkpoints/step-N/` holds `weights.safetensors` (the trained parts, float32),
`optimizer.safetensors` (the tensors of the optimiser's state, and the average of the weights) and
`state.json`, which has what isn't a tensor and names the hashes of both. It is written beside its
place and moved there when it is on the disk, and older ones go only then.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tintype.errors import RunError
from tintype.files import remove_folder, sha256, whole_folder
from tintype.training.nested import flatten, rebuild
from tintype.types import Note

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state after `step` optimiser steps.

    `weights` of the trained parts; `updates` as `Updates.state` gives it; `scaler` as its
    state_dict; `config_hash` and `data_hash` say of which config, base model and pictures.
    """

    step: int
    weights: dict[str, torch.Tensor]
    updates: dict[str, Any]
    scaler: dict[str, Any]
    config_hash: str
    data_hash: str


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write it and remove all but the newest `keep`.

    Raises StorageError, with the older ones as they were.
    """
    place = run / "checkpoints" / f"step-{checkpoint.step}"
    updates, tensors = flatten(checkpoint.updates)
    with whole_folder(place) as folder:
        weights = {name: value.contiguous() for name, value in checkpoint.weights.items()}
        save_file(weights, folder / WEIGHTS)
        save_file(tensors, folder / OPTIMIZER)
        text = {
            "step": checkpoint.step,
            "config_hash": checkpoint.config_hash,
            "data_hash": checkpoint.data_hash,
            "updates": updates,
            "scaler": checkpoint.scaler,
            "sha256": {name: sha256(folder / name) for name in (WEIGHTS, OPTIMIZER)},
        }
        (folder / STATE).write_text(json.dumps(text), encoding="utf-8")
    for old in list_checkpoints(run)[keep:]:
        remove_folder(old)
    return place


def list_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, newest first."""
    found = [path for path in run.glob("checkpoints/step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def newest_checkpoint(run: Path, on_note: Callable[[Note], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named in a Note each."""
    for path in list_checkpoints(run):
        try:
            return load_checkpoint(path)
        except RunError as error:
            on_note(Note(message=f"{error}: using the one before it"))
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises RunError for a checkpoint that is damaged."""
    try:
        text = json.loads((path / STATE).read_text(encoding="utf-8"))
        for name, expected in text["sha256"].items():
            if sha256(path / name) != expected:
                raise RunError(f"{name} is damaged", field="checkpoint", value=str(path))
        tensors = load_file(path / OPTIMIZER)
        weights = load_file(path / WEIGHTS)
        return Checkpoint(
            step=text["step"],
            weights=weights,
            updates=rebuild(text["updates"], tensors),
            scaler=text["scaler"],
            config_hash=text["config_hash"],
            data_hash=text["data_hash"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise RunError(f"damaged: {error}", field="checkpoint", value=str(path)) from None


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process left half written."""
    for place in (run, run / "checkpoints", run / "samples"):
        for path in [*place.glob(".*.part"), *place.glob(".*.old")]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
