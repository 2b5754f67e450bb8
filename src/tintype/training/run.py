"""A run from its config to its model: `fit` begins one, `resume` goes on with one."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tintype.errors import Interrupted, RunError
from tintype.files import storage_errors, write_text
from tintype.models.hashing import weights_sha256
from tintype.models.load import load
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model
from tintype.text.grammar import fill_template
from tintype.training.between import Between
from tintype.training.check import check_free, check_strategy
from tintype.training.checkpoint import Checkpoint, newest_checkpoint, remove_leftovers
from tintype.training.config import config_hash, dump_config, read_config
from tintype.training.data.prepare import Preparation
from tintype.training.data.source import TrainData
from tintype.training.data.sources import Sources
from tintype.training.export import CARD
from tintype.training.interrupt import StopWish
from tintype.training.methods import method
from tintype.training.methods.method import Trained
from tintype.training.methods.table import as_text, count, lines
from tintype.training.objective import check_loss, check_trainable, with_schedule
from tintype.training.optim import check_optimizer
from tintype.training.resolve import resolve
from tintype.training.samples import draw_samples
from tintype.training.task import Task
from tintype.training.trainer import Place, release, train
from tintype.types import Event, Note, Progress, TrainConfig, TrainResult

SAVING = "saving"
PRIOR = "prior"
CONFIG = "config.yaml"
TABLE = "trains.txt"

OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An `on_event` for those who don't want to hear."""


def fit(
    config: TrainConfig,
    *,
    cache_dir: Path,
    model: Model | None = None,
    device: str = "auto",
    runs_dir: Path = Path("runs"),
    allow_pickle: bool = False,
    offline: bool = False,
    on_event: OnEvent = ignore,
) -> TrainResult:
    """Train as `config` says, from the first step to the exported model.

    A given `model` stands for `config.model` and stays as it is. `device` is "auto", "cpu",
    "cuda", "cuda:1" or "mps"; `allow_pickle` and `offline` are as in `load`. In the main thread,
    Ctrl-C and SIGTERM end the run after the step with a checkpoint. Events: Progress of the
    phases "class pictures", "caching", "training", "sampling" and "saving", and Notes.

    Raises InputError for what is wrong with the config, the pictures or the run folder;
    TrainingError for a loss that isn't finite; StorageError for a full disk; Interrupted.
    """
    check_strategy(config)
    method(config.method)
    check_loss(config.loss)
    check_optimizer(config)
    Sources.find(config, None)  # a typing error shouldn't wait for gigabytes to load
    base = own(model) or _load(config.model, allow_pickle, offline, on_event)
    config = resolve(config, base, runs_dir=runs_dir)
    assert config.out is not None, "a resolved config"
    run = config.out.absolute()
    first = rank_zero_only.rank == 0
    if first:
        check_free(run)
    prepared = _Run(config, run, base, cache_dir, device, on_event)
    if first:
        with storage_errors(run):
            run.mkdir(parents=True, exist_ok=True)
        write_text(run / CONFIG, dump_config(config))
    return prepared.go(None)


def resume(
    run: Path,
    *,
    cache_dir: Path,
    model: Model | None = None,
    device: str = "auto",
    allow_pickle: bool = False,
    offline: bool = False,
    on_event: OnEvent = ignore,
) -> TrainResult:
    """Go on with a run after its last checkpoint; on the CPU it ends bit-identical to one that
    was never stopped.

    A run that was finished is only looked at. Raises RunError for a folder that holds no run, or
    one whose config, pictures or base model have changed since; else as `fit`.
    """
    run = run.absolute()
    if not (run / CONFIG).is_file():
        raise RunError(f"holds no run (no {CONFIG})", field="resume", value=str(run))
    config = TrainConfig(**read_config(run / CONFIG)).replace(out=run)
    if rank_zero_only.rank == 0:
        remove_leftovers(run)
    if (run / "model" / CARD).is_file():
        on_event(Note(message=f"{run} was finished: nothing to resume"))
        return _result(config, run, weights_sha256(run / "model"))
    checkpoint = newest_checkpoint(run, on_event)
    if checkpoint is not None and checkpoint.config_hash != config_hash(config):
        raise RunError(
            f"{CONFIG} has changed since the checkpoint: put it back, or begin another run "
            f"with --config",
            field="resume",
            value=str(run),
        )
    check_optimizer(config)
    base = own(model) or _load(config.model, allow_pickle, offline, on_event)
    return _Run(config, run, base, cache_dir, device, on_event).go(checkpoint)


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


