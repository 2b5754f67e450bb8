"""DreamBooth as a LightningModule (arXiv:2208.12242)."""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from tintype.errors import ModelError
from tintype.models.family import Conditioning
from tintype.models.model import Model
from tintype.text.encode import encode_tokens
from tintype.training.cache import LatentCache, Latents
from tintype.training.checkpoint import Checkpoint
from tintype.training.optim import make_optimizer, make_schedule
from tintype.training.seeds import generator_for, stream_seed
from tintype.types import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What is trained on: cached latents, and the prompts (instance, class, empty).

    `prompts` holds their embeddings, or is None where text encoders are trained: then `ids` are
    encoded at each step. `prior` is None without prior preservation.
    """

    instance: LatentCache
    prior: LatentCache | None
    prompts: Conditioning | None
    ids: tuple[Tensor, ...]

    def to(self, device: torch.device) -> "TrainData":
        """All of it on that device (where it is already, but for spawned ranks)."""
        prompts = self.prompts
        if prompts is not None:
            pooled = None if prompts.pooled is None else prompts.pooled.to(device)
            prompts = Conditioning(tokens=prompts.tokens.to(device), pooled=pooled)
        return TrainData(
            instance=self.instance.to(device),
            prior=None if self.prior is None else self.prior.to(device),
            prompts=prompts,
            ids=tuple(ids.to(device) for ids in self.ids),
        )


@dataclass(frozen=True, kw_only=True)
class Draw:
    """All that is random in one micro-step, for a batch of instance then class pictures.

    `rows` says which prompt (0 instance, 1 class, 2 empty) goes with each picture.
    """

    latents: Tensor
    sizes: Tensor
    noise: Tensor
    timesteps: Tensor
    rows: Tensor


class DreamBooth(pl.LightningModule):
    """One step of DreamBooth with prior preservation, full fine-tune.

    The loss is mean(instance losses) + prior_weight * mean(class losses), each loss the mean
    square error of one picture. Batches are the numbers of micro-steps, and all that a step draws
    follows from (seed, micro-step, rank).
    """

    def __init__(self, model: Model, config: TrainConfig, data: TrainData, steps_done: int) -> None:
        super().__init__()
        self.model, self.config, self.data, self.steps_done = model, config, data, steps_done
        self.trained = torch.nn.ModuleDict(trained_parts(model, config))
        self.restored: Checkpoint | None = None
        schedule = DDPMScheduler.from_config(model.scheduler_config)
        self.prediction_type = schedule.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ModelError(
                "a model with this prediction can't be trained",
                field="prediction_type",
                value=self.prediction_type,
                choices=("epsilon", "v_prediction"),
            )
        kept = schedule.alphas_cumprod.float()
        self.register_buffer("signal_rate", kept.sqrt(), persistent=False)
        self.register_buffer("noise_rate", (1 - kept).sqrt(), persistent=False)
        self.has_dropout = any(
            isinstance(part, torch.nn.Dropout) and part.p > 0 for part in self.modules()
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take the weights now, and the optimiser's and schedule's state when they are made."""
        self.trained.load_state_dict(checkpoint.weights)
        self.restored = checkpoint

    def on_fit_start(self) -> None:
        self.data = self.data.to(self.device)

    def configure_optimizers(self) -> dict[str, Any]:
        parameters = [p for p in self.trained.parameters() if p.requires_grad]
        optimizer = make_optimizer(parameters, self.config)
        schedule = make_schedule(optimizer, self.config)
        if self.restored is not None:
            optimizer.load_state_dict(self.restored.optimizer)
            schedule.load_state_dict(self.restored.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def draw(self, micro_step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Everything random of this micro-step, on this module's device."""
        config = self.config
        assert config.batch_size is not None, "a resolved config"
        where: dict[str, Any] = {"seed": config.seed, "step": micro_step, "rank": rank}
        halves = [
            cache.draw(config.batch_size, **where, ranks=ranks, name=name)
            for name, cache in (("instance", self.data.instance), ("class", self.data.prior))
            if cache is not None
        ]
        batch = Latents(
            latents=torch.cat([half.latents for half in halves]),
            sizes=torch.cat([half.sizes for half in halves]),
        )
        rows = torch.arange(len(halves)).repeat_interleave(config.batch_size)
        if config.caption_dropout:
            chance = torch.rand(len(rows), generator=generator_for(**where, stream="caption"))
            rows[chance < config.caption_dropout] = 2
        noise = torch.randn(batch.latents.shape, generator=generator_for(**where, stream="noise"))
        timesteps = torch.randint(
            len(self.signal_rate), (len(rows),), generator=generator_for(**where, stream="timestep")
        )
        to = {"device": self.device, "non_blocking": True}
        return Draw(
            latents=batch.latents,
            sizes=batch.sizes,
            noise=noise.to(**to),
            timesteps=timesteps.to(**to),
            rows=rows.to(**to),
        )

    def losses(self, draw: Draw) -> Tensor:
        """The mean square error of each picture, [batch]; a pure function of the draw."""
        signal = self.signal_rate[draw.timesteps].view(-1, 1, 1, 1)
        noise = self.noise_rate[draw.timesteps].view(-1, 1, 1, 1)
        noisy = signal * draw.latents + noise * draw.noise
        target = draw.noise
        if self.prediction_type == "v_prediction":  # arXiv:2202.00512, appendix D
            target = signal * draw.noise - noise * draw.latents
        # each distinct prompt is encoded once, however many pictures it goes with
        prompts = self.data.prompts or encode_tokens(self.model, self.data.ids)
        conditioning = prompts[draw.rows]
        predicted = self.trained["unet"](
            noisy,
            draw.timesteps,
            conditioning.tokens,
            added_cond_kwargs=self.model.family.added_conditions(
                self.model, conditioning, draw.sizes
            ),
            return_dict=False,
        )[0]
        return functional.mse_loss(predicted.float(), target, reduction="none").mean(dim=(1, 2, 3))

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
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], gradient_clip_val)

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Tensor]:
        config = self.config
        if self.has_dropout:
            torch.manual_seed(stream_seed(config.seed, batch, self.global_rank, "dropout"))
        losses = self.losses(self.draw(batch, self.global_rank, self.trainer.world_size))
        instance = losses[: config.batch_size].mean()
        if self.data.prior is None:
            return {"loss": instance, "parts": instance.detach()[None]}
        prior = losses[config.batch_size :].mean()
        loss = instance + config.prior_weight * prior
        return {"loss": loss, "parts": torch.stack([instance, prior]).detach()}


def trained_parts(model: Model, config: TrainConfig) -> dict[str, torch.nn.Module]:
    """The parts that this config trains, by their folder names."""
    parts: dict[str, torch.nn.Module] = {"unet": model.unet}
    if config.train_text_encoder:
        folders = [spec.folder for spec in model.family.text_encoders]
        parts |= dict(zip(folders, model.text_encoders, strict=True))
    return parts
