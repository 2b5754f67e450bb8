"""Resumes whose config, pictures, base or machine are others than at the checkpoint."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.tiny import save_sd
from tests.training.helpers import losses_of, make_config, noise_picture, run_fit
from tests.training.stopping import fit_until, run_resume
from tintype.errors import ConfigError, RunError
from tintype.training.checkpoint import SUMS, list_checkpoints, load_checkpoint, save_checkpoint
from tintype.training.config import config_hash, read_config
from tintype.training.keeping.changes import config_changes
from tintype.training.watch.rows import read_rows
from tintype.types import TrainConfig


@pytest.fixture
def stopped(sd_folder: Path, tmp_path: Path) -> Path:
    """A run of 4 steps that ended after a checkpoint of step 2."""
    config = make_config(tmp_path, sd_folder, checkpoint_every=2, prior={"steps": 2})
    return fit_until(2, tmp_path, config)


def test_what_changed_is_named_and_taken_up_if_allowed(stopped: Path, tmp_path: Path) -> None:
    written = read_config(stopped / "config.yaml")
    written |= {"learning_rate": 0.002, "sample_prompts": ["a dog"]}
    written["data"]["flip_probability"] = 0.25
    (stopped / "config.yaml").write_text(yaml.safe_dump(written))
    fields = ["learning_rate: 0.002, was 0.001", "data.flip_probability: 0.25, was 0.5"]
    with pytest.raises(RunError) as refused:
        run_resume(tmp_path, stopped)
    assert f"has changed since its checkpoint: {'; '.join(fields)}. Put" in str(refused.value)

    noise_picture(50).save(tmp_path / "pictures" / "3.png")
    noise_picture(51).save(tmp_path / "pictures" / "1.png")
    (tmp_path / "class" / "2.png").unlink()
    base = save_sd(tmp_path / "other", seed=1)
    files = [
        "pictures: 1.png changed, 3.png is new",
        "class pictures: drawn 00000.png is new, 2.png is gone",
        "base model: its weights or its schedule are others",
    ]
    put_back = {"learning_rate": 0.001, "data": {"flip_probability": 0.5}}
    with pytest.raises(RunError) as refused:
        run_resume(tmp_path, stopped, changes={"model": str(base), **put_back})
    assert f"has changed since its checkpoint: {'; '.join(files)}. Put" in str(refused.value)

    _, notes = run_resume(tmp_path, stopped, changes={"model": str(base)}, allow_changed=True)
    told = [note for note in notes if note.startswith("Changed from step 2 on: ")]
    assert told == [f"Changed from step 2 on: {change}" for change in (*fields, *files)]
    assert read_config(stopped / "config.yaml")["model"] == str(base)
    assert [row.learning_rate for row in read_rows(stopped)] == [0.001, 0.001, 0.002, 0.002]
    assert run_resume(tmp_path, stopped)[1][0].endswith("nothing to resume")
    _, notes = run_resume(tmp_path, stopped, changes={"learning_rate": 0.1})
    assert notes[0].endswith("learning_rate would only matter with more `steps`")


def test_the_same_pictures_and_base_may_lie_elsewhere(stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").rename(tmp_path / "moved")
    (tmp_path / "moved" / "2.png").rename(tmp_path / "moved" / "rex.png")
    _, notes = run_resume(tmp_path, stopped, changes={"pictures": tmp_path / "moved"})
    assert not [note for note in notes if "hanged" in note]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "lora"}, "method: lora, was dreambooth"),
        ({"optimizer": {"name": "adafactor"}}, "optimizer.name: adafactor, was adamw"),
        ({"train_text_encoder": True}, "train_text_encoder: True, was False"),
        ({"freeze": ["*.bias"]}, r"freeze: \['\*.bias'\], was none"),
        ({"steps": 1}, "steps 1: the run has made 2 already"),
    ],
)
def test_what_no_run_can_take_up(
    changes: dict[str, Any], words: str, stopped: Path, tmp_path: Path
) -> None:
    before = (stopped / "config.yaml").read_text()
    with pytest.raises(RunError, match=words):
        run_resume(tmp_path, stopped, changes=changes, allow_changed=True)
    assert (stopped / "config.yaml").read_text() == before
    with pytest.raises(ConfigError, match=r"optimizer.name 'adafakt'.*adafactor"):
        run_resume(tmp_path, stopped, changes={"optimizer": {"name": "adafakt"}})


def test_other_parameters_are_not_trained_on(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, checkpoint_every=2, method="custom-diffusion")
    stopped = fit_until(2, tmp_path, config)
    with pytest.raises(RunError, match="other parameters train"):
        run_resume(tmp_path, stopped, changes={"identifier": "<rex>"}, allow_changed=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-4, "optimizer": {"schedule": "cosine", "warmup_steps": 1}},
        {"optimizer": {"ema_decay": 0.5, "weight_decay": 0.5, "arguments": {"betas": [0.5, 0.9]}}},
        {"precision": "16-mixed", "accumulate": 2, "batch_size": 1, "resolution": 32},
        {"prior": {"weight": 0.0}, "data": {"caption_dropout": 0.5}, "seed": 3},
    ],
)
def test_allowed_changes_matter_from_there_on(
    changes: dict[str, Any], stopped: Path, sd_folder: Path, tmp_path: Path
) -> None:
    plain, _ = run_fit(
        tmp_path,
        make_config(tmp_path, sd_folder, out=tmp_path / "plain", prior={"steps": 2}),
    )
    result, _ = run_resume(tmp_path, stopped, changes=changes, allow_changed=True)
    assert result.weights_sha256 != plain.weights_sha256
    assert losses_of(stopped)[:2] == losses_of(tmp_path / "plain")[:2]
    assert len(losses_of(stopped)) == 4


def test_settings_of_the_optimiser_are_those_of_the_config(stopped: Path, tmp_path: Path) -> None:
    """From weights that don't move at all, by a rate that is far too small."""
    changes = {"learning_rate": 1e-30, "optimizer": {"weight_decay": 0.0}}
    run_resume(tmp_path, stopped, changes=changes, allow_changed=True)
    last, kept = (path / "weights.safetensors" for path in list_checkpoints(stopped))
    assert last.read_bytes() == kept.read_bytes()


