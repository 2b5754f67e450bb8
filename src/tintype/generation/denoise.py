"""Noisy latents to the UNet's prediction, the fast way where it is known to be faster."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.runtime.unet import fast_unet

# above this the time goes into products that the fast way doesn't change
FAST_PARAMETERS = 100_000_000

Denoiser = Callable[[Tensor, int], Tensor]


class Lead(Protocol):
    """What leads the UNet beside its prompt, such as a ControlNet."""

    def arguments(
        self,
        latents: Tensor,
        timestep: Tensor,
        number: int,
        conditioning: Conditioning,
        added: dict[str, Tensor] | None,
    ) -> dict[str, Any]:
        """Arguments of the UNet, for latents [rows, …] at evaluation `number`."""

    def put_in(self, number: int) -> AbstractContextManager[None]:
        """The UNet changed for that evaluation."""


def denoiser(
    model: Model,
    conditioning: Conditioning,
    added: dict[str, Tensor] | None,
    timesteps: Tensor,
    timestep_condition: Tensor | None,
    *,
    size: tuple[int, int],
    plain: bool = False,
    lead: Lead | None = None,
) -> Denoiser:
    """The prediction of latents at timestep number i, as [rows, channels, height, width] in fp32.

    `conditioning` has one row a prediction. Latents come as [rows], or as a part of that which is
    repeated: those of all blocks of a guided batch. `plain` runs the UNet's own modules, for when
    those are changed; else it holds nothing of the model but its parameters.
    """
    unet, rows, dtype = model.unet, len(conditioning.tokens), model.dtype
    # a UNet that trains an adapter may be in fewer bits than its text encoders
    conditioning = replace(conditioning, tokens=conditioning.tokens.to(dtype))
    if timestep_condition is None and not plain and lead is None and _worthwhile(model):
        fast = fast_unet(unet, timesteps, conditioning.tokens, added, size=size)
        if fast is not None:
            return lambda latents, i: fast(latents.to(dtype), i).float()

    def slow(latents: Tensor, i: int) -> Tensor:
        latents = torch.cat([latents] * (rows // len(latents)))
        arguments: dict[str, Any] = {"encoder_hidden_states": conditioning.tokens}
        if lead is not None:
            arguments |= lead.arguments(latents, timesteps[i], i, conditioning, added)
        with nullcontext() if lead is None else lead.put_in(i):
            prediction: Tensor = unet(
                latents.to(dtype),
                timesteps[i],
                timestep_cond=timestep_condition,
                added_cond_kwargs=added,
                **arguments,
                return_dict=False,
            )[0]
        return prediction.float()

    return slow


def _worthwhile(model: Model) -> bool:
    parameters = sum(parameter.numel() for parameter in model.unet.parameters())
    return model.device.type == "cpu" and parameters <= FAST_PARAMETERS
