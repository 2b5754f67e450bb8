"""Checkpoints: all that a resume needs, whole or not there.

A checkpoint `checkpoints/step-N/` holds `weights.safetensors` (the trained parts, float32),
`optimizer.safetensors` (the tensors of the optimiser's state, and the average of the weights),
`state.json`, which has what isn't a tensor, and `SHA256SUMS` of these three. It is written beside
its place and moved there when it is on the disk, and older ones go only then. Which one is the
best is read off those that are there, so that a kill leaves nothing that points nowhere.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tintype.errors import RunError
from tintype.files import remove_folder, sha256, whole_folder
from tintype.training.data.contents import Contents
from tintype.training.keeping.best import best_of
from tintype.training.keeping.space import make_room, size_of
from tintype.training.nested import flatten, rebuild
from tintype.types import Note

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
SUMS = "SHA256SUMS"
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Of what a checkpoint is: the run's `config` as JSON has it, and the `contents` that it
    trains on.

    Checkpoints of the first builds have hashes of both instead.
    """

    config: Mapping[str, Any] | None = None
    contents: Contents | None = None
    config_hash: str = ""
    data_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state after `step` optimiser steps.

    `weights` of the trained parts; `updates` as `Updates.state` gives it; `scaler` as its
    state_dict; `machine` as a Machine's fields; `scores` by what they measure, of a checkpoint
    that may be the best.
    """

    step: int
    weights: dict[str, torch.Tensor]
    updates: dict[str, Any]
    scaler: dict[str, Any]
    origin: Origin = field(default_factory=Origin)
    machine: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


def save_checkpoint(
    run: Path, checkpoint: Checkpoint, *, keep: int, best: str | None = None
) -> Path:
    """Write it and remove all but the newest `keep` and, by the score `best`, the best.

    If there is no room, one that would be removed goes before, but never the last. Raises
    StorageError, with at least that one as it was.
    """
    place = run / "checkpoints" / f"step-{checkpoint.step}"
    updates, tensors = flatten(checkpoint.updates)
    before = [path for path in list_checkpoints(run) if _step(path) < checkpoint.step]
    scored = {path: read_scores(path) for path in before} | {place: checkpoint.scores}
    kept = {*before[: keep - 1], best_of(scored, best) if best else None}
    # those of later steps were damaged, or the run wouldn't be here
    later = [path for path in list_checkpoints(run) if _step(path) > checkpoint.step]
    doomed = [*later, *(path for path in reversed(before) if path not in kept)]
    size = size_of([*checkpoint.weights.values(), *tensors.values()])
    make_room(place, size, [path for path in doomed if path not in before[:1]])
    with whole_folder(place) as folder:
        weights = {name: value.contiguous() for name, value in checkpoint.weights.items()}
        save_file(weights, folder / WEIGHTS)
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / OPTIMIZER)
        text = {
            "step": checkpoint.step,
            "scores": dict(checkpoint.scores),
            "machine": dict(checkpoint.machine),
            **_written(checkpoint.origin),
            "updates": updates,
            "scaler": checkpoint.scaler,
        }
        (folder / STATE).write_text(json.dumps(text), encoding="utf-8")
        sums = [f"{sha256(folder / name)}  {name}\n" for name in (WEIGHTS, OPTIMIZER, STATE)]
        (folder / SUMS).write_text("".join(sums), encoding="utf-8")
    for old in doomed:
        remove_folder(old)
    return place


def list_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, newest first."""
    found = [path for path in run.glob("checkpoints/step-*") if path.name[5:].isdigit()]
    return sorted(found, key=_step, reverse=True)


def newest_checkpoint(run: Path, on_note: Callable[[Note], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named in a Note each."""
    for path in list_checkpoints(run):
        try:
            return load_checkpoint(path)
        except RunError as error:
            on_note(Note(message=f"{error}: using the one before it"))
    return None


def best_checkpoint(run: Path, by: str, on_note: Callable[[Note], None]) -> Checkpoint | None:
    """The best by that score that is whole; damaged ones are named in a Note each."""
    scored = {path: read_scores(path) for path in list_checkpoints(run)}
    while (path := best_of(scored, by)) is not None:
        try:
            return load_checkpoint(path)
        except RunError as error:
            on_note(Note(message=f"{error}: using the next best"))
            del scored[path]
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises RunError for a checkpoint that is damaged."""
    try:
        for name, expected in _sums(path).items():
            if sha256(path / name) != expected:
                raise RunError(f"{name} is damaged", field="checkpoint", value=str(path))
        text = json.loads((path / STATE).read_text(encoding="utf-8"))
        tensors = load_file(path / OPTIMIZER)
        return Checkpoint(
            step=text["step"],
            weights=load_file(path / WEIGHTS),
            updates=rebuild(text["updates"], tensors),
            scaler=text["scaler"],
            origin=_read(text),
            machine=text.get("machine", {}),
            scores=text.get("scores", {}),
        )
    except DAMAGE as error:
        raise RunError(f"damaged: {error}", field="checkpoint", value=str(path)) from None


def read_scores(path: Path) -> dict[str, float]:
    """The scores of a checkpoint; none of one that is damaged."""
    try:
        found: dict[str, float] = json.loads((path / STATE).read_text(encoding="utf-8"))["scores"]
    except DAMAGE:
        return {}
    return found


def remove_leftovers(run: Path) -> None:
    """Remove what a killed process left half written."""
    for place in (run, run / "checkpoints", run / "samples"):
        for path in [*place.glob(".*.part"), *place.glob(".*.old")]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _step(path: Path) -> int:
    return int(path.name[5:])


def _sums(path: Path) -> dict[str, str]:
    """The hash that each file should have."""
    if not (path / SUMS).is_file():  # of the first builds, whose state.json has them
        found: dict[str, str] = json.loads((path / STATE).read_text(encoding="utf-8"))["sha256"]
        return found
    lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    return {name: sums[name] for name in (WEIGHTS, OPTIMIZER, STATE)}


def _written(origin: Origin) -> dict[str, Any]:
    contents = None if origin.contents is None else asdict(origin.contents)
    return {"config": origin.config, "contents": contents}


def _read(text: Mapping[str, Any]) -> Origin:
    contents = text.get("contents")
    return Origin(
        config=text.get("config"),
        contents=None if contents is None else Contents(**contents),
        config_hash=text.get("config_hash", ""),
        data_hash=text.get("data_hash", ""),
    )
