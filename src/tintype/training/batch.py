"""What one forward of the UNet is trained on."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from torch import Tensor

from tintype.training.seeds import generator_for


@dataclass(frozen=True, kw_only=True)
class Where:
    """A place in a run: all that is random there follows from it (and from a stream's name)."""

    seed: int
    step: int

    def generator(self, stream: str) -> Any:
        """A CPU generator for one purpose: the same draws on every device."""
        return generator_for(self.seed, self.step, 0, stream)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures of one size, each with its own prompt, sizes and weight; n is how many.

    `latents` [n, channels, height, width], scaled for the UNet; `sizes` [n, 6] as in
    `Family.added_conditions`; `prompts` [n], rows of the PromptTable, and `class_prompts`
    [n] those of each picture's class prompt; `weights` [n], so that the step's loss is
    sum(weights * losses); `prior` [n], true for class pictures; `mask` [n, 1, height, width], the
    weight of each latent pixel, or None; `conditions` [n, k, height, width], the extra input
    channels of an inpainting UNet, or None. `prompts`, `class_prompts` and `prior` stay on the
    CPU; the rest is on the training device.
    """

    latents: Tensor
    sizes: Tensor
    prompts: Tensor
    weights: Tensor
    prior: Tensor
    mask: Tensor | None = None
    conditions: Tensor | None = None
    class_prompts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)


Drawn = TypeVar("Drawn", bound=Any)


def some_of(drawn: Drawn, pictures: slice) -> Drawn:
    """Those pictures of a dataclass whose tensors all have one row for each picture."""
    found = {field.name: getattr(drawn, field.name) for field in fields(drawn)}
    return replace(
        drawn, **{name: each[pictures] for name, each in found.items() if isinstance(each, Tensor)}
    )
