"""What a family of models is: data, and the few functions in which families differ."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from tintype.models.model import Model


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec:
    """One text encoder: its folders, its class, and which hidden state conditions the UNet.

    `layer` counts from the end of `hidden_states` (-1 = last, after the final layer norm);
    `pooled` says that its projected pooled embedding conditions the UNet too.
    """

    folder: str
    tokenizer: str
    transformers_class: str
    layer: int | None = None
    pooled: bool = False


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Encoded prompts: `tokens` [batch, length, width], `pooled` [batch, width] or None."""

    tokens: "Tensor"
    pooled: "Tensor | None" = None

    def repeat(self, times: int) -> "Conditioning":
        """Each row `times` times, in order: [a, b] -> [a, a, b, b]."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(times, dim=0)
        return Conditioning(tokens=self.tokens.repeat_interleave(times, dim=0), pooled=pooled)

    def __getitem__(self, rows: Any) -> "Conditioning":
        pooled = None if self.pooled is None else self.pooled[rows]
        return Conditioning(tokens=self.tokens[rows], pooled=pooled)


def no_added_conditions(
    model: "Model", conditioning: Conditioning, sizes: "Tensor"
) -> dict[str, "Tensor"] | None:
    """A UNet that takes nothing but tokens."""
    return None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the registry; everything else treats families alike.

    `added_conditions(model, conditioning, sizes)` gives the UNet's `added_cond_kwargs`;
    `sizes` is [batch, 6]: original height, width, crop top, left, target height, width (px).
    """

    name: str
    title: str
    pipeline: str
    text_encoders: tuple[TextEncoderSpec, ...]
    native_size: int
    zeros_for_empty_negative: bool = False
    added_conditions: Callable[["Model", Conditioning, "Tensor"], "dict[str, Tensor] | None"] = (
        no_added_conditions
    )
    train_defaults: dict[str, Any] = field(default_factory=dict)
