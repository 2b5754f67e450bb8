"""A scheduler's name and a model's own scheduler config, to a scheduler ready to step."""

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch

from tintype.errors import InputError
from tintype.schedulers.aligned import aligned_timesteps
from tintype.schedulers.edm import edm_class, is_edm
from tintype.schedulers.names import row
from tintype.schedulers.table import Row

BROWNIAN_DIGITS = 6


def make(name: str, model_scheduler_config: Mapping[str, Any]) -> Any:
    """A new scheduler with the model's own betas, prediction type and spacing.

    Equals diffusers' `from_config(model_scheduler_config, **row.config)`, of the row's EDM class
    where the model is one of EDM's. Raises InputError for an unknown name, and for one that can't
    draw with an EDM model.
    """
    entry = row(name)
    class_name, own = entry.class_name, entry.config
    if is_edm(model_scheduler_config):
        class_name, own = edm_class(entry).class_name, edm_class(entry).config
    scheduler_class = getattr(import_module("diffusers"), class_name)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    config = {**model_scheduler_config, **own}
    return scheduler_class(**{key: value for key, value in config.items() if key in accepted})


def start(
    name: str,
    model_scheduler_config: Mapping[str, Any],
    steps: int,
    device: torch.device | str = "cpu",
    *,
    aligned: str = "StableDiffusion",
) -> Any:
    """A new scheduler with its timesteps set; raises InputError for steps it can't do.

    `aligned` names the table of the family for "Align Your Steps".
    """
    entry = row(name)
    scheduler = make(name, model_scheduler_config)
    most = min(entry.max_steps or steps, scheduler.config.num_train_timesteps)
    if steps > most:
        raise InputError(f"{entry.title} takes at most {most} steps", field="steps", value=steps)
    try:
        if entry.aligned:
            levels = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
            timesteps = aligned_timesteps(aligned, steps, np.asarray(levels))
            scheduler.set_timesteps(timesteps=timesteps, device=device)
        else:
            scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{entry.title} can't do that many: {error}", field="steps", value=steps
        ) from error
    return scheduler


def step_arguments(
    entry: Row,
    generators: Sequence[torch.Generator],
    model_scheduler_config: Mapping[str, Any],
    values: Mapping[str, float],
) -> dict[str, Any]:
    """What this scheduler's `step` takes beside the prediction, one generator a picture.

    `values` may hold eta, s_churn, s_tmin, s_tmax and s_noise; those that it has no use for are
    left out.
    """
    taken = entry.step_arguments
    if is_edm(model_scheduler_config):
        taken = edm_class(entry).step_arguments
    given = {"generator": list(generators), **values}
    return {key: value for key, value in given.items() if key in taken}


def seed_brownian(entry: Row, scheduler: Any, seeds: Sequence[int], latents: torch.Tensor) -> None:
    """Give a scheduler that draws Brownian noise one tree a picture, on the CPU, from its seed.

    latents: [batch, channels, height, width], for shape and device alone.
    """
    if not entry.brownian:
        return
    module = import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
    sigmas = scheduler.sigmas
    like = torch.zeros(latents.shape)
    low, high = sigmas[sigmas > 0].min(), sigmas.max()
    tree = module.BrownianTreeNoiseSampler(like, low, high, list(seeds))
    # torchsde rounds its interval so, and warns of an end that is past it by less than that
    ends = (round(float(low), BROWNIAN_DIGITS), round(float(high), BROWNIAN_DIGITS))

    def sample(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        noise: torch.Tensor = tree(*(float(s.clamp(*ends)) for s in (sigma, sigma_next)))
        return noise.to(latents.device)

    scheduler.noise_sampler = sample
