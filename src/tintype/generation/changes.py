"""Changes to a model for the length of one evaluation: seamless edges, FreeU, perturbed attention,
a VAE that works by tiles.

Each is put in and taken out again between two yields, so that nobody else sees it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import (
    Attention,
    PAGCFGIdentitySelfAttnProcessor2_0,
    PAGIdentitySelfAttnProcessor2_0,
)
from torch import Tensor
from torch.nn import functional

from tintype.errors import ConfigError
from tintype.models.model import Model
from tintype.types import GenerateRequest

# The decoder's largest layers take some 8 GB at this size in fp32, and more beyond.
PIXELS_AT_ONCE = 1536 * 1536


def changes_anything(request: GenerateRequest) -> bool:
    """Whether a request needs the modules themselves, and not their faster doubles."""
    guidance = request.guidance
    return request.tiling != "none" or guidance.freeu is not None or perturbs(request)


def perturbs(request: GenerateRequest) -> bool:
    """Whether a request takes rows with perturbed attention."""
    return request.guidance.perturbed_attention > 0


@contextmanager
def changed(
    model: Model, request: GenerateRequest, *, guided: bool, size: tuple[int, int]
) -> Iterator[None]:
    """The UNet and the VAE as `request` wants them for pictures of `size` (width, height in px);
    as they were on the way out, to the bit."""
    with ExitStack() as stack:
        if request.tiling != "none":
            stack.enter_context(seamless(model.unet, request.tiling))
            stack.enter_context(seamless(model.vae, request.tiling))
        if request.guidance.freeu is not None:
            stack.enter_context(_freeu(model, request.guidance.freeu))
        if by_tiles(request, size):
            stack.enter_context(_tiled(model.vae))
        if perturbs(request):
            stack.enter_context(_perturbed(model, guided=guided))
        yield


def by_tiles(request: GenerateRequest, size: tuple[int, int]) -> bool:
    """Whether the VAE works by tiles on pictures of `size` (px), and on one at a time.

    Seamless pictures are never cut. Raises ConfigError for both at once.
    """
    if request.tiling != "none":
        if request.vae_tiling == "always":
            raise ConfigError("doesn't go with seamless tiling", field="vae_tiling", value="always")
        return False
    if request.vae_tiling == "auto":
        return size[0] * size[1] > PIXELS_AT_ONCE
    return request.vae_tiling == "always"


@contextmanager
def _tiled(vae: Any) -> Iterator[None]:
    """diffusers' tiles: of the side that the VAE was trained at, a quarter of it blended."""
    before = vae.use_tiling, vae.use_slicing
    vae.use_tiling = vae.use_slicing = True
    try:
        yield
    finally:
        vae.use_tiling, vae.use_slicing = before


@contextmanager
def seamless(module: torch.nn.Module, axes: str) -> Iterator[None]:
    """Convolutions that see the opposite edge beyond an edge; `axes` is "x", "y" or "both"."""
    padded: list[tuple[torch.nn.Conv2d, Any]] = [
        (module, module.padding)
        for module in module.modules()
        if isinstance(module, torch.nn.Conv2d) and module.padding != (0, 0)
    ]
    hooks = []
    for conv, padding in padded:
        hooks.append(conv.register_forward_pre_hook(partial(_wrapped, axes, padding)))
        conv.padding = (0, 0)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for conv, padding in padded:
            conv.padding = padding


def _wrapped(
    axes: str, padding: tuple[int, int], module: torch.nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The padded input of a convolution that pads no more."""
    down, across = padding
    ways = ["circular" if axes in (axis, "both") else "constant" for axis in ("x", "y")]
    wide = functional.pad(inputs[0], (across, across, 0, 0), mode=ways[0])
    return (functional.pad(wide, (0, 0, down, down), mode=ways[1]), *inputs[1:])


@contextmanager
def _freeu(model: Model, scales: tuple[float, float, float, float]) -> Iterator[None]:
    """arXiv:2309.11497 by diffusers' own blocks; `scales` are s1, s2, b1, b2."""
    s1, s2, b1, b2 = scales
    model.unet.enable_freeu(s1=s1, s2=s2, b1=b1, b2=b2)
    try:
        yield
    finally:
        model.unet.disable_freeu()


@contextmanager
def _perturbed(model: Model, *, guided: bool) -> Iterator[None]:
    """Self-attention of the middle block replaced by the identity for the last rows of a batch
    (arXiv:2403.17377): the last third of (negative, positive, perturbed), or the last half."""
    kind = PAGCFGIdentitySelfAttnProcessor2_0 if guided else PAGIdentitySelfAttnProcessor2_0
    layers: list[Attention] = [
        module
        for name, module in model.unet.mid_block.named_modules()
        if name.endswith("attn1") and isinstance(module, Attention)
    ]
    before = [layer.processor for layer in layers]
    for layer in layers:
        layer.processor = kind()
    try:
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor
