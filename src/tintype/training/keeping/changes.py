"""How two configs of a run differ, and which differences count."""

from collections.abc import Iterator, Mapping
from typing import Any

from tintype.training.config import NEUTRAL
from tintype.types import TrainConfig

# Where and by what means steps are made: results are then equal to rounding, which a Note says.
PLACES = frozenset({"accelerator", "devices", "strategy", "nodes", "speed"})
# Where files lie: their contents are compared.
PATHS = frozenset({"model", "pictures", "class_dir", "data.captions"})
# What the checkpoint's tensors are of.
FIXED = frozenset(
    {
        "method",
        "freeze",
        "train_text_encoder",
        "adapter.kind",
        "adapter.rank",
        "adapter.targets",
        "inversion.vectors",
        "optimizer.name",
    }
)


def config_changes(before: Mapping[str, Any], now: TrainConfig) -> dict[str, str]:
    """ "0.001, was 0.0005" by the name of each field that differs; `before` is a config as JSON
    has it, perhaps of another version, whose newer fields were as they are by default."""
    known = _flat(TrainConfig().model_dump(mode="json"))
    then = known | _flat(before)
    found = _flat(now.model_dump(mode="json"))
    names = dict.fromkeys([*found, *then])
    return {
        name: f"{_shown(found.get(name))}, was {_shown(then.get(name))}"
        for name in names
        if found.get(name) != then.get(name)
    }


def counts(name: str, now: TrainConfig, before: Mapping[str, Any]) -> bool:
    """Whether a change of that field changes the weights after the steps that were made."""
    if name == "steps":  # does the learning rate depend on it?
        schedules = {now.optimizer.schedule, before["optimizer"]["schedule"]}
        return schedules != {"constant"}
    group, last = name.partition(".")[0], name.rpartition(".")[2]
    if group == "subjects" and last in PATHS:
        return False
    return not {name, group} & (NEUTRAL | PLACES | PATHS)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted names; "subjects.0.repeats" is of the first of a list."""
    return {name: value for key, held in values.items() for name, value in _leaves(key, held)}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        items = enumerate(value)
    elif value != []:
        yield name, value
    for key, each in items:
        yield from _leaves(f"{name}.{key}", each)


def _shown(value: Any) -> str:
    return "none" if value in (None, {}, []) else str(value)
