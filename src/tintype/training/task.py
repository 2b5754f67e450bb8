"""One step of training, whatever the method, as a LightningModule."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from tintype.models.model import Model
from tintype.training.batch import Batch, Where
from tintype.training.checkpoint import Checkpoint
from tintype.training.data.source import TrainData
from tintype.training.methods.method import Trained
from tintype.training.objective import Noised, Objective
from tintype.training.optim import make_optimizer, make_schedule
from tintype.training.seeds import stream_seed
from tintype.types import TrainConfig


class Task(pl.LightningModule):
    """The loop's step: draw, add noise, predict, judge.

    The loss is the sum of weighted losses of pictures: mean(instance) + prior weight * mean(class)
    with prior preservation. Batches are the numbers of micro-steps, and all that a step draws
    follows from (seed, micro-step, rank).
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        trained: Trained,
        data: TrainData,
        steps_done: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.config, self.data, self.steps_done = model, config, data, steps_done
        self.trained = trained
        self.parts = torch.nn.ModuleDict(trained.parts)
        self.objective = Objective(model, config.loss)
        self.restored: Checkpoint | None = None
        self.has_dropout = any(
            isinstance(part, torch.nn.Dropout) and part.p > 0 for part in self.modules()
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the weights now, and the optimiser's and schedule's state when they are made."""
        with torch.no_grad():
            for name, parameter in self.trained.parameters.items():
                parameter.copy_(checkpoint.weights[name])
        self.restored = checkpoint

    def on_fit_start(self) -> None:
        self.data = self.data.to(self.device)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = make_optimizer(self.trained.groups, self.config)
        schedule = make_schedule(optimizer, self.config)
        if self.restored is not None:
            optimizer.load_state_dict(self.restored.optimizer)
            schedule.load_state_dict(self.restored.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def where(self, micro_step: int, rank: int = 0, ranks: int = 1) -> Where:
        """That place in this run."""
        return Where(seed=self.config.seed, step=micro_step, rank=rank, ranks=ranks)

    def predict(self, batch: Batch, noised: Noised) -> Tensor:
        """What the UNet makes of it, [n, channels, height, width]."""
        conditioning = self.data.prompts.conditioning(self.model, batch.prompts)
        inputs = noised.inputs
        if batch.conditions is not None:
            inputs = torch.cat([inputs, batch.conditions], dim=1)
        prediction: Tensor = self.parts["unet"](
            inputs,
            noised.timesteps,
            conditioning.tokens,
            added_cond_kwargs=self.model.family.added_conditions(
                self.model, conditioning, batch.sizes
            ),
            return_dict=False,
        )[0]
        return prediction

    def losses(self, batch: Batch, noised: Noised) -> Tensor:
        """The loss of each picture, [n]; a pure function of what was drawn."""
        return self.objective.losses(self.predict(batch, noised), noised, batch.mask)

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
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Tensor]:
        where = self.where(batch, self.global_rank, self.trainer.world_size)
        if self.has_dropout:
            torch.manual_seed(stream_seed(where.seed, batch, where.rank, "dropout"))
        return self.step(where)

    def step(self, where: Where) -> dict[str, Tensor]:
        """`loss`, and its detached `parts` [2]: of instance pictures, and of class pictures before
        their prior weight."""
        total, parts = [], []
        for batch in self.data.draw(where):
            losses = batch.weights * self.losses(batch, self.objective.noise(batch, where))
            total.append(losses.sum())
            prior = batch.prior.to(losses.device, non_blocking=True)
            instance = losses.detach().masked_fill(prior, 0).sum()
            parts.append(torch.stack([instance, total[-1].detach() - instance]))
        scale = torch.tensor([1.0, 1 / (self.config.prior.weight or 1.0)])
        summed = torch.stack(parts).sum(dim=0)
        return {"loss": torch.stack(total).sum(), "parts": summed * scale.to(summed)}