def test_more_steps_are_no_change(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, steps=3, prior={"steps": 2})
    whole, _ = run_fit(tmp_path, config.replace(steps=6, out=tmp_path / "whole"))
    run_fit(tmp_path, config)
    run = tmp_path / "run"
    with pytest.raises(RunError, match="steps 2: the run was finished after 3 already"):
        run_resume(tmp_path, run, changes={"steps": 2})
    longer, _ = run_resume(tmp_path, run, changes={"steps": 6})
    assert (longer.weights_sha256, longer.steps) == (whole.weights_sha256, 6)
    assert losses_of(run) == losses_of(tmp_path / "whole")
    assert read_config(run / "config.yaml")["steps"] == 6
    # the rate of a schedule depends on how many there are
    changes = {"steps": 8, "optimizer": {"schedule": "linear"}}
    with pytest.raises(RunError, match=r"steps: 8, was 6; optimizer.schedule: linear, was const"):
        run_resume(tmp_path, run, changes=changes)
    with pytest.raises(ConfigError, match=r"out .*own folder"):
        run_resume(tmp_path, run, changes={"out": tmp_path})


def test_other_means_are_told(stopped: Path, tmp_path: Path) -> None:
    [place] = list_checkpoints(stopped)
    checkpoint = load_checkpoint(place)
    assert checkpoint.machine["threads"] == 1
    elsewhere = {**checkpoint.machine, "torch": "2.7.0", "device": "NVIDIA A100", "threads": None}
    save_checkpoint(stopped, replace(checkpoint, machine=elsewhere), keep=1)
    _, notes = run_resume(tmp_path, stopped)
    [note] = [note for note in notes if "not to the bit" in note]
    assert f"(torch {torch.__version__}, was 2.7.0; device cpu, was NVIDIA A100)" in note


def test_checkpoints_of_the_first_builds(stopped: Path, tmp_path: Path) -> None:
    """They have a hash of the config and of the data, and no sums."""
    [place] = list_checkpoints(stopped)
    text = json.loads((place / "state.json").read_text())
    config = TrainConfig(**text.pop("config"))
    sums = [line.split() for line in (place / SUMS).read_text().splitlines()]
    for name in ("contents", "machine", "scores"):
        del text[name]
    text |= {"config_hash": config_hash(config), "data_hash": "of other pictures"}
    text["sha256"] = {name: digest for digest, name in sums if name != "state.json"}
    (place / "state.json").write_text(json.dumps(text))
    (place / SUMS).unlink()
    with pytest.raises(RunError, match="changed since its checkpoint: something in the config"):
        run_resume(tmp_path, stopped, changes={"seed": 1})
    with pytest.raises(RunError, match=r"changed .*: the pictures or the base model"):
        run_resume(tmp_path, stopped)
    result, _ = run_resume(tmp_path, stopped, allow_changed=True)
    assert result.steps == 4


def test_differences_of_configs() -> None:
    one = TrainConfig(subjects=({"pictures": "a", "class_noun": "dog"},))
    two = one.replace(
        subjects=({"pictures": "a", "class_noun": "dog", "repeats": 2},),
        optimizer={"arguments": {"foreach": False}},
    )
    assert config_changes(one.model_dump(mode="json"), two) == {
        "subjects.0.repeats": "2, was 1",
        "optimizer.arguments.foreach": "False, was none",
    }
    older = one.model_dump(mode="json")
    del older["watch"], older["data"]["crops"]
    assert config_changes({**older, "old_name": 3}, one) == {"old_name": "none, was 3"}
