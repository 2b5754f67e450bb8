"""A base in fewer bits, as `memory.base_precision` and `precision` say."""

import torch
from torch import nn

from tintype.models.loading.quiet import quiet
from tintype.runtime.quantize import FORMATS, quantize
from tintype.types import TrainConfig

PURE = "bf16-true"  # the precision in which what trains is in bf16 itself
HALVES = {"bf16": torch.bfloat16, "16": torch.float16}
# The first and the last layer say most of a picture and weigh little.
KEPT = {"unet": ("conv_in", "conv_out")}


def narrow(module: nn.Module, component: str, config: TrainConfig) -> None:
    """Store a part's weights so, in place; a second time changes nothing."""
    kind = "bf16" if config.precision == PURE else config.memory.base_precision
    if kind in HALVES:
        with quiet():  # diffusers advises to load it so
            module.to(HALVES[kind])
    elif kind in FORMATS:
        quantize(module, kind, keep=KEPT.get(component, ()))
