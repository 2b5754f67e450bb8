"""Configs of runs: read, overridden, written; no torch is imported here."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tintype.errors import ConfigError
from tintype.types import TrainConfig
from tintype.types.base import merged

# Fields that don't change the weights after a given step: a resumed run may differ in them.
NEUTRAL = frozenset(
    {
        "out",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep_checkpoints",
        "keep_best",
        "sample_every",
        "sample_prompts",
        "watch",
    }
)


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
    """`values` with each "key=value" of `overrides` set; values are read as YAML, and
    dots lead into groups ("loss.min_snr_gamma=5").

    Raises ConfigError for a pair without "=", or a value that isn't YAML.
    """
    result = dict(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise ConfigError("is not KEY=VALUE", field="--set", value=override)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"is not YAML: {error}", field=key, value=text) from None
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


def dump_config(config: TrainConfig) -> str:
    """The config as YAML that `read_config` gives back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_hash(config: TrainConfig) -> str:
    """A hash of all that decides the weights after each step, which the first checkpoints have.

    `steps` counts only where the learning rate depends on it.
    """
    values = config.model_dump(mode="json", exclude={*NEUTRAL, "speed"})
    if config.optimizer.schedule == "constant":
        del values["steps"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
