"""The step itself: golden against a plain loop of diffusers' parts, and who is paired with whom."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional

from tests.tiny import save_sd
from tests.training.helpers import (
    CLASS,
    INSTANCE,
    losses_of,
    make_config,
    make_task,
    run_fit,
)
from tintype.models.load import load
from tintype.models.model import Model
from tintype.training.batch import Batch
from tintype.training.objective import Noised
from tintype.training.task import Task


@dataclass(frozen=True)
class Draw:
    """What one step drew, with the noise itself."""

    batch: Batch
    noised: Noised
    noise: torch.Tensor


def draw_of(task: Task, step: int) -> Draw:
    where = task.where(step)
    [batch] = task.data.draw(where)
    noise = torch.randn(batch.latents.shape, generator=where.generator("noise"))
    return Draw(batch, task.objective.noise(batch, where), noise)


def plain_loss(model: Model, draw: Draw, prior_weight: float) -> torch.Tensor:
    """diffusers' DreamBooth loss, written with diffusers' and transformers' own parts."""
    schedule = DDPMScheduler.from_config(model.scheduler_config)
    latents, timesteps = draw.batch.latents, draw.noised.timesteps
    noisy = schedule.add_noise(latents, draw.noise, timesteps)
    half = len(noisy) // 2
    prompts = [INSTANCE] * half + [CLASS] * half
    hidden, pooled = [], None
    for tokenizer, encoder in zip(model.tokenizers, model.text_encoders, strict=True):
        ids = tokenizer(
            prompts, padding="max_length", max_length=24, truncation=True, return_tensors="pt"
        ).input_ids
        out = encoder(ids, output_hidden_states=True)
        xl = len(model.text_encoders) == 2
        hidden.append(out.hidden_states[-2] if xl else out.last_hidden_state)
        pooled = out[0]
    added = None
    if len(hidden) == 2:
        sizes = torch.tensor([[64, 64, 0, 0, 64, 64]] * len(noisy)).float()
        added = {"text_embeds": pooled, "time_ids": sizes}
    predicted = model.unet(
        noisy, timesteps, torch.cat(hidden, dim=-1), added_cond_kwargs=added
    ).sample
    target = draw.noise
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(latents, draw.noise, timesteps)
    instance, prior = predicted.chunk(2)
    instance_target, prior_target = target.chunk(2)
    return functional.mse_loss(instance, instance_target) + prior_weight * functional.mse_loss(
        prior, prior_target
    )


def plain_run(task: Task, steps: int, prior_weight: float) -> list[float]:
    """A plain loop: unfused AdamW, clipped gradients."""
    parameters = list(task.trained.parameters.values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2)
    losses = []
    for step in range(steps):
        loss = plain_loss(task.model, draw_of(task, step), prior_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("kind", "text_encoder", "prior_weight"),
    [("sd", False, 1.0), ("sd", True, 0.3), ("v", False, 1.0), ("xl", False, 0.5)],
)
def test_losses_are_those_of_a_plain_loop(
    kind: str,
    text_encoder: bool,
    prior_weight: float,
    sd_folder: Path,
    sdxl_folder: Path,
    tmp_path: Path,
) -> None:
    folder = {"sd": sd_folder, "xl": sdxl_folder}.get(kind) or save_sd(
        tmp_path / "v", prediction_type="v_prediction"
    )
    values = {"train_text_encoder": text_encoder, "prior": {"weight": prior_weight}}
    run_fit(tmp_path, make_config(tmp_path, folder, **values))
    task = make_task(tmp_path, load(folder, device="cpu"), **values)
    expected = plain_run(task, 4, prior_weight)
    assert losses_of(tmp_path / "run") == pytest.approx(expected, rel=1e-4)
    assert expected[0] != pytest.approx(expected[-1], rel=1e-3)


def test_first_gradients_are_those_of_a_plain_loop(sd_folder: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path, load(sd_folder, device="cpu"), train_text_encoder=True)
    task.step(task.where(0))["loss"].backward()
    parameters = task.trained.parameters.values()
    ours = [p.grad.clone() for p in parameters if p.grad is not None]
    task.zero_grad()
    plain_loss(task.model, draw_of(task, 0), 1.0).backward()
    theirs = [p.grad for p in parameters if p.grad is not None]
    assert len(ours) == len(theirs) > 100
    for mine, plain in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-5)


def test_each_picture_goes_with_its_own_prompt_and_sizes(sdxl_folder: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path, load(sdxl_folder, device="cpu"), batch_size=3)
    data = task.data
    assert data.prior is not None
    for step in range(3):
        where = task.where(step)
        [batch] = data.draw(where)
        assert batch.prompts.tolist() == [0, 0, 0, 1, 1, 1]
        assert batch.prior.tolist() == [False] * 3 + [True] * 3
        caches = [*data.instance.caches] * 3 + [*data.prior.caches] * 3
        for latent, cache in zip(batch.latents, caches, strict=True):
            far = (latent - cache.mean).abs().amax(dim=(-1, -2, -3)) / cache.std.amax()
            assert far.min() < 6, "a latent of its own pictures"
        noised = task.objective.noise(batch, where)
        together = task.losses(batch, noised)
        for index in range(6):
            one = slice(index, index + 1)
            alone = task.losses(
                replace(
                    batch,
                    latents=batch.latents[one],
                    sizes=batch.sizes[one],
                    prompts=torch.tensor([0 if index < 3 else 1]),
                ),
                Noised(
                    inputs=noised.inputs[one],
                    timesteps=noised.timesteps[one],
                    target=noised.target[one],
                ),
            )
            torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)


def test_draws_depend_on_seed_and_step_alone(sd_folder: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path, load(sd_folder, device="cpu"), data={"caption_dropout": 0.5})

    def drawn(step: int) -> tuple[torch.Tensor, ...]:
        where = task.where(step)
        [batch] = task.data.draw(where)
        noised = task.objective.noise(batch, where)
        return batch.latents, noised.target, noised.timesteps, batch.prompts

    first = drawn(7)
    drawn(8)
    for one, other in zip(first, drawn(7), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[1], drawn(8)[1])
    rows = torch.cat([drawn(step)[3] for step in range(50)])
    assert 60 < (rows == 2).sum() < 140, "half of 200 captions are dropped"


def test_without_class_pictures_there_is_no_prior(sd_folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, sd_folder, class_dir=None, prior={"weight": 0})
    run_fit(tmp_path, config)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].split(",")[3] == ""
    assert rows[1].split(",")[1] == rows[1].split(",")[2]
