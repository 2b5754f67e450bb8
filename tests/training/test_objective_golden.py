"""One step's loss and gradients, on every kind of model, against a plain loop with each option."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from tests.tiny import save_edm, save_inpaint, save_sd2
from tests.training.helpers import CLASS, INSTANCE, make_task
from tests.training.plain import Plain
from tintype.models.load import load
from tintype.training.batch import Batch, Where
from tintype.training.task import Task

PRIOR = 0.5


def draws(where: Where, batch: Batch, stream: str) -> Tensor:
    """That stream's numbers, one for each number of the latents."""
    return torch.randn(batch.latents.shape, generator=where.generator(stream))


def ddpm(plain: Plain, **changes: Any) -> DDPMScheduler:
    return DDPMScheduler.from_config({**plain.parts["scheduler"].config, **changes})


def timesteps(where: Where, batch: Batch) -> Tensor:
    return torch.randint(1000, (len(batch),), generator=where.generator("timestep"))


def asked(plain: Plain, batch: Batch, inputs: Tensor, steps: Tensor) -> Tensor:
    prompts = [CLASS if prior else INSTANCE for prior in batch.prior]
    return plain.predict(inputs, steps, prompts, batch.conditions)


# Each gives the losses of the pictures, [n].
Losses = Callable[[Plain, Batch, Where], Tensor]


def min_snr_and_offset(plain: Plain, batch: Batch, where: Where) -> Tensor:
    """epsilon: min(SNR, 5) / SNR, for class pictures too."""
    offset = torch.randn(len(batch), 4, 1, 1, generator=where.generator("noise_offset"))
    noise = draws(where, batch, "noise") + 0.1 * offset
    steps, schedule = timesteps(where, batch), ddpm(plain)
    predicted = asked(plain, batch, schedule.add_noise(batch.latents, noise, steps), steps)
    snr = compute_snr(schedule, steps)
    return ((predicted - noise) ** 2).mean(dim=(1, 2, 3)) * snr.clamp(max=5) / snr


def min_snr_and_zero_terminal(plain: Plain, batch: Batch, where: Where) -> Tensor:
    """v: min(SNR, 5) / (SNR + 1), on the rescaled schedule."""
    noise, steps = draws(where, batch, "noise"), timesteps(where, batch)
    schedule = ddpm(plain, rescale_betas_zero_snr=True)
    predicted = asked(plain, batch, schedule.add_noise(batch.latents, noise, steps), steps)
    target = schedule.get_velocity(batch.latents, noise, steps)
    snr = compute_snr(schedule, steps)
    return ((predicted - target) ** 2).mean(dim=(1, 2, 3)) * snr.clamp(max=5) / (snr + 1)


def debiased_huber(plain: Plain, batch: Batch, where: Where) -> Tensor:
    """epsilon: a threshold by SNR, 1 / sqrt(SNR)."""
    noise, steps, schedule = draws(where, batch, "noise"), timesteps(where, batch), ddpm(plain)
    predicted = asked(plain, batch, schedule.add_noise(batch.latents, noise, steps), steps)
    snr = compute_snr(schedule, steps)
    delta = (0.9 / (1 + snr**-0.5) ** 2 + 0.1).view(-1, 1, 1, 1)
    error = 2 * delta * (((predicted - noise) ** 2 + delta**2) ** 0.5 - delta)
    return error.mean(dim=(1, 2, 3)) / snr**0.5


def edm_with_perturbed_inputs(plain: Plain, batch: Batch, where: Where) -> Tensor:
    """EDM's weighted error of the denoised latents; sigmas of the log-normal's quantiles.

    More noise is added than is to be predicted: by so much the target's own noisy latents differ.
    """
    schedule = EDMEulerScheduler.from_config(plain.parts["scheduler"].config)
    u = torch.rand(len(batch), generator=where.generator("timestep"), dtype=torch.float64)
    normal = torch.distributions.Normal(-1.2, 1.2)
    ends = normal.cdf(torch.tensor([0.002, 80.0], dtype=torch.float64).log())
    sigmas = normal.icdf(ends[0] + (ends[1] - ends[0]) * u).exp().float().view(-1, 1, 1, 1)
    noise = draws(where, batch, "noise")
    noisy = batch.latents + sigmas * noise
    shown = noisy + sigmas * 0.1 * draws(where, batch, "perturbation")
    steps = schedule.precondition_noise(sigmas.flatten())
    network = asked(plain, batch, schedule.precondition_inputs(shown, sigmas), steps)
    denoised = schedule.precondition_outputs(noisy, network, sigmas)
    weight = (sigmas**2 + 0.25) / (sigmas * 0.5) ** 2
    return (weight * (denoised - batch.latents) ** 2).mean(dim=(1, 2, 3))


