"""Configs of runs: read, overridden, completed for a model, written; no torch is imported here."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tintype.errors import ConfigError
from tintype.types import TrainConfig

if TYPE_CHECKING:
    from tintype.models.model import Model

# Fields that don't change the weights after a given step: a resumed run may differ in them.
_NEUTRAL = {"out", "checkpoint_every", "keep_checkpoints", "sample_every", "sample_prompts"}


def read_config(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises ConfigError for a file that can't be read, doesn't parse or isn't a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't be read: {error}", field="config", value=str(path)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {error}", field="config", value=str(path)) from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError("holds no mapping of key: value", field="config", value=str(path))
    return values


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with each "key=value" of `overrides` set; values are read as YAML.

    Raises ConfigError for a pair without "=", an unknown key or a value that isn't YAML.
    """
    result = dict(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise ConfigError("is not KEY=VALUE", field="--set", value=override)
        if key not in TrainConfig.model_fields:
            raise ConfigError(
                "no such key", field="config key", value=key, choices=TrainConfig.model_fields
            )
        try:
            result[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"is not YAML: {error}", field=key, value=text) from None
    return result


def resolve(config: TrainConfig, model: "Model", *, runs_dir: Path = Path("runs")) -> TrainConfig:
    """The complete config: fields that weren't given take the model's defaults, then its family's.

    Raises ConfigError for a resolution that the model can't be trained at.
    """
    defaults = {**model.family.train_defaults, **model.card.defaults.get("train", {})}
    given = config.model_dump()
    values = {
        name: defaults[name]
        if name in defaults and (value is None or name not in config.model_fields_set)
        else value
        for name, value in given.items()
    }
    if values["prior_weight"] == 0:
        values["class_pictures"] = 0
    fallbacks = {
        "resolution": model.native_size,
        "checkpoint_every": max(1, min(500, math.ceil(values["steps"] / 2))),
        "sample_every": max(1, math.ceil(values["steps"] / 4)),
        "out": runs_dir / config.pictures.absolute().name,
    }
    for name, fallback in fallbacks.items():
        if values[name] is None:
            values[name] = fallback
    values["sample_prompts"] = values["sample_prompts"] or (
        values["instance_prompt"],
        values["class_prompt"],
    )
    for name in ("pictures", "class_dir"):
        if values[name] is not None:
            values[name] = values[name].absolute()
    if Path(values["model"]).exists():
        values["model"] = str(Path(values["model"]).absolute())
    if values["resolution"] % model.size_multiple:
        raise ConfigError(
            f"not a multiple of {model.size_multiple}, as this model wants",
            field="resolution",
            value=values["resolution"],
        )
    return TrainConfig(**values)


def dump_config(config: TrainConfig) -> str:
    """The config as YAML that `read_config` gives back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_hash(config: TrainConfig) -> str:
    """A hash of all that decides the weights after each step.

    `steps` counts only where the learning rate depends on it.
    """
    values = config.model_dump(mode="json", exclude=_NEUTRAL)
    if config.schedule == "constant":
        del values["steps"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
