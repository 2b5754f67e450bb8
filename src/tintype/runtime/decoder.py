"""A VAE's decoder made ready for one decoding, with the same weights."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, UpDecoderBlock2D
from torch import Tensor, nn
from torch.nn import functional

from tintype.runtime.layers import (
    Layer,
    Resnet,
    UnsupportedError,
    check_untouched,
    convolution,
    exactly,
    group_norm,
    require,
    upsampling,
)


class FastDecoder:
    """The decoder of an AutoencoderKL: latents to pixels.

    Raises UnsupportedError for a VAE with hooks, tiling, slicing or parts that aren't known here.
    """

    def __init__(self, vae: Any) -> None:
        exactly(vae, AutoencoderKL)
        check_untouched(vae)
        require(not vae.use_tiling and not vae.use_slicing, "tiles or slices")
        decoder = vae.decoder
        require(type(decoder.conv_act) is nn.SiLU, "not SiLU")
        self.layers: list[Layer] = []
        if vae.post_quant_conv is not None:
            self.layers.append(convolution(vae.post_quant_conv))
        self.layers.append(convolution(decoder.conv_in))
        self.layers += _middle(decoder.mid_block)
        for block in decoder.up_blocks:
            exactly(block, UpDecoderBlock2D)
            self.layers += [Resnet(part) for part in block.resnets]
            self.layers += [upsampling(part) for part in block.upsamplers or ()]
        self.norm, self.last = group_norm(decoder.conv_norm_out), convolution(decoder.conv_out)

    def __call__(self, latents: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, 3, height * factor, width * factor]."""
        x = latents.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = layer(x)
        return self.last(functional.silu(self.norm(x), inplace=True))


def _middle(module: Any) -> list[Layer]:
    """Resnets with the module's own attention between them, where it has one."""
    exactly(module, UNetMidBlock2D)
    first, *rest = (Resnet(part) for part in module.resnets)
    layers: list[Layer] = [first]
    for attention, resnet in zip(module.attentions, rest, strict=True):
        layers += [resnet] if attention is None else [attention, resnet]
    return layers


def fast_decoder(vae: Any) -> FastDecoder | None:
    """A FastDecoder, or None where the VAE must run itself."""
    try:
        return FastDecoder(vae)
    except UnsupportedError:
        return None
