"""Which checkpoint is the best: by what metrics.csv says of the steps before it."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean

from tintype.errors import ConfigError
from tintype.training.watch.rows import read_rows
from tintype.types import TrainConfig

# How scores compare.
BEST: Mapping[str, Callable[..., float]] = {"loss": min, "validation_loss": min, "likeness": max}


def check_best(config: TrainConfig) -> None:
    """Raises ConfigError for a `keep_best` that this run doesn't measure; of a resolved config."""
    missing = {
        None: None,
        "loss": None,
        "validation_loss": None if config.data.validation else "hold pictures out: data.validation",
        "likeness": None
        if config.watch.measure and config.sample_every
        else "it is of samples: watch.measure and sample_every",
    }[config.keep_best]
    if missing:
        raise ConfigError(f"isn't measured; {missing}", field="keep_best", value=config.keep_best)


def scores(run: Path, step: int, every: int) -> dict[str, float]:
    """What was measured last in the last `every` steps, and their mean loss, since that of a
    single one is noise."""
    rows = [row for row in read_rows(run) if step - every < row.step <= step]
    found = {"loss": fmean(row.loss for row in rows)} if rows else {}
    for row in rows:
        found |= {
            name: value for name, value in row.values().items() if name in BEST and name != "loss"
        }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def best_of(scored: Mapping[Path, Mapping[str, float]], by: str) -> Path | None:
    """The best of the checkpoints that have that score, the earliest of equals."""
    known = {path: score[by] for path, score in scored.items() if by in score}
    if not known:
        return None
    best = BEST[by](known.values())
    return min((path for path in known if known[path] == best), key=_step)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
