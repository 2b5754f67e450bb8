"""What a family of models is: data, and the few functions in which families differ."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from tintype.models.model import Model


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec:
    """One text encoder: its folders, its class, and which hidden state conditions the UNet.

    `layer` counts from the end of `hidden_states` (-1 = last, after the final layer norm);
    `pooled` says that its projected pooled embedding conditions the UNet too. `prefix` starts
    the names of its tensors in a single file; `open_clip` says that they are OpenCLIP's there,
    of which the last `unused_layers` layers condition nothing and are left out.
    """

    folder: str
    tokenizer: str
    transformers_class: str
    prefix: str
    layer: int | None = None
    pooled: bool = False
    open_clip: bool = False
    unused_layers: int = 0


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


class AddedConditions(Protocol):
    """The UNet's `added_cond_kwargs`, or None where it takes nothing but tokens.

    `sizes` is [batch, 6]: original height, width, crop top, left, target height, width (px);
    `negative` [batch] says which rows hold negative prompts (None: no row).
    """

    def __call__(
        self,
        model: "Model",
        conditioning: Conditioning,
        sizes: "Tensor",
        negative: "Tensor | None" = None,
    ) -> "dict[str, Tensor] | None": ...


def no_added_conditions(
    model: "Model",
    conditioning: Conditioning,
    sizes: "Tensor",
    negative: "Tensor | None" = None,
) -> dict[str, "Tensor"] | None:
    """A UNet that takes nothing but tokens."""
    return None


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What a single file's shapes don't tell of its configs: values by part, laid over them.

    `sample_size` is the latent's side; `size_numbers` how many numbers beside the text condition
    a UNet with added conditions; `guess_prediction` says that epsilon or v-prediction has to be
    found out from the UNet itself where the file doesn't state it.
    """

    scaling_factor: float
    sample_size: int
    size_numbers: int = 6
    unet: dict[str, Any] = field(default_factory=dict)
    guess_prediction: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the registry; everything else treats families alike.

    `pipeline` is diffusers' class for it, `inpaint_pipeline` that for a UNet that takes a mask
    and a masked picture beside the latents (None where there is none). `buckets` are the sizes
    (width, height in px) that it was trained at, where those are known. `align_your_steps` names
    diffusers' table of timesteps for it.
    """

    name: str
    title: str
    pipeline: str
    inpaint_pipeline: str | None = None
    text_encoders: tuple[TextEncoderSpec, ...]
    native_size: int
    single_file: SingleFile
    buckets: tuple[tuple[int, int], ...] = ()
    zeros_for_empty_negative: bool = False
    align_your_steps: str = "StableDiffusion"
    added_conditions: AddedConditions = no_added_conditions
    train_defaults: dict[str, Any] = field(default_factory=dict)
