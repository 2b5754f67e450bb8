"""Where trials come from: all combinations of a grid, or a study of Optuna."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tintype.errors import MissingExtraError
from tintype.sweeping.trial import Outcome, Trial, outcome
from tintype.training.seeds import stream_seed
from tintype.types import Range, SweepConfig

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.log"


class Trials(Protocol):
    """Trials one after the other; those that ended before aren't asked for again."""

    total: int

    def ask(self) -> Trial | None:
        """The next trial, or None when all were asked for."""

    def tell(self, done: Outcome) -> None:
        """Hear how one ended."""

    def outcomes(self) -> list[Outcome]:
        """Those that ended, now or before, in their order."""


class Grid:
    """All combinations, the last key turning fastest; what has ended is read off the folders."""

    def __init__(self, config: SweepConfig) -> None:
        keys, columns = config.grid.keys(), config.grid.values()
        self.trials = [
            Trial(number=number, values=dict(zip(keys, row, strict=True)))
            for number, row in enumerate(itertools.product(*columns))
        ]
        self.total = len(self.trials)
        self.out = config.out
        self._left = iter([trial for trial in self.trials if outcome(self.out, trial) is None])

    def ask(self) -> Trial | None:
        return next(self._left, None)

    def tell(self, done: Outcome) -> None:
        """Its folder tells already."""

    def outcomes(self) -> list[Outcome]:
        found = (outcome(self.out, trial) for trial in self.trials)
        return [each for each in found if each is not None]


class Study:
    """A study of Optuna (tree-structured Parzen estimator), kept in a journal file in `out`.

    Trials that a stopped sweep had begun are asked for first. Raises MissingExtraError.
    """

    def __init__(self, config: SweepConfig) -> None:
        optuna = _optuna()
        self.config, self.total = config, config.trials
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(config.out / JOURNAL))
        )
        self.study = optuna.create_study(
            study_name="sweep",
            storage=storage,
            direction="maximize",
            load_if_exists=True,
        )
        self.space = {key: _distribution(space) for key, space in config.search.items()}
        running = optuna.trial.TrialState.RUNNING
        self._begun = iter([_trial(t) for t in self.study.trials if t.state == running])

    def ask(self) -> Trial | None:
        begun = next(self._begun, None)
        if begun is not None:
            return begun
        number = len(self.study.get_trials(deepcopy=False))
        if number >= self.total:
            return None
        # a new one each time, so that a sweep that goes on asks for what it would have asked for
        self.study.sampler = _optuna().samplers.TPESampler(
            seed=stream_seed(self.config.seed, number, 0, "sweep") % 2**32,
            multivariate=True,
            constant_liar=self.config.jobs > 1,
        )
        asked = self.study.ask(self.space)
        return Trial(number=asked.number, values=asked.params)

    def tell(self, done: Outcome) -> None:
        value = done.value(self.config.metric)
        if value is None:
            self.study.tell(done.trial.number, state=_optuna().trial.TrialState.FAIL)
        else:
            self.study.tell(done.trial.number, value)

    def outcomes(self) -> list[Outcome]:
        found = (outcome(self.config.out, _trial(trial)) for trial in self.study.trials)
        return [each for each in found if each is not None]


def trials_of(config: SweepConfig) -> Trials:
    """The grid or the study of a sweep whose folder is there."""
    return Grid(config) if config.grid else Study(config)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "sweep") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _trial(found: "optuna.trial.FrozenTrial") -> Trial:
    values: Mapping[str, Any] = found.params
    return Trial(number=found.number, values=values)


def _distribution(space: Range | tuple[Any, ...]) -> Any:
    """Optuna's word for it."""
    kinds = _optuna().distributions
    if not isinstance(space, Range):
        return kinds.CategoricalDistribution(space)
    if space.whole:
        assert space.step is not None, "whole numbers have a step"
        return kinds.IntDistribution(int(space.low), int(space.high), step=int(space.step))
    return kinds.FloatDistribution(space.low, space.high, log=space.log, step=space.step)
