"""A scheduler's name and a model's own scheduler config, to a scheduler ready to step."""

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch

from tintype.errors import InputError
from tintype.schedulers.names import row
from tintype.schedulers.table import Row

BROWNIAN_DIGITS = 6


def make(name: str, model_scheduler_config: Mapping[str, Any]) -> Any:
    """A new scheduler with the model's own betas, prediction type and spacing.

    Equals diffusers' `from_config(model_scheduler_config, **row.config)`. Raises InputError for
    an unknown name.
    """
    entry = row(name)
    scheduler_class = getattr(import_module("diffusers"), entry.class_name)
    accepted = inspect.signature(scheduler_class.__init__).parameters
    config = {**model_scheduler_config, **entry.config}
    return scheduler_class(**{key: value for key, value in config.items() if key in accepted})


def start(
    name: str,
    model_scheduler_config: Mapping[str, Any],
    steps: int,
    device: torch.device | str = "cpu",
) -> Any:
    """A new scheduler with its timesteps set; raises InputError for steps it can't do."""
    entry = row(name)
    scheduler = make(name, model_scheduler_config)
    most = min(entry.max_steps or steps, scheduler.config.num_train_timesteps)
    if steps > most:
        raise InputError(f"{entry.title} takes at most {most} steps", field="steps", value=steps)
    try:
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{entry.title} can't do that many: {error}", field="steps", value=steps
        ) from error
    return scheduler


def step_arguments(entry: Row, generators: Sequence[torch.Generator], eta: float) -> dict[str, Any]:
    """What this scheduler's `step` takes beside the prediction, one generator a picture."""
    given = {"generator": list(generators), "eta": eta}
    return {key: value for key, value in given.items() if key in entry.step_arguments}


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
