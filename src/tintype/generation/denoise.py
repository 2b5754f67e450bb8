"""Noisy latents to the UNet's prediction, the fast way where it is known to be faster."""

from collections.abc import Callable

import torch
from torch import Tensor

from tintype.models.family import Conditioning
from tintype.models.model import Model
from tintype.runtime.unet import fast_unet

# above this the time goes into products that the fast way doesn't change
FAST_PARAMETERS = 100_000_000

Denoiser = Callable[[Tensor, int], Tensor]


def denoiser(
    model: Model,
    conditioning: Conditioning,
    added: dict[str, Tensor] | None,
    timesteps: Tensor,
    timestep_condition: Tensor | None,
    *,
    size: tuple[int, int],
) -> Denoiser:
    """The prediction of latents at timestep number i, as [rows, channels, height, width] in fp32.

    `conditioning` has one row a prediction. Latents come as [rows] or [rows / 2]: the latter
    are those of both halves of a guided batch. Holds nothing of the model but its parameters.
    """
    unet, rows, dtype = model.unet, len(conditioning.tokens), model.dtype
    if timestep_condition is None and _worthwhile(model):
        fast = fast_unet(unet, timesteps, conditioning.tokens, added, size=size)
        if fast is not None:
            return lambda latents, i: fast(latents.to(dtype), i).float()

    def slow(latents: Tensor, i: int) -> Tensor:
        if len(latents) < rows:
            latents = torch.cat([latents, latents])
        prediction: Tensor = unet(
            latents.to(dtype),
            timesteps[i],
            encoder_hidden_states=conditioning.tokens,
            timestep_cond=timestep_condition,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return prediction.float()

    return slow


def _worthwhile(model: Model) -> bool:
    parameters = sum(parameter.numel() for parameter in model.unet.parameters())
    return model.device.type == "cpu" and parameters <= FAST_PARAMETERS
