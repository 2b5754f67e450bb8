"""A plain training loop of diffusers', transformers' and peft's own parts, to compare with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline, EDMEulerScheduler
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional

from tintype.training.task import Task

UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]
SIZES = [64, 64, 0, 0, 64, 64]


@dataclass
class Plain:
    """The parts of a folder, loaded by diffusers, and what of them trains, by our names.

    `after` is called after each step.
    """

    parts: dict[str, Any]
    prompts: tuple[str, ...]
    parameters: dict[str, Tensor] = field(default_factory=dict)
    after: Callable[[], None] = lambda: None

    @classmethod
    def load(cls, folder: Path, prompts: tuple[str, ...]) -> "Plain":
        pipeline = DiffusionPipeline.from_pretrained(folder)
        parts = {name: part for name, part in pipeline.components.items() if part is not None}
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
        parts["unet"].train()
        return cls(parts, prompts)

    @property
    def encoders(self) -> list[str]:
        return [name for name in ("text_encoder", "text_encoder_2") if name in self.parts]

    def add_lora(self, names: list[str], rank: int) -> None:
        """diffusers' and transformers' own way to add a peft adapter."""
        for name in names:
            targets = UNET_TARGETS if name == "unet" else TEXT_TARGETS
            config = LoraConfig(
                r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets
            )
            self.parts[name].add_adapter(config)
            self.train(name, lambda parameter: "lora_" in parameter)

    def add_word(self, word: str, vectors: int, initial: str) -> None:
        """As in diffusers' textual_inversion.py: a longer vocabulary, of which new rows train."""
        words = [word, *(f"{word}_{i}" for i in range(1, vectors))]
        for name in self.encoders:
            tokenizer = self.parts[name.replace("text_encoder", "tokenizer")]
            [first] = tokenizer(initial, add_special_tokens=False).input_ids
            assert tokenizer.add_tokens(words) == vectors
            encoder = self.parts[name]
            table = encoder.get_input_embeddings().weight.detach()
            rows = torch.nn.Parameter(table[[first] * vectors].clone())
            encoder.resize_token_embeddings(len(tokenizer))
            own = encoder.get_input_embeddings()
            own.requires_grad_(False)
            start = len(tokenizer) - vectors
            del own._parameters["weight"]
            self.parameters[f"{name}.words"] = rows
            longest = float(table.norm(dim=1).max())

            def use(own: Any = own, table: Tensor = table[:start], rows: Tensor = rows) -> None:
                own.weight = torch.cat([table, rows])

            def shorten(rows: Tensor = rows, longest: float = longest) -> None:
                with torch.no_grad():
                    rows *= (longest / rows.norm(dim=1, keepdim=True)).clamp(max=1)

            own.register_forward_pre_hook(lambda module, args, use=use: use())
            self.after = self._and(shorten)
        self.prompts = tuple(p.replace(word, " ".join(words)) for p in self.prompts)

    def _and(self, more: Callable[[], None]) -> Callable[[], None]:
        before = self.after

        def both() -> None:
            before()
            more()

        return both

    def train(self, name: str, chosen: Callable[[str], bool]) -> None:
        """Train those parameters of a part."""
        for parameter, value in self.parts[name].named_parameters():
            if chosen(parameter):
                self.parameters[f"{name}.{parameter}"] = value.requires_grad_(True)

    def copy_from(self, parameters: dict[str, Tensor]) -> None:
        """Begin with the same random values; the names must be the same."""
        assert self.parameters.keys() == parameters.keys()
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(parameters[name])

    def text(self, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
        hidden, pooled = [], None
        xl = len(self.encoders) == 2
        for name in self.encoders:
            tokenizer = self.parts[name.replace("text_encoder", "tokenizer")]
            ids = tokenizer(
                prompts, padding="max_length", max_length=24, truncation=True, return_tensors="pt"
            ).input_ids
            out = self.parts[name](ids, output_hidden_states=True)
            hidden.append(out.hidden_states[-2] if xl else out.last_hidden_state)
            pooled = out[0]
        tokens = torch.cat(hidden, dim=-1)
        if xl:  # an empty prompt is zeros, as where diffusers' pipeline draws without one
            empty = torch.tensor([not prompt for prompt in prompts])
            tokens, pooled = tokens.clone(), pooled.clone()
            tokens[empty], pooled[empty] = 0, 0
        return tokens, pooled

    def predict(
        self, inputs: Tensor, timesteps: Tensor, prompts: list[str], conditions: Tensor | None
    ) -> Tensor:
        tokens, pooled = self.text(prompts)
        added = None
        if len(self.encoders) == 2:
            added = {
                "text_embeds": pooled,
                "time_ids": torch.tensor([SIZES] * len(prompts)).float(),
            }
        if conditions is not None:
            inputs = torch.cat([inputs, conditions], dim=1)
        predicted: Tensor = self.parts["unet"](
            inputs, timesteps, tokens, added_cond_kwargs=added
        ).sample
        return predicted

    def loss(self, task: Task, step: int, prior_weight: float) -> Tensor:
        """The loss of what the task draws at that step, as diffusers' scripts compute it."""
        where = task.where(step)
        [batch] = task.data.draw(where)
        timesteps = task.objective.noise(batch, where).timesteps
        noise = torch.randn(batch.latents.shape, generator=where.generator("noise"))
        prompts = [self.prompts[int(prior)] for prior in batch.prior]
        own = self.parts["scheduler"].config
        if own["_class_name"].startswith("EDM"):
            error = self._edm_error(own, batch.latents, noise, timesteps, prompts)
        else:
            schedule = DDPMScheduler.from_config(own)
            noisy = schedule.add_noise(batch.latents, noise, timesteps)
            predicted = self.predict(noisy, timesteps, prompts, batch.conditions)
            target = noise
            if schedule.config.prediction_type == "v_prediction":
                target = schedule.get_velocity(batch.latents, noise, timesteps)
            error = functional.mse_loss(predicted, target, reduction="none")
        instance = error[~batch.prior].mean()
        return (
            instance + prior_weight * error[batch.prior].mean() if batch.prior.any() else instance
        )

    def _edm_error(
        self, config: Any, latents: Tensor, noise: Tensor, timesteps: Tensor, prompts: list[str]
    ) -> Tensor:
        """As train_dreambooth_lora_sdxl.py has it with --do_edm_style_training."""
        schedule = EDMEulerScheduler.from_config(config)
        sigmas = (timesteps * 4).exp().view(-1, 1, 1, 1)
        noisy = latents + sigmas * noise
        predicted = self.predict(
            schedule.precondition_inputs(noisy, sigmas), timesteps, prompts, None
        )
        denoised = schedule.precondition_outputs(noisy, predicted, sigmas)
        return (sigmas**2 + 0.5**2) / (sigmas * 0.5) ** 2 * (denoised - latents) ** 2

    def run(
        self, task: Task, steps: int, prior_weight: float, rates: dict[str, float]
    ) -> list[float]:
        """Losses of a plain loop: unfused AdamW, clipped gradients; `rates` by end of name."""
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in self.parameters.items() if name.endswith(end)], "lr": rate}
            for end, rate in rates.items()
        ]
        assert sum(len(group["params"]) for group in groups) == len(self.parameters)
        optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
        losses = []
        for step in range(steps):
            loss = self.loss(task, step, prior_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            self.after()
            losses.append(loss.item())
        return losses