def smooth_late_steps(plain: Plain, batch: Batch, where: Where) -> Tensor:
    """Smooth L1 at timesteps of 600 to 800, by the logit of a normal distribution."""
    noise, schedule = draws(where, batch, "noise"), ddpm(plain)
    u = torch.rand(len(batch), generator=where.generator("timestep"), dtype=torch.float64)
    place = torch.sigmoid(torch.distributions.Normal(0, 1).icdf(u))
    steps = (600 + 200 * place).long()
    predicted = asked(plain, batch, schedule.add_noise(batch.latents, noise, steps), steps)
    error = 2 * (((predicted - noise) ** 2 + 0.3**2) ** 0.5 - 0.3)
    return error.mean(dim=(1, 2, 3))


CASES: dict[str, tuple[Callable[[Path], Path] | str, dict[str, Any], Losses]] = {
    "sd": ("sd", {"min_snr_gamma": 5, "noise_offset": 0.1}, min_snr_and_offset),
    "sd2": (
        save_sd2,
        {"min_snr_gamma": 5, "zero_terminal_snr": True},
        min_snr_and_zero_terminal,
    ),
    "sdxl": (
        "sdxl",
        {"kind": "huber", "huber_schedule": "snr", "debiased": True},
        debiased_huber,
    ),
    "edm": (save_edm, {"input_perturbation": 0.1}, edm_with_perturbed_inputs),
    "inpaint": (
        save_inpaint,
        {
            "kind": "smooth-l1",
            "huber_delta": 0.3,
            "timesteps": "logit-normal",
            "timestep_range": [600, 800],
        },
        smooth_late_steps,
    ),
}


def gradients(task: Task, step: int) -> tuple[float, dict[str, Tensor]]:
    task.zero_grad()
    loss = task.step(task.where(step))["loss"]
    loss.backward()
    found = {n: p.grad.clone() for n, p in task.trained.parameters.items() if p.grad is not None}
    return loss.item(), found


# min-SNR with prior preservation, too, at a batch of one and of several
@pytest.mark.parametrize(
    ("name", "batch_size"),
    [("sd", 1), ("sd", 3), *((name, 2) for name in CASES if name != "sd")],
)
def test_loss_and_gradients_of_a_step_are_those_of_a_plain_loop(
    name: str, batch_size: int, sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    make, loss, losses = CASES[name]
    folders = {"sd": sd_folder, "sdxl": sdxl_folder}
    folder = folders[make] if isinstance(make, str) else make(tmp_path / "base")
    task = make_task(
        tmp_path,
        load(folder, device="cpu"),
        batch_size=batch_size,
        loss=loss,
        prior={"weight": PRIOR},
    )
    plain = Plain.load(folder, (INSTANCE, CLASS))
    plain.train("unet", lambda parameter: True)
    for step in (0, 3):
        mine, ours = gradients(task, step)
        where = task.where(step)
        [batch] = task.data.draw(where)
        each = losses(plain, batch, where)
        expected = each[~batch.prior].mean() + PRIOR * each[batch.prior].mean()
        assert mine == pytest.approx(expected.item(), rel=1e-4)
        theirs = torch.autograd.grad(expected, list(plain.parameters.values()), allow_unused=True)
        assert len(ours) == sum(gradient is not None for gradient in theirs) > 50
        largest = max(float(gradient.abs().max()) for gradient in ours.values())
        for parameter, gradient in zip(plain.parameters, theirs, strict=True):
            if gradient is not None:
                torch.testing.assert_close(
                    ours[parameter], gradient, rtol=2e-3, atol=1e-5 * max(largest, 1)
                )


def test_batches_of_one_step_have_noise_of_their_own(sd_folder: Path, tmp_path: Path) -> None:
    task = make_task(tmp_path, load(sd_folder, device="cpu"), loss={"noise_offset": 0.1})
    where = task.where(2)
    [batch] = task.data.draw(where)
    first, again, second = (task.objective.noise(batch, where, part) for part in (0, 0, 1))
    assert torch.equal(first.target, again.target)
    assert not torch.isclose(first.target, second.target).any()
    assert not torch.equal(first.timesteps, second.timesteps)
