"""Adapters (LoRA, DoRA, LoHa, LoKr, OFT): read, written, merged into a model, and combined."""

from tintype.models.adapters.adapter import Adapter, Part, clamp_rank, part_of
from tintype.models.adapters.apply import Applied, applied, apply, merge
from tintype.models.adapters.combine import combine, resize
from tintype.models.adapters.read import read_adapter
from tintype.models.adapters.write import LAYOUTS, write_adapter

__all__ = [
    "LAYOUTS",
    "Adapter",
    "Applied",
    "Part",
    "applied",
    "apply",
    "clamp_rank",
    "combine",
    "merge",
    "part_of",
    "read_adapter",
    "resize",
    "write_adapter",
]
