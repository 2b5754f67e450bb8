"""A run under way: class pictures, caching, training, saving."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tintype.errors import Interrupted
from tintype.files import storage_errors, write_text
from tintype.models.model import Model
from tintype.runtime.memory import let_go
from tintype.text.grammar import fill_template
from tintype.training.between import Between
from tintype.training.checkpoint import (
    Checkpoint,
    Origin,
    best_checkpoint,
)
from tintype.training.config import dump_config
from tintype.training.data.prepare import Preparation
from tintype.training.data.source import TrainData
from tintype.training.data.sources import Sources
from tintype.training.interrupt import StopWish
from tintype.training.keeping.best import check_best
from tintype.training.keeping.evaluated import set_evaluation_aside
from tintype.training.keeping.machine import take_up_threads
from tintype.training.keeping.review import Review
from tintype.training.keeping.space import check_room, size_of
from tintype.training.methods import method
from tintype.training.methods.method import Trained
from tintype.training.methods.narrow import narrow
from tintype.training.methods.table import as_text, count, lines
from tintype.training.objective import check_trainable, with_schedule
from tintype.training.optim import state_size
from tintype.training.place import Place
from tintype.training.places import Places, asks_base
from tintype.training.ranks import Crew
from tintype.training.samples import draw_samples
from tintype.training.task import Task
from tintype.training.trainer import release, train
from tintype.training.watch.clock import PhaseClock
from tintype.training.watch.report import write_report
from tintype.training.watch.watch import Watch
from tintype.types import Event, Note, Progress, TrainConfig, TrainResult

SAVING = "saving"
ASKING = "asking the base"
CONFIG = "config.yaml"
TABLE = "trains.txt"

OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An `on_event` for those who don't want to hear."""


def result_of(config: TrainConfig, run: Path, digest: str) -> TrainResult:
    """What a finished run has left; `digest` is the hash of its weights."""
    assert config.steps is not None, "a resolved config"
    subject = config.all_subjects[0]
    return TrainResult(
        out=run,
        model=run / "model",
        steps=config.steps,
        instance_prompt=fill_template(subject.instance_prompt, subject.class_noun),
        weights_sha256=digest,
    )


