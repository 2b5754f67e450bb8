"""A config made complete for the model and the method that it names."""

import math
from pathlib import Path
from typing import Any

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.training.methods import method
from tintype.types import TrainConfig
from tintype.types.base import merged


def resolve(config: TrainConfig, model: Model, *, runs_dir: Path = Path("runs")) -> TrainConfig:
    """The complete config: what wasn't given takes the model's own defaults for this method, then
    its family's, then the method's.

    Raises ConfigError for a resolution that the model can't be trained at.
    """
    kind = method(config.method)
    values: dict[str, Any] = merged(
        merged(dict(kind.defaults), model.family.train_defaults.get(kind.name, {})),
        model.card.defaults.get("train", {}).get(kind.name, {}),
    )
    given = config.model_dump(exclude_unset=True)
    values = _without_none(merged(values, _without_none(given)))
    if (values.get("prior") or {}).get("weight") == 0:
        values["prior"]["pictures"] = 0
    steps = values["steps"]
    fallbacks = {
        "resolution": model.native_size,
        "checkpoint_every": max(1, min(500, math.ceil(steps / 2))),
        "sample_every": max(1, math.ceil(steps / 4)),
        "out": runs_dir / config.all_subjects[0].pictures.absolute().name,
        "sample_prompts": (config.instance_prompt, config.class_prompt),
    }
    values = {**fallbacks, **values}
    if values["resolution"] % model.size_multiple:
        raise ConfigError(
            f"not a multiple of {model.size_multiple}, as this model wants",
            field="resolution",
            value=values["resolution"],
        )
    return _with_absolute_paths(TrainConfig(**values))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Only what was decided, group by group."""
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The config as it means the same from any folder."""
    changes: dict[str, Any] = {}
    for name in ("pictures", "class_dir"):
        path = getattr(config, name)
        if path is not None:
            changes[name] = path.absolute()
    if config.subjects:
        changes["subjects"] = [
            subject.replace(
                pictures=subject.pictures.absolute(),
                **({"class_dir": subject.class_dir.absolute()} if subject.class_dir else {}),
            ).model_dump(exclude_unset=True)
            for subject in config.subjects
        ]
    if isinstance(config.data.captions, Path):
        changes["data"] = {"captions": config.data.captions.absolute()}
    if Path(config.model).exists():
        changes["model"] = str(Path(config.model).absolute())
    return config.replace(**changes)
