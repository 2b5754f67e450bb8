"""One trial: a training with its own settings, measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tintype.errors import InputError, TrainingError
from tintype.evaluate.figures import Figures
from tintype.evaluate.report import load_evaluation, train_and_evaluate
from tintype.files import write_text
from tintype.types import Event, SweepConfig, TrainConfig
from tintype.types.base import merged

FAILED = "failed.txt"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Number `number` of a sweep, with these values of the keys that vary."""

    number: int
    values: Mapping[str, Any]

    def folder(self, sweep: Path) -> Path:
        """Where its run is."""
        return sweep / f"trial-{self.number:03d}"

    @property
    def label(self) -> str:
        """Its values in a line."""
        return ", ".join(f"{key}={shown(value)}" for key, value in self.values.items())

    def config(self, base: TrainConfig) -> TrainConfig:
        """The training of this trial; raises ConfigError for a key or value that can't be."""
        changes: dict[str, Any] = {}
        for key, value in self.values.items():
            for part in reversed(key.split(".")):
                value = {part: value}
            changes = merged(changes, value)
        return base.replace(**changes)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended: `figures`, or the `error` that it failed with."""

    trial: Trial
    figures: Figures | None = None
    error: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """The figure that the sweep looks for the highest of; None if the trial failed."""
        return None if self.figures is None else METRICS[metric](self.figures)


def score(figures: Figures) -> float:
    """Likeness, as a share of what the instance pictures have among themselves and at most 1,
    times how well the class is kept: high only where both are."""
    share = figures.subject_similarity.after / max(figures.instance_similarity, 1e-6)
    return max(0.0, min(1.0, share)) * max(0.0, figures.class_preservation)


METRICS: dict[str, Callable[[Figures], float]] = {
    "score": score,
    "likeness": lambda figures: figures.subject_similarity.after,
    "class_preservation": lambda figures: figures.class_preservation,
    "prompt_fidelity": lambda figures: figures.prompt_fidelity.after,
}


def outcome(sweep: Path, trial: Trial) -> Outcome | None:
    """How the trial ended, if it has."""
    folder = trial.folder(sweep)
    found = load_evaluation(folder)
    if found is not None:
        return Outcome(trial=trial, figures=found.figures, seconds=found.seconds)
    if (folder / FAILED).is_file():
        text = (folder / FAILED).read_text(encoding="utf-8").strip()
        return Outcome(trial=trial, error=text)
    return None


def run_trial(
    config: SweepConfig,
    trial: Trial,
    *,
    cache_dir: Path,
    device: str,
    on_event: Callable[[Event], None],
) -> Outcome:
    """Train and measure, or go on with that; what fails for its own settings is an Outcome too.

    Raises StorageError and Interrupted, which end a sweep.
    """
    folder = trial.folder(config.out)
    found = outcome(config.out, trial)
    if found is not None:
        return found
    try:
        done = train_and_evaluate(
            trial.config(config.train).replace(out=folder),
            cache_dir=cache_dir,
            device=device,
            title=trial.label,
            on_event=on_event,
        )
    except (InputError, TrainingError) as error:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FAILED, f"{error}\n")
        return Outcome(trial=trial, error=str(error))
    return Outcome(trial=trial, figures=done.figures, seconds=done.seconds)


def shown(value: Any) -> str:
    """A value as a person writes it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
