"""A UNet made ready for one drawing: same weights, same text, many steps.

Everything that doesn't change from step to step is computed once (timestep embeddings, keys and
values of the text), and both halves of a guided batch are one until the text tells them apart.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from torch import Tensor, nn
from torch.nn import functional

from tintype.runtime.layers import (
    Layer,
    Resnet,
    Transformer,
    UnsupportedError,
    check_untouched,
    convolution,
    downsampling,
    exactly,
    group_norm,
    require,
    upsampling,
    widen,
)

# what a UNet may have beside the layers that are known here, and must not
_EXTRAS = (
    "class_embedding",
    "encoder_hid_proj",
    "time_embed_act",
    "position_net",
)
_FREEU = ("s1", "s2", "b1", "b2")


class FastUNet:
    """The prediction of a UNet2DConditionModel for fixed texts and timesteps.

    timesteps: [steps]; text: [rows, length, width]; added: the UNet's `added_cond_kwargs`, by
    row. Latents come as [rows] or, where both halves of a guided batch are the same, [rows / 2].
    Raises UnsupportedError for a UNet with hooks, adapters or parts that aren't known here.
    """

    def __init__(
        self,
        unet: Any,
        timesteps: Tensor,
        text: Tensor,
        added: dict[str, Tensor] | None,
        *,
        size: tuple[int, int],
    ) -> None:
        exactly(unet, UNet2DConditionModel)
        check_untouched(unet)
        require(all(getattr(unet, name, None) is None for name in _EXTRAS), "extra parts")
        require(unet.config.addition_embed_type in (None, "text_time"), "extra embeddings")
        require(not unet.config.center_input_sample, "centred input")
        require(all(side % 2**unet.num_upsamplers == 0 for side in size), "an odd size")
        self.rows = text.shape[0]
        embeddings = _embeddings(unet, timesteps, text, added)
        # with conditions of its own a row differs from the first layer on
        self.shared = embeddings.shape[1] == 1
        self.first = convolution(unet.conv_in)
        self.down = [_Block(block, embeddings, text) for block in unet.down_blocks]
        exactly(unet.mid_block, UNetMidBlock2DCrossAttn)
        self.middle = [Resnet(block, embeddings) for block in unet.mid_block.resnets]
        self.attention = [Transformer(block, text) for block in unet.mid_block.attentions]
        self.up = [_Block(block, embeddings, text) for block in unet.up_blocks]
        require(type(unet.conv_act) is nn.SiLU, "not SiLU")
        self.norm, self.last = group_norm(unet.conv_norm_out), convolution(unet.conv_out)

    def __call__(self, latents: Tensor, step: int) -> Tensor:
        """The prediction [rows, channels, height, width] at timestep number `step`."""
        if not self.shared:
            latents = widen(latents, self.rows)
        x = self.first(latents.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for block in self.down:
            x = block.descend(x, step, skips)
        x = self.middle[0](x, step)
        for attention, resnet in zip(self.attention, self.middle[1:], strict=True):
            x = resnet(attention(x), step)
        for block in self.up:
            x = block.ascend(x, step, skips)
        x = widen(x, self.rows)
        return self.last(functional.silu(self.norm(x), inplace=True)).contiguous()


class _Block:
    """One level of the UNet, on the way down or up, with or without attention to the text."""

    def __init__(self, module: Any, embeddings: Tensor, text: Tensor) -> None:
        down = type(module) in (DownBlock2D, CrossAttnDownBlock2D)
        up = type(module) in (UpBlock2D, CrossAttnUpBlock2D)
        require(down or up, f"{type(module).__name__} is not known")
        require(all(getattr(module, name, None) is None for name in _FREEU), "FreeU")
        self.resnets = [Resnet(part, embeddings) for part in module.resnets]
        attentions = getattr(module, "attentions", None)
        self.attentions: list[Layer | None] = [None] * len(self.resnets)
        if attentions is not None:
            self.attentions = [Transformer(part, text) for part in attentions]
        samplers = (module.downsamplers if down else module.upsamplers) or []
        require(len(samplers) <= 1, "several samplers")
        make = downsampling if down else upsampling
        self.sampler = make(samplers[0]) if len(samplers) else None

    def descend(self, x: Tensor, step: int, skips: list[Tensor]) -> Tensor:
        """Go one level down, leaving a copy of each result in `skips`."""
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = resnet(x, step)
            if attention is not None:
                x = attention(x)
            skips.append(x)
        if self.sampler is not None:
            x = self.sampler(x)
            skips.append(x)
        return x

    def ascend(self, x: Tensor, step: int, skips: list[Tensor]) -> Tensor:
        """Go one level up, taking from `skips` what the way down left there."""
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            skip = skips.pop()
            rows = max(len(x), len(skip))
            x = resnet(torch.cat([widen(x, rows), widen(skip, rows)], dim=1), step)
            if attention is not None:
                x = attention(x)
        return x if self.sampler is None else self.sampler(x)


def _embeddings(
    unet: Any, timesteps: Tensor, text: Tensor, added: dict[str, Tensor] | None
) -> Tensor:
    """Timestep embeddings [steps, rows or 1, width]: one row where all rows share them."""
    projected = unet.time_proj(timesteps.to(unet.device)).to(unet.dtype)
    embeddings: Tensor = unet.time_embedding(projected, None)[:, None]
    extra = unet.get_aug_embed(emb=embeddings, encoder_hidden_states=text, added_cond_kwargs=added)
    return embeddings if extra is None else embeddings + extra


def fast_unet(
    unet: Any,
    timesteps: Tensor,
    text: Tensor,
    added: dict[str, Tensor] | None,
    *,
    size: tuple[int, int],
) -> FastUNet | None:
    """A FastUNet of latents of that height and width, or None where the UNet must run itself."""
    try:
        return FastUNet(unet, timesteps, text, added, size=size)
    except UnsupportedError:
        return None
