"""What a UNet predicts, found out by asking it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

SIDE, TOKENS = 16, 8


@torch.no_grad()
def predicts_velocity(unet: Any, scheduler_config: Mapping[str, Any]) -> bool:
    """Whether a UNet predicts velocity, not noise, asked where its input is nearly pure noise.

    There the noise is the input itself, while the velocity is (minus) a picture that the input
    hardly tells of (arXiv:2202.00512, appendix D), so that it doesn't correlate with the input.
    """
    config = unet.config
    shape = (1, config.in_channels, SIDE, SIDE)
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(shape, generator=source).to(unet.device, unet.dtype)
    tokens = latents.new_zeros(1, TOKENS, config.cross_attention_dim)
    last = int(scheduler_config.get("num_train_timesteps", 1000)) - 1
    predicted = unet(latents, last, encoder_hidden_states=tokens).sample.float()
    noise = latents[:, : predicted.shape[1]].float()
    likeness = functional.cosine_similarity(predicted.flatten(), noise.flatten(), dim=0)
    return bool(likeness < 0.5)
