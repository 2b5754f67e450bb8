"""A word of textual inversion: vectors that stand for it in a text encoder's input."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """`vectors` [n, width] by text encoder ("text_encoder", and for SDXL "text_encoder_2")."""

    token: str
    vectors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
