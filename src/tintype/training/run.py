"""A run from its config to its model: `fit` begins one, `resume` goes on with one."""

import copy
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tintype.errors import ConfigError, RunError
from tintype.models.hashing import weights_sha256
from tintype.models.load import load
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model
from tintype.training.check import check_free
from tintype.training.checkpoint import (
    newest_checkpoint,
    remove_leftovers,
)
from tintype.training.config import read_config
from tintype.training.data.sources import Sources
from tintype.training.export import CARD
from tintype.training.keeping.lock import locked
from tintype.training.keeping.review import Review
from tintype.training.methods import method
from tintype.training.objective import check_loss
from tintype.training.optim import check_optimizer
from tintype.training.place import Place
from tintype.training.ranks import Crew, Ranks, started_outside
from tintype.training.ranks.check import check_batch, check_strategy
from tintype.training.resolve import resolve
from tintype.training.under_way import CONFIG, OnEvent, UnderWay, ignore, result_of
from tintype.training.watch.loggers import check_loggers
from tintype.types import Note, TrainConfig, TrainResult
from tintype.types.base import merged


def fit(
    config: TrainConfig,
    *,
    cache_dir: Path,
    model: Model | None = None,
    device: str = "auto",
    runs_dir: Path = Path("runs"),
    allow_pickle: bool = False,
    offline: bool = False,
    ranks: Ranks | None = None,
    on_event: OnEvent = ignore,
) -> TrainResult:
    """Train as `config` says, from the first step to the exported model.

    A given `model` stands for `config.model` and stays as it is. `device` is "auto", "cpu",
    "cuda", "cuda:1" or "mps"; `allow_pickle` and `offline` are as in `load`. In the main thread,
    Ctrl-C and SIGTERM end the run after the step with a checkpoint. Events: Progress of the
    phases "class pictures", "caching", "training", "sampling" and "saving", and Notes; of the
    processes of several devices the first tells them. `ranks` is for those that it has started.

    Raises InputError for what is wrong with the config, the pictures or the run folder;
    TrainingError for a loss that isn't finite; StorageError for a full disk; Interrupted.
    """
    ranks = ranks or started_outside()
    options: dict[str, Any] = {"allow_pickle": allow_pickle, "offline": offline}
    given: dict[str, Any] = {"cache_dir": cache_dir, "model": model, "device": device}
    call = partial(fit, config, **given, runs_dir=runs_dir, **options)
    with Crew(ranks) as crew:
        _check(config)
        Sources.find(config, None)  # a typing error shouldn't wait for gigabytes to load
        place = _start(crew, config, device, ranks, call, on_event)
        base = _base(config, model, crew, place, on_event=on_event, **options)
        config = resolve(config, base, runs_dir=runs_dir)
        check_batch(config, place.ranks)
        assert config.out is not None, "a resolved config"
        run = config.out.absolute()
        _check_free(run)
        prepared = UnderWay(config, run, base, cache_dir, place, crew, offline, on_event)
        with _locked(run):
            _check_free(run)  # another may have begun while this one loaded
            return prepared.go(None)


def resume(
    run: Path,
    *,
    cache_dir: Path,
    changes: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    model: Model | None = None,
    device: str = "auto",
    allow_pickle: bool = False,
    offline: bool = False,
    ranks: Ranks | None = None,
    on_event: OnEvent = ignore,
) -> TrainResult:
    """Go on with a run after its last checkpoint; on the CPU it ends bit-identical to one that
    was never stopped.

    `changes` are laid over its config. What doesn't change the steps that were made may always
    differ: more `steps` at a constant learning rate (also for a run that was finished), where and
    how often things are saved, drawn and told, and the devices. For other changes of the config,
    the pictures or the base model `allow_changed` is needed; each is then a Note.

    A run that was finished is only looked at. Raises RunError for a folder that holds no run, one
    in which another process trains, one that has changed, and changes that no run can take up;
    else as `fit`.
    """
    run = run.absolute()
    ranks = ranks or started_outside()
    tell = on_event if rank_zero_only.rank == 0 else ignore
    options: dict[str, Any] = {"allow_pickle": allow_pickle, "offline": offline}
    given: dict[str, Any] = {"cache_dir": cache_dir, "model": model, "device": device}
    call = partial(resume, run, changes=changes, allow_changed=allow_changed, **given, **options)
    with Crew(ranks) as crew:
        config = _changed_config(run, changes or {})
        if _is_finished(config, run):
            idle = ", ".join((changes or {}).keys() - {"steps"})
            told = f"; {idle} would only matter with more `steps`" if idle else ""
            tell(Note(message=f"{run} was finished: nothing to resume{told}"))
            return result_of(config, run, weights_sha256(run / "model"))
        with _locked(run):
            if rank_zero_only.rank == 0:
                remove_leftovers(run)
            _check(config)
            review = _review(run, config, allow_changed, tell)
            place = _start(crew, config, device, ranks, call, on_event)
            base = _base(config, model, crew, place, on_event=on_event, **options)
            step = review.checkpoint.step if review else None
            crew.check_alike(step, "lies where not all machines find it", run)
            if changes:
                config = resolve(config, base)
            return UnderWay(config, run, base, cache_dir, place, crew, offline, on_event).go(review)


