"""A frozen base in fewer bits, as `memory.base_precision` says."""

import torch
from torch import nn

from tintype.models.loading.quiet import quiet
from tintype.runtime.quantize import FORMATS, quantize
from tintype.types import MemoryConfig

HALVES = {"bf16": torch.bfloat16, "16": torch.float16}
# The first and the last layer say most of a picture and weigh little.
KEPT = {"unet": ("conv_in", "conv_out")}


def narrow(module: nn.Module, component: str, config: MemoryConfig) -> None:
    """Store a part's weights so, in place."""
    if config.base_precision in HALVES:
        with quiet():  # diffusers advises to load it so
            module.to(HALVES[config.base_precision])
    elif config.base_precision in FORMATS:
        quantize(module, config.base_precision, keep=KEPT.get(component, ()))
