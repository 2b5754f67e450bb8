"""Configs: overrides, completion, and the way to YAML and back."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.helpers import make_config
from tintype.errors import ConfigError
from tintype.models.load import load
from tintype.training.config import apply_overrides, config_hash, dump_config, read_config
from tintype.training.resolve import resolve
from tintype.types import DataConfig, PriorConfig, SubjectConfig, TrainConfig


def test_overrides_are_read_as_yaml() -> None:
    values = apply_overrides(
        {"steps": 3, "seed": 1},
        [
            "steps=10",
            "learning-rate=1e-5",
            "data.center_crop=false",
            "sample_prompts=[a cat, a dog]",
        ],
    )
    assert values["steps"] == 10
    assert values["data"] == {"center_crop": False}
    assert values["sample_prompts"] == ["a cat", "a dog"]
    config = TrainConfig(pictures=Path("x"), class_noun="dog", **values)
    assert config.learning_rate == 1e-5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "is not KEY=VALUE"),
        ("sample_prompts=[a", "is not YAML"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides({}, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a\n- b\n", "no mapping"), ("a: [", "is not YAML"), ("1: 2", "no mapping")],
)
def test_bad_files(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="can't be read"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rat": 1}, "Did you mean learning_rate"),
        ({"loss": {"kind": "hubber"}}, "Did you mean huber"),
        ({"loss": {"min_snr": 5}}, "Did you mean loss.min_snr_gamma"),
        ({"subjects": [{"pictures": "y", "class_noun": "cat"}]}, "class_noun and pictures"),
        ({"steps": 0}, "steps 0"),
        ({"data": {"bucket_stp": 8}}, "Did you mean data.bucket_step"),
        ({"prior": {"source": "folder"}}, "prior.source 'folder': not one of the choices"),
        ({"precision": "16"}, "precision"),
    ],
)
def test_bad_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(pictures=Path("x"), class_noun="dog", **values)


def test_a_missing_class_noun_names_its_flag() -> None:
    with pytest.raises(ConfigError, match="give --class-noun"):
        _ = TrainConfig(pictures=Path("x")).all_subjects


def test_completion_and_round_trip(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    defaults = {"steps": 30, "data": {"flip_probability": 0.25}}
    model.card = replace(model.card, defaults={"train": {"dreambooth": defaults}})
    config = TrainConfig(pictures=tmp_path / "rex", class_noun="dog", model=str(sd_folder))
    done = resolve(config, model, runs_dir=tmp_path / "runs")
    assert (done.steps, done.batch_size, done.data.flip_probability) == (30, 1, 0.25)
    assert (done.resolution, done.out) == (64, tmp_path / "runs" / "rex")
    given = resolve(
        config.replace(steps=7, data={"flip_probability": 0.5}, prior={"weight": 0}), model
    )
    assert (given.steps, given.data.flip_probability, given.prior.pictures) == (7, 0.5, 0)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(done))
    assert TrainConfig(**read_config(path)) == done
    assert set(read_config(path)) == set(TrainConfig.model_fields)
    with pytest.raises(ConfigError, match="not a multiple of 8"):
        resolve(config.replace(resolution=100), model)


def test_a_prompt_of_ones_own_is_said_alone(sd_folder: Path, tmp_path: Path) -> None:
    model = load(sd_folder, device="cpu")
    defaults = {"data": {"other_prompts": ["a [V] {class_noun}"], "flip_probability": 0.0}}
    model.card = replace(model.card, defaults={"train": {"dreambooth": defaults}})
    config = TrainConfig(pictures=tmp_path / "rex", class_noun="dog", model=str(sd_folder))
    assert resolve(config, model).data.other_prompts == ("a [V] {class_noun}",)
    own = config.replace(instance_prompt="[V] asleep")
    alone = resolve(own, model)
    assert (alone.data.other_prompts, alone.data.flip_probability) == ((), 0.0)
    both = resolve(own.replace(data={"other_prompts": ("a [V]",)}), model)
    assert both.data.other_prompts == ("a [V]",)
    assert resolve(both, model) == both
    subject = {"pictures": tmp_path / "rex", "class_noun": "dog", "instance_prompt": "[V] asleep"}
    several = TrainConfig(subjects=(subject,), model=str(sd_folder))
    assert resolve(several, model).data.other_prompts == ()


@pytest.mark.parametrize(
    ("values", "name", "schedule"),
    [
        ({}, "muon", "linear"),
        ({"optimizer": {"schedule": "cosine"}}, "muon", "cosine"),
        ({"optimizer": {"name": "muon"}}, "muon", "linear"),
        ({"optimizer": {"name": "lion"}}, "lion", "linear"),
        ({"precision": "bf16-true"}, "adamw", "linear"),
        ({"strategy": "fsdp"}, "adamw", "linear"),
    ],
)
def test_a_models_own_optimizer_gives_way_to_what_rules_it_out(
    sd_folder: Path, tmp_path: Path, values: dict[str, Any], name: str, schedule: str
) -> None:
    model = load(sd_folder, device="cpu")
    own = {"name": "muon", "arguments": {"ns_steps": 2}, "schedule": "linear"}
    model.card = replace(model.card, defaults={"train": {"dreambooth": {"optimizer": own}}})
    config = TrainConfig(pictures=tmp_path / "rex", class_noun="dog", model=str(sd_folder))
    done = resolve(config.replace(**values), model).optimizer
    assert (done.name, done.schedule) == (name, schedule)
    assert done.arguments == (own["arguments"] if name == "muon" else {})


def test_settings_of_the_data_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for group, prefix in ((DataConfig, "data."), (PriorConfig, "prior."), (SubjectConfig, "")):
        documented = re.findall(rf"^\| `{re.escape(prefix)}(\w+)` \|", text, re.MULTILINE)
        if not prefix:  # two tables have bare names: captions' values, and the subject's keys
            documented = [name for name in documented if name in group.model_fields]
        assert set(documented) == set(group.model_fields)


def test_the_hash_is_of_what_decides_the_weights(tmp_path: Path) -> None:
    config = make_config(tmp_path, tmp_path)
    same = config.replace(out=tmp_path / "other", checkpoint_every=1, steps=9)
    assert config_hash(config) == config_hash(same)
    assert config_hash(config) != config_hash(config.replace(seed=1))
    cosine = config.replace(optimizer={"schedule": "cosine"})
    assert config_hash(cosine) != config_hash(cosine.replace(steps=9))
