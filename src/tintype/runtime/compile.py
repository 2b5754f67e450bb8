"""The repeated blocks of a UNet, compiled one by one and put in its place for a while.

Regions rather than the whole: blocks that are alike are compiled once, and what isn't worth it
(the time embedding, the skips between blocks) stays Python.
"""

from contextlib import ExitStack
from functools import cache
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
# Blocks of one class share what is compiled for them. Stable Diffusion 1.5 has 14 different
# ResNet blocks, and each may run with gradients and without: torch would give up after 8.
VARIANTS = 64


class Regions:
    """The compiled blocks of one UNet; `put_in` and `take_out` may alternate.

    Only each block's `forward` is stood in for: parameters, their names and hooks stay, so that
    adapters in the blocks and checkpoints around them work as before. `several_shapes` says that
    latents of several sizes come, whose sides are then left open.
    """

    name = "compiled regions"

    def __init__(
        self, unet: nn.Module, *, several_shapes: bool = False, backend: str = "inductor"
    ) -> None:
        self.blocks = [part for part in unet.modules() if type(part) in BLOCKS]
        options: Any = {"fallback_random": True} if backend == "inductor" else None  # as eager
        self.compiled = [
            torch.compile(
                block.forward,
                backend=backend,
                dynamic=None if several_shapes else False,
                options=options,
            )
            for block in self.blocks
        ]
        self._while_in = ExitStack()

    def put_in(self) -> None:
        """Have the UNet run compiled; each block is compiled when it first runs."""
        self._while_in.enter_context(torch._dynamo.config.patch(recompile_limit=VARIANTS))
        for block, compiled in zip(self.blocks, self.compiled, strict=True):
            block.forward = compiled

    def take_out(self) -> None:
        """The UNet as it was."""
        self._while_in.close()
        for block in self.blocks:
            del block.forward


def _anything(x: Tensor) -> Tensor:
    return torch.sin(x) + 1


@cache
def why_not(device: torch.device, backend: str) -> str | None:
    """Why nothing can be compiled for that device here (no C compiler, no Triton), or None.

    Found by compiling something, once for each device.
    """
    try:
        torch.compile(_anything, backend=backend)(torch.ones(8, device=device))
    except (RuntimeError, OSError) as error:  # all that compilers fail with
        return str(error).strip().splitlines()[0]
    return None
