"""`sweep`: from a SweepConfig to a ranked table, going on with what is there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tintype.errors import ConfigError, Interrupted, RunError
from tintype.files import storage_errors, write_text
from tintype.sweeping.local import run_here
from tintype.sweeping.ranking import ranked, write_sheet, write_table
from tintype.sweeping.trial import Outcome, Trial
from tintype.sweeping.trials import Grid, Trials, trials_of
from tintype.training.config import read_config
from tintype.training.keeping.lock import locked
from tintype.types import Event, Note, Progress, Range, SweepConfig

CONFIG = "sweep.yaml"
PHASE = "trials"


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A finished sweep: its trials, the best first, and its files; no `sheet` if all failed."""

    config: SweepConfig
    outcomes: list[Outcome]
    table: Path
    sheet: Path | None

    @property
    def best(self) -> Outcome | None:
        """The best trial, if any succeeded."""
        return self.outcomes[0] if self.outcomes and self.outcomes[0].figures else None


def sweep(
    config: SweepConfig,
    *,
    cache_dir: Path,
    device: str = "auto",
    on_event: Callable[[Event], None] = lambda event: None,
) -> SweepResult:
    """Try all trials in `config.out`, trial-000 and on, then rank them.

    A folder that holds the same sweep goes on: trials that ended stay, one that was stopped is
    resumed. Raises ConfigError, before anything starts, for a key or value that no training
    takes; RunError for a folder that holds something else; StorageError; Interrupted.
    """
    _check(config)
    _claim(config)
    with locked(config.out):
        trials = trials_of(config)
        tell = _Teller(config, trials, on_event)
        if config.on == "ray":
            from tintype.sweeping.on_ray import run_on_ray as run  # an optional extra
        else:
            run = run_here
        try:
            run(config, trials, cache_dir=cache_dir, device=device, on_event=on_event, ended=tell)
        except Interrupted:
            raise Interrupted(
                f"Stopped after {tell.ended} of {trials.total} trials. "
                f"Go on with: tintype sweep --resume {config.out}"
            ) from None
        outcomes = ranked(trials.outcomes(), config.metric)
    return SweepResult(
        config=config,
        outcomes=outcomes,
        table=write_table(config, outcomes),
        sheet=write_sheet(config, outcomes),
    )


class _Teller:
    """Hears how trials end; says so, and keeps count."""

    def __init__(
        self, config: SweepConfig, trials: Trials, on_event: Callable[[Event], None]
    ) -> None:
        self.metric, self.trials, self.on_event = config.metric, trials, on_event
        self.ended = len(trials.outcomes())
        self._count()

    def __call__(self, done: Outcome) -> None:
        self.trials.tell(done)
        self.ended += 1
        value = done.value(self.metric)
        found = f"{self.metric} {value:.3f}" if value is not None else f"failed: {done.error}"
        trial = done.trial
        self.on_event(Note(message=f"Trial {trial.number:03d} ({trial.label}): {found}"))
        self._count()

    def _count(self) -> None:
        self.on_event(Progress(phase=PHASE, step=self.ended, total=self.trials.total))


def read_sweep(folder: Path) -> SweepConfig:
    """The sweep of a folder; raises RunError for a folder that holds none."""
    if not (folder / CONFIG).is_file():
        raise RunError(f"holds no sweep (no {CONFIG})", field="resume", value=str(folder))
    return SweepConfig(**{**read_config(folder / CONFIG), "out": folder})


def _check(config: SweepConfig) -> None:
    """Raises ConfigError for a trial that can't be asked for."""
    if config.train.out is not None:
        raise ConfigError("a sweep chooses the folder of each trial: drop it", field="train.out")
    trials = Grid(config).trials if config.grid else _corners(config)
    for trial in trials:
        trial.config(config.train)


def _corners(config: SweepConfig) -> list[Trial]:
    """A trial for each end of a range and each choice of a search."""
    ends = {
        key: (_number(space, space.low), _number(space, space.high))
        if isinstance(space, Range)
        else space
        for key, space in config.search.items()
    }
    return [Trial(number=0, values={key: value}) for key, few in ends.items() for value in few]


def _number(space: Range, value: float) -> float:
    return int(value) if space.whole else value


def _claim(config: SweepConfig) -> None:
    """Make the folder this sweep's own."""
    text = yaml.safe_dump(
        config.model_dump(mode="json", exclude_unset=True, exclude={"out"}),
        sort_keys=False,
        allow_unicode=True,
    )
    file = config.out / CONFIG
    if file.is_file():
        if _decisive(read_sweep(config.out)) != _decisive(config):
            raise RunError(
                f"holds another sweep: go on with it by --resume {config.out}, or choose "
                "another --out",
                field="out",
                value=str(config.out),
            )
    elif config.out.exists() and any(config.out.iterdir()):
        raise RunError(
            "holds something else: choose another --out", field="out", value=str(config.out)
        )
    with storage_errors(config.out):
        config.out.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def _decisive(config: SweepConfig) -> dict[str, Any]:
    """What decides the trials; where they run doesn't."""
    return config.model_dump(mode="json", exclude={"out", "on", "jobs", "address", "cpus", "gpus"})
