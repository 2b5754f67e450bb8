"""A config made complete for the model and the method that it names."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.text.grammar import IDENTIFIER, fill_template
from tintype.training.data.folder import find_pictures
from tintype.training.methods import method
from tintype.training.methods.method import Method
from tintype.training.methods.narrow import PURE
from tintype.training.optim import optimizer_defaults, optimizer_spec
from tintype.training.ranks.shards import SHARDED
from tintype.types import SubjectConfig, TrainConfig
from tintype.types.base import merged


def resolve(config: TrainConfig, model: Model, *, runs_dir: Path = Path("runs")) -> TrainConfig:
    """The complete config: what wasn't given takes the model's own defaults for this method, then
    its family's, then the method's.

    Raises ConfigError for a resolution that the model can't be trained at, PictureError for a
    class folder without pictures.
    """
    kind = method(config.method)
    values: dict[str, Any] = merged(
        merged(dict(kind.defaults), model.family.train_defaults.get(kind.name, {})),
        _own_defaults(model, kind, config),
    )
    given = config.model_dump(exclude_unset=True)
    values = _without_none(merged(values, _without_none(given)))
    if config.learning_rate is None:
        values |= optimizer_defaults((values.get("optimizer") or {}).get("name", "adamw"))
    if config.subjects:
        values["subjects"] = _with_identifiers(config.subjects, model, kind)
        values.pop("identifier", None)  # the method's own, for one subject
    _count_class_pictures(config, values)
    steps = values["steps"]
    fallbacks = {
        "resolution": model.native_size,
        "checkpoint_every": max(1, min(500, math.ceil(steps / 2))),
        "sample_every": max(1, math.ceil(steps / 4)),
        "out": runs_dir / config.all_subjects[0].pictures.absolute().name,
        "sample_prompts": _sample_prompts(config),
    }
    values = {**fallbacks, **values}
    if values["resolution"] % model.size_multiple:
        raise ConfigError(
            f"not a multiple of {model.size_multiple}, as this model wants",
            field="resolution",
            value=values["resolution"],
        )
    return _with_absolute_paths(TrainConfig(**values))


def _own_defaults(model: Model, kind: Method, config: TrainConfig) -> dict[str, Any]:
    """The model's own values for this method: without its optimiser where the person names
    another, or wants a precision or a strategy which that can't do, and without its prompts where
    the person says what is said of pictures, or has class pictures."""
    own = dict(model.card.defaults.get("train", {}).get(kind.name, {}))
    for group, prompts, given in (
        ("data", "other_prompts", {"instance_prompt"}),
        ("prior", "prompts", {"class_prompt", "class_dir"}),
    ):
        if any(given & one.model_fields_set for one in config.all_subjects):
            own[group] = {k: v for k, v in own.get(group, {}).items() if k != prompts}
    optimizer = dict(own.get("optimizer", {}))
    if "name" in optimizer:
        spec = optimizer_spec(optimizer["name"])
        named = config.optimizer.name if "name" in config.optimizer.model_fields_set else None
        fits = (
            named in (None, optimizer["name"])
            and (config.precision != PURE or spec.each_alone)
            and (config.strategy != SHARDED or spec.shards)
        )
        if not fits:
            own["optimizer"] = {
                k: v for k, v in optimizer.items() if k not in ("name", "arguments")
            }
    return own


def _with_identifiers(
    subjects: Sequence[SubjectConfig], model: Model, kind: Method
) -> list[dict[str, Any]]:
    """The subjects, each with an identifier of its own: its own choice, else the method's.

    Raises ConfigError if there are too few words to choose from.
    """
    taken = {s.identifier for s in subjects if "identifier" in s.model_fields_set}
    found = []
    for subject in subjects:
        values = subject.model_dump(exclude_unset=True)
        if "identifier" not in values:
            chosen = kind.choose_identifier(model, subject, taken)
            if chosen is None:
                raise ConfigError(
                    "no rare word of this model's vocabulary is left: give an identifier",
                    field="subjects.identifier",
                    value=subject.called,
                )
            taken.add(chosen)
            values["identifier"] = chosen
        found.append(values)
    return found


def _count_class_pictures(config: TrainConfig, values: dict[str, Any]) -> None:
    """None without a prior weight; all of a class folder where neither the person nor the method
    says how many."""
    prior = values.setdefault("prior", {})
    folders = [s.class_dir for s in config.all_subjects if s.class_dir is not None]
    if prior.get("weight") == 0:
        prior["pictures"] = 0
    elif folders and not prior.get("pictures") and config.prior.pictures is None:
        prior["pictures"] = max(len(find_pictures(each, field="class_dir")) for each in folders)


def _sample_prompts(config: TrainConfig) -> tuple[str, ...]:
    """The instance prompt of each subject, by its name after the first, and each class prompt."""
    if not config.subjects:
        return config.instance_prompt, config.class_prompt
    instance, classes = [], []
    for number, subject in enumerate(config.subjects):
        prompt = fill_template(subject.instance_prompt, subject.class_noun)
        instance.append(prompt.replace(IDENTIFIER, f"[{subject.called}]") if number else prompt)
        classes.append(fill_template(subject.class_prompt, subject.class_noun))
    return tuple(dict.fromkeys([*instance, *classes]))


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
