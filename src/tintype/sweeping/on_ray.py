"""Trials on a Ray cluster, placed by Ray Tune; `out` must be a folder that all machines see."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tintype.errors import ConfigError, MissingExtraError
from tintype.sweeping.trial import Outcome, Trial, outcome, run_trial
from tintype.sweeping.trials import Trials
from tintype.types import Event, SweepConfig

try:
    import ray
    from ray import tune
    from ray.tune.search import Searcher
except ImportError as error:
    raise MissingExtraError("ray", "ray") from error

VALUE = "value"


class Feed(Searcher):
    """Hands our trials to Ray Tune, and hears from it that they have ended."""

    def __init__(
        self, config: SweepConfig, trials: Trials, ended: Callable[[Outcome], None]
    ) -> None:
        super().__init__(metric=VALUE, mode="max")
        self.config, self.trials, self.ended = config, trials, ended
        self.asked: dict[str, Trial] = {}

    def set_search_properties(self, *given: Any, **named: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        trial = self.trials.ask()
        if trial is None:
            return str(Searcher.FINISHED)
        self.asked[trial_id] = trial
        return {"number": trial.number, "values": dict(trial.values)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        trial = self.asked.pop(trial_id)
        found = outcome(self.config.out, trial)
        self.ended(found or Outcome(trial=trial, error="stopped: the log of Ray says why"))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the sweep's own folder says all."""

    def restore(self, checkpoint_path: str) -> None:
        """As `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune keeps a copy of its settings; what talks to the terminal stays here."""
        return {**self.__dict__, "ended": None, "trials": None}


def run_on_ray(
    config: SweepConfig,
    trials: Trials,
    *,
    cache_dir: Path,
    device: str,
    on_event: Callable[[Event], None],
    ended: Callable[[Outcome], None],
) -> None:
    """Run them all on the cluster at `config.address`, or on one of this machine alone.

    Raises ConfigError for a cluster that can't be reached.
    """
    started = not ray.is_initialized()
    if started:
        try:
            _reach(config.address)
            ray.init(
                address=config.address or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster answers: {error}", field="address", value=config.address
            ) from None
    try:
        work = tune.with_resources(
            tune.with_parameters(_work, sweep=config, cache_dir=cache_dir, device=device),
            {"cpu": config.cpus, "gpu": config.gpus},
        )
        tune.Tuner(
            work,
            tune_config=tune.TuneConfig(
                search_alg=Feed(config, trials, ended),
                num_samples=-1,
                max_concurrent_trials=config.jobs,
            ),
            run_config=tune.RunConfig(
                name="ray", storage_path=str(config.out.absolute()), verbose=0
            ),
        ).fit()
    finally:
        if started:
            ray.shutdown()


def _reach(address: str | None) -> None:
    """Knock at HOST:PORT, for which Ray would wait for minutes; raises OSError or ValueError."""
    if address and ":" in address and "://" not in address:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()


def _work(
    values: dict[str, Any], *, sweep: SweepConfig, cache_dir: Path, device: str
) -> dict[str, float]:
    """A trial on one of the cluster's machines; a lost one is begun again by another sweep."""
    trial = Trial(number=values["number"], values=values["values"])
    done = run_trial(sweep, trial, cache_dir=cache_dir, device=device, on_event=lambda event: None)
    value = done.value(sweep.metric)
    return {VALUE: float("nan") if value is None else value}