def _result(config: TrainConfig, run: Path, digest: str) -> TrainResult:
    assert config.steps is not None, "a resolved config"
    subject = config.all_subjects[0]
    return TrainResult(
        out=run,
        model=run / "model",
        steps=config.steps,
        instance_prompt=fill_template(subject.instance_prompt, subject.class_noun),
        weights_sha256=digest,
    )


class _Run:
    """One run under way: class pictures, caching, training, saving."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        model: Model,
        cache_dir: Path,
        device: str,
        on_event: OnEvent,
    ) -> None:
        self.config, self.run, self.model, self.cache_dir = config, run, model, cache_dir
        self.wish = StopWish()
        self.on_event = on_event if rank_zero_only.rank == 0 else ignore
        self.place = Place.of(config, device)
        self.method = method(config.method)
        self.method.check(model, config)
        check_trainable(model, config.loss)
        self.preparation = Preparation(
            model,
            config,
            self.method,
            Sources.find(config, self.on_event),
            on_event=self.on_event,
            heed=self._heed,
        )

    def go(self, checkpoint: Checkpoint | None) -> TrainResult:
        """From `checkpoint`, or from the beginning, to the exported model."""
        with self.wish.listening(), storage_errors(self.run):
            for part in self.model.parts.values():
                part.requires_grad_(False)
            self.model.to(self.place.device)
            self.preparation.draw_class_pictures(self.cache_dir)
            data_hash = self.preparation.data_hash()
            if checkpoint is not None and checkpoint.data_hash != data_hash:
                raise RunError(
                    "the pictures or the base model have changed since the checkpoint",
                    field="resume",
                    value=str(self.run),
                )
            totals = count(self.model)
            trained = self.method.make_ready(self.model, self.config)
            self._say_what_trains(trained, totals)
            data = self.preparation.cache()
            release(self.model, trained, encodes=data.prompts.cached is None)
            scheduler = with_schedule(self.model.scheduler_config, self.config.loss)
            self.model.scheduler_config = scheduler
            self._train(trained, data, data_hash, checkpoint)
            self.on_event(Progress(phase=SAVING, step=0, total=1))
            digest = self.method.export(self.model, self.config, self.run / "model")
            self.on_event(Progress(phase=SAVING, step=1, total=1))
        return _result(self.config, self.run, digest)

    def _train(
        self, trained: Trained, data: TrainData, data_hash: str, checkpoint: Checkpoint | None
    ) -> None:
        """Train to the last step; raises Interrupted if the person wished to stop before."""
        config, run = self.config, self.run
        assert config.steps is not None, "a resolved config"
        task = Task(self.model, config, trained, data, checkpoint.step if checkpoint else 0)
        if config.prior.source == "model" and config.prior.weight:
            task.employ_teacher(self._tell_page)
        if checkpoint is not None:
            task.restore(checkpoint)
            del checkpoint
        task.parts.train()
        samples = [self.preparation.fill(prompt) for prompt in config.sample_prompts]
        between = Between(
            run,
            data_hash=data_hash,
            config_hash=config_hash(config),
            wish=self.wish,
            sample=lambda step: draw_samples(
                self.model, config, samples, run, step, self.place.device, self.on_event
            ),
            on_event=self.on_event,
        )
        train(task, between, self.place, run)
        if rank_zero_only.rank != 0:
            # a process that Lightning started for another device, with the same command line
            raise SystemExit(0)
        if between.stopped_at is not None and between.stopped_at < config.steps:
            raise Interrupted(
                f"Stopped after step {between.stopped_at} of {config.steps}; a checkpoint is kept. "
                f"Resume with: tintype train --resume {run}"
            )
        assert task.updates is not None, "training has ended"
        task.updates.conclude()

    def _say_what_trains(self, trained: Trained, totals: dict[str, int]) -> None:
        """Tell the method's notes and the table of what trains; the run keeps the table."""
        for message in trained.notes:
            self.on_event(Note(message=message))
        table = as_text(lines(trained, totals))
        self.on_event(Note(message=table))
        if rank_zero_only.rank == 0:
            write_text(self.run / TABLE, table + "\n")

    def _tell_page(self, done: int, total: int) -> None:
        self.on_event(Progress(phase=PRIOR, step=done, total=total))
        self._heed()

    def _heed(self) -> None:
        """Stop here if asked to; nothing has been trained yet."""
        if self.wish.made:
            raise Interrupted(
                "Stopped before the first step; the class pictures drawn so far are kept. "
                f"Resume with: tintype train --resume {self.run}"
            )
