"""One step of training, whatever the method, as a LightningModule."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from tintype.models.model import Model
from tintype.runtime.carry import carried
from tintype.training.batch import Batch, Where
from tintype.training.checkpoint import Checkpoint
from tintype.training.data.source import TrainData
from tintype.training.distiller import Distiller
from tintype.training.lesson import Lesson, Share
from tintype.training.methods.method import Trained
from tintype.training.objective import Noised, Objective
from tintype.training.optim import Updates
from tintype.training.optim.clip import clip
from tintype.training.places import lesson_places, micro_steps, unconditional_share
from tintype.training.ranks import ALONE, Crew
from tintype.training.ranks.shards import SHARDED, Shards, everywhere, like
from tintype.training.seeds import stream_seed
from tintype.training.speed import Speed
from tintype.training.teacher import Notebook, Teacher
from tintype.types import TrainConfig


class Task(pl.LightningModule):
    """The loop's step: draw, add noise, predict, judge.

    The loss is the sum of weighted losses of pictures: mean(instance) + prior weight * mean(class)
    with prior preservation. Batches are the numbers of micro-steps, and all that a step draws
    follows from (seed, micro-step): each process draws the whole of it, then learns its share.
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        trained: Trained,
        data: TrainData,
        steps_done: int = 0,
        crew: Crew = ALONE,
    ) -> None:
        super().__init__()
        self.model, self.config, self.data, self.steps_done = model, config, data, steps_done
        self.trained, self.crew = trained, crew
        self.share = Share(rank=crew.ranks.rank, ranks=crew.ranks.ranks)
        self.shards: Shards | None = None
        self.parts = torch.nn.ModuleDict(trained.parts)
        self.objective = Objective(model, config.loss)
        self.restored: Checkpoint | None = None
        self.updates: Updates | None = None
        self.gradient_norm: Tensor | None = None  # of the last step, before it was clipped
        self.teacher: Teacher | Notebook | None = None
        self.distiller: Distiller | None = None
        self.speed = Speed()
        self.dtype_of_base = model.dtype
        self.has_dropout = config.adapter.dropout > 0 or any(
            isinstance(part, torch.nn.Dropout) and part.p > 0 for part in self.modules()
        )

    @property
    def prior_weight(self) -> float | None:
        """The weight of the class half of the loss; None without prior preservation."""
        has_prior = self.data.prior is not None or self.teacher is not None
        return self.config.prior.weight if has_prior else None

    def employ_teacher(self, on_page: Callable[[int, int], None]) -> None:
        """Have the base's own predictions preserve the class; before any weight has moved.

        Where the base can't be had later, its predictions are written down now: for as many draws
        as class pictures would be, or, of class pictures, for each step. `on_page` hears how many
        of how many are done.
        """
        if self.config.prior.source == "pictures":
            self._distill(on_page)
            return
        teacher = Teacher(
            predict=self.predict,
            objective=self.objective,
            base=self.trained.base or nullcontext,
            weight=self.config.prior.weight,
            empty=self.data.empty,
            unconditional=unconditional_share(self.config),
            share=self.share,
        )
        self.teacher = teacher
        if self.trained.base is None:
            places = lesson_places(self.config)
            on_page(0, len(places))
            self.teacher = Notebook.of(
                teacher, self.data.draw, places, on_page=lambda done: on_page(done, len(places))
            )

    def _distill(self, on_page: Callable[[int, int], None]) -> None:
        if self.data.prior is None:
            return
        self.distiller = Distiller(self.predict, self.trained.base)
        if self.trained.base is not None:
            return
        steps = micro_steps(self.config, self.steps_done)
        on_page(0, len(steps))
        for page, step in enumerate(steps, start=1):
            where = self.where(step)
            self.distiller.write_down(self.lessons(self.data.draw(where), where), where)
            on_page(page, len(steps))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the weights now, and the state of what updates them when that is made."""
        with torch.no_grad():
            for name, parameter in self.trained.parameters.items():
                parameter.copy_(like(checkpoint.weights[name], parameter))
        self.restored = checkpoint

    def restore_updates(self) -> None:
        """Take what updates the weights from the checkpoint that was restored."""
        assert self.updates is not None, "training has begun"
        assert self.restored is not None, "there was a checkpoint"
        state = self.restored.updates
        if self.shards is not None:
            state = self.shards.spread(state, self.updates)
        self.updates.restore(state)

    def on_fit_start(self) -> None:
        self.data = self.data.to(self.device)

    def configure_model(self) -> None:
        """Spread the weights over the devices, if they are to be."""
        if self.config.strategy == SHARDED and self.crew.ranks.ranks > 1 and self.shards is None:
            self.shards = Shards(self.parts, self.crew.ranks, self.model.device)
            self.trained = self.shards.follow(self.trained)

    def configure_optimizers(self) -> dict[str, Any]:
        self.updates = Updates(self.trained, self.config)
        if self.restored is not None:
            self.restore_updates()
        return {
            "optimizer": self.updates.optimizer,
            "lr_scheduler": {"scheduler": self.updates.schedule, "interval": "step"},
        }

    def weights(self) -> dict[str, Tensor]:
        """What trains, whole, for a checkpoint; all processes ask at once, as with `state`."""
        found = {name: p.detach() for name, p in self.trained.parameters.items()}
        return found if self.shards is None else self.shards.whole(found)

    def state(self) -> dict[str, Any]:
        """That of what updates the weights, whole."""
        assert self.updates is not None, "training has begun"
        found = self.updates.state()
        return found if self.shards is None else self.shards.whole(found)

    def result(self) -> Model:
        """The model as it was trained, whole on the first process; what trains ends by this."""
        assert self.updates is not None, "training has ended"
        self.updates.conclude()
        return self.model if self.shards is None else self.shards.put_together(self.model)

    @property
    def takes_part(self) -> bool:
        """Whether this process is needed for `as_used`: the first, and others that have shards."""
        return self.crew.is_first or self.shards is not None

    @contextmanager
    def as_used(self) -> Iterator[None]:
        """The model as it would be exported now, on the first process; afterwards it trains on
        from where it was. All enter that take part."""
        assert self.updates is not None, "training has begun"
        self.parts.eval()
        with self.speed.set_aside(), self.updates.concluded():
            if self.shards is None:
                yield
            else:
                with self.shards.lent(self.model, self.model.device):
                    yield
        self.parts.train()

    def where(self, micro_step: int) -> Where:
        """That place in this run."""
        return Where(seed=self.config.seed, step=micro_step)

    def predict(self, batch: Batch, noised: Noised) -> Tensor:
        """What the UNet makes of it, [n, channels, height, width]."""
        kind = self.dtype_of_base
        conditioning = self.data.prompts.conditioning(self.model, batch.prompts)
        added = self.model.family.added_conditions(self.model, conditioning, batch.sizes)
        inputs = noised.inputs
        if batch.conditions is not None:
            inputs = torch.cat([inputs, batch.conditions], dim=1)
        prediction: Tensor = self.model.unet(
            inputs.to(kind),
            noised.timesteps,
            conditioning.tokens.to(kind),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return prediction

    def losses(self, batch: Batch, noised: Noised) -> Tensor:
        """The loss of each picture, [n]; a pure function of what was drawn."""
        return self.objective.losses(self.predict(batch, noised), noised, batch.mask)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave alone what waits: what has no gradient doesn't change, whatever the optimiser."""
        steps = self.steps_done + self.global_step
        for group in self.trained.groups:
            if steps < group.waits:
                for parameter in group.parameters.values():
                    parameter.grad = None

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        if self.trained.after_step is not None:
            self.trained.after_step()

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        """The mean loss of the held-out pictures, with the same noise each time; None if there
        are none."""
        losses = [
            (batch.weights * self.losses(batch, self.objective.noise(batch, where))).sum()
            for batch, where in self.data.validation_batches(self.config.seed)
        ]
        return float(torch.stack(losses).sum()) if losses else None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients; Lightning's own refuses fused optimisers, though only
        16-mixed has gradients that a fused one would unscale too late (and it isn't fused there).
        """
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = clip(parameters, gradient_clip_val)
            self.gradient_norm = everywhere(norm.detach())

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Tensor]:
        if self.has_dropout:
            torch.manual_seed(stream_seed(self.config.seed, batch, self.share.rank, "dropout"))
        return self.step(self.where(batch))

    def step(self, where: Where) -> dict[str, Tensor]:
        """`loss`, and its detached `parts` [2]: of instance pictures, and of class pictures before
        their prior weight; of several processes their means are those of the step."""
        batches = self.data.draw(where)
        lessons = self.lessons(batches, where)
        if self.distiller is not None:
            lessons = self.distiller.lessons(lessons, where)
        if self.teacher is not None:
            lessons += self.teacher.lessons(batches, where)
        total, parts = [], []
        for lesson in lessons:
            batch = lesson.batch
            losses = batch.weights * self.losses(batch, lesson.noised)
            total.append(losses.sum())
            prior = carried(batch.prior, losses.device)
            instance = losses.detach().masked_fill(prior, 0).sum()
            parts.append(torch.stack([instance, total[-1].detach() - instance]))
        instance, prior = torch.stack(parts).sum(dim=0)
        prior = prior * (1 / (self.config.prior.weight or 1.0))
        return {"loss": torch.stack(total).sum(), "parts": torch.stack([instance, prior])}

    def lessons(self, batches: Sequence[Batch], where: Where) -> list[Lesson]:
        """This process's share of what was drawn at that place, with noise on it."""
        drawn = [
            Lesson(batch=batch, noised=self.objective.noise(batch, where, part))
            for part, batch in enumerate(batches)
        ]
        return self.share.of(drawn)