def _review(run: Path, config: TrainConfig, allow_changed: bool, tell: OnEvent) -> Review | None:
    """The newest checkpoint, if there is any, beside the config that is to go on from it."""
    checkpoint = newest_checkpoint(run, tell)
    if checkpoint is not None:
        review = Review(run, checkpoint, allow_changed=allow_changed, on_event=tell)
        review.see_config(config)
        return review
    if (run / "model" / CARD).is_file():
        raise RunError(
            "was finished, and has no checkpoint to train on from", field="resume", value=str(run)
        )
    return None


def _check(config: TrainConfig) -> None:
    """What can be told without the model."""
    check_strategy(config)
    method(config.method)
    check_loss(config.loss)
    check_optimizer(config)
    check_loggers(config)


def _start(
    crew: Crew,
    config: TrainConfig,
    device: str,
    ranks: Ranks | None,
    call: Callable[..., Any],
    on_event: OnEvent,
) -> Place:
    """Where the run is trained; the processes that this one has to start do `call(ranks=…)`."""
    place = Place.of(config, device, ranks)
    check_batch(config, place.ranks)
    for told in place.notes(config) if rank_zero_only.rank == 0 else ():
        on_event(Note(message=told))
    crew.start(place.ranks, call)
    return place


def _base(
    config: TrainConfig, model: Model | None, crew: Crew, place: Place, **options: Any
) -> Model:
    """The base model, and all processes of the run connected; the first of each machine loads
    before the others, since it may have to download."""
    waits = crew.ranks.local_rank > 0
    if waits:
        crew.connect(place.device)
    base = own(model) or _load(config.model, **options)
    if not waits:
        crew.connect(place.device)
    return base


def _check_free(run: Path) -> None:
    """Raises RunError if the folder holds a run."""
    if rank_zero_only.rank == 0:
        check_free(run)


def _locked(run: Path) -> AbstractContextManager[None]:
    """The run's lock, held by the first of its processes."""
    return locked(run) if rank_zero_only.rank == 0 else nullcontext()


def _changed_config(run: Path, changes: Mapping[str, Any]) -> TrainConfig:
    """The run's config with `changes` laid over it; raises RunError for a folder without a run."""
    if not (run / CONFIG).is_file():
        raise RunError(f"holds no run (no {CONFIG})", field="resume", value=str(run))
    if "out" in changes:
        raise ConfigError("a run goes on in its own folder", field="out", value=str(changes["out"]))
    config = TrainConfig(**merged(read_config(run / CONFIG), dict(changes)))
    return config.replace(out=run)


def _is_finished(config: TrainConfig, run: Path) -> bool:
    """Whether all steps are made and exported; raises RunError if there were more."""
    card = run / "model" / CARD
    if not card.is_file():
        return False
    made = json.loads(card.read_text(encoding="utf-8")).get("steps")
    if made is not None and config.steps is not None and config.steps < made:
        raise RunError(
            f"the run was finished after {made} already", field="steps", value=config.steps
        )
    return made is None or bool(config.steps == made)


def _load(name: str, allow_pickle: bool, offline: bool, on_event: OnEvent) -> Model:
    """A base to train: on the CPU until it is known what trains, in float32."""
    return load(
        name,
        device="cpu",
        dtype=torch.float32,
        allow_pickle=allow_pickle,
        offline=offline,
        on_event=on_event,
    )


def own(model: Model | None) -> Model | None:
    """A copy of a given model, in float32 on the CPU, to train without changing the given one."""
    if model is None:
        return None
    copied = replace(
        model,
        unet=copy.deepcopy(model.unet),
        vae=copy.deepcopy(model.vae),
        text_encoders=copy.deepcopy(model.text_encoders),
    )
    with quiet():  # diffusers advises to load it so
        return copied.to("cpu", torch.float32)