class UnderWay:
    """One run under way: class pictures, caching, training, saving."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        model: Model,
        cache_dir: Path,
        place: Place,
        crew: Crew,
        offline: bool,
        on_event: OnEvent,
    ) -> None:
        self.config, self.run, self.model, self.cache_dir = config, run, model, cache_dir
        self.wish = StopWish()
        clock = PhaseClock(on_event if rank_zero_only.rank == 0 else ignore)
        self.on_event: OnEvent = clock
        self.place, self.crew = place, crew
        self.watch = Watch(run, config, device=self.place.device, offline=offline, clock=clock)
        self.method = method(config.method)
        self.method.check(model, config)
        check_trainable(model, config.loss)
        check_best(config)
        self.preparation = Preparation(
            model,
            config,
            self.method,
            Sources.find(config, self.on_event),
            on_event=self.on_event,
            heed=self._heed,
        )

    def go(self, review: Review | None) -> TrainResult:
        """From the checkpoint that is reviewed, or from the beginning, to the exported model."""
        with self.wish.listening(), storage_errors(self.run):
            for part in self.model.parts.values():
                part.requires_grad_(False)
            if review is None:
                self._write_config()  # so that what is drawn now can be gone on with
            totals = count(self.model)
            narrow(self.model.unet, "unet", self.config)
            self.model.unet.to(self.place.device)  # which the other parts only visit
            self.preparation.draw_class_pictures(self.cache_dir, self.crew)
            contents = self.preparation.contents()
            problem = "has other pictures, or another base, on another machine"
            self.crew.check_alike(contents, problem, self.run)
            if review is not None:
                review.see_contents(contents, self.preparation.data_hash)
            self._make_room_to_encode()
            trained = self.method.make_ready(self.model, self.config)
            if review is not None:
                review.see_trained(trained.parameters)
                self._write_config()
            self._say_what_trains(trained, totals)
            self._check_room(trained)
            data = self.preparation.cache(self._places(trained, review))
            release(self.model, trained, encodes=data.prompts.cached is None)
            for part in trained.parts.values():
                part.to(self.place.device)
            scheduler = with_schedule(self.model.scheduler_config, self.config.loss)
            self.model.scheduler_config = scheduler
            origin = Origin(config=self.config.model_dump(mode="json"), contents=contents)
            self._train(trained, data, origin, review.hand_over() if review else None)
            digest = self._save() if self.crew.is_first else ""
        return result_of(self.config, self.run, self.crew.firsts(digest))

    def _make_room_to_encode(self) -> None:
        """Have the VAE and the text encoders on the device, in place of the UNet."""
        self.model.unet.to("cpu")
        let_go(self.place.device)
        for part in self.model.parts.values():
            if part is not self.model.unet:
                part.to(self.place.device)

    def _save(self) -> str:
        """Write the model and all that is said of the run; the hash of its weights."""
        self.on_event(Progress(phase=SAVING, step=0, total=1))
        if (folder := set_evaluation_aside(self.run)) is not None:
            message = f"What tintype evaluate found of the model before is in {folder} now"
            self.on_event(Note(message=message))
        digest = self.method.export(self.model, self.config, self.run / "model")
        self.on_event(Progress(phase=SAVING, step=1, total=1))
        self.watch.save()
        write_report(self.run)
        return digest

    def _train(
        self, trained: Trained, data: TrainData, origin: Origin, checkpoint: Checkpoint | None
    ) -> None:
        """Train to the last step; raises Interrupted if the person wished to stop before."""
        config, run = self.config, self.run
        assert config.steps is not None, "a resolved config"
        done = checkpoint.step if checkpoint else 0
        task = Task(self.model, config, trained, data, done, self.crew)
        if asks_base(config):
            task.employ_teacher(self._tell_page)
        before: Mapping[str, Any] = {}
        if checkpoint is not None:
            task.restore(checkpoint)
            before = checkpoint.machine
            take_up_threads(before, self.place.ranks.ranks)
            del checkpoint
        task.parts.train()
        noun = config.all_subjects[0].class_noun
        prompts = [
            (fill_template(prompt, noun), self.preparation.fill(prompt))
            for prompt in config.sample_prompts
        ]
        between = Between(
            run,
            origin=origin,
            before=before,
            wish=self.wish,
            watch=self.watch,
            sample=lambda step: draw_samples(self.model, config, prompts, run, step, self.on_event),
            on_event=self.on_event,
        )
        train(task, between, self.place, run)
        if between.stopped_at is not None and between.stopped_at < config.steps:
            raise Interrupted(
                f"Stopped after step {between.stopped_at} of {config.steps}; a checkpoint is kept. "
                f"Resume with: tintype train --resume {run}"
            )
        if config.keep_best is not None:
            self._take_best(task, config.keep_best)
        self.model = task.result()

    def _take_best(self, task: Task, by: str) -> None:
        """Go back to the checkpoint that is the best."""
        if not task.takes_part:
            return
        best = best_checkpoint(self.run, by, self.on_event)
        if task.shards is not None:
            step = best.step if best else None
            self.crew.check_alike(step, "lies where not all machines find it", self.run)
        if best is None:
            self.on_event(Note(message=f"No checkpoint has a {by}: the model is the last one"))
            return
        task.restore(best)
        task.restore_updates()
        message = f"The model is that of step {best.step}, the best by {by}: {best.scores[by]:.4f}"
        self.on_event(Note(message=message))

    def _places(self, trained: Trained, review: Review | None) -> Places:
        """Where data will be drawn."""
        done = review.checkpoint.step if review else 0
        learns = self.config.prior.source == "model" and bool(self.config.prior.weight)
        return Places(self.config, done, notebook=learns and trained.base is None)

    def _write_config(self) -> None:
        """Keep the config that is trained with."""
        if rank_zero_only.rank == 0:
            write_text(self.run / CONFIG, dump_config(self.config))

    def _check_room(self, trained: Trained) -> None:
        """Raises StorageError unless the run fits on the disk."""
        config = self.config
        assert config.steps is not None, "a resolved config"
        assert config.checkpoint_every is not None, "a resolved config"
        timed = config.checkpoint_minutes is not None
        saved = config.steps if timed else math.ceil(config.steps / config.checkpoint_every)
        kept = config.keep_checkpoints + (config.keep_best is not None)
        if rank_zero_only.rank == 0:
            check_room(
                self.run,
                checkpoint=size_of(trained.parameters.values()) + state_size(trained, config),
                count=min(saved, kept + 1),
                model=self.method.export_size(self.model, trained),
            )

    def _say_what_trains(self, trained: Trained, totals: dict[str, int]) -> None:
        """Tell the method's notes and the table of what trains; the run keeps the table."""
        for message in trained.notes:
            self.on_event(Note(message=message))
        table = as_text(lines(trained, totals))
        self.on_event(Note(message=table))
        if rank_zero_only.rank == 0:
            write_text(self.run / TABLE, table + "\n")

    def _tell_page(self, done: int, total: int) -> None:
        self.on_event(Progress(phase=ASKING, step=done, total=total))
        self._heed()

    def _heed(self) -> None:
        """Stop here if asked to, or if another process can't go on; nothing is trained yet."""
        self.crew.check()
        if self.wish.made:
            raise Interrupted(
                "Stopped before the first step; the class pictures drawn so far are kept. "
                f"Resume with: tintype train --resume {self.run}"
            )
