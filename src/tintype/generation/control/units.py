"""The kinds of things that lead a drawing, each with its picture and its options."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter
from PIL import Image
from torch import Tensor

from tintype.errors import ConfigError, InputError
from tintype.generation.canvas import LANCZOS
from tintype.generation.latents import to_pixels
from tintype.models.control.ip import IPAdapter
from tintype.models.families.family import Conditioning
from tintype.types.modes import ControlOptions

SOFTER = 0.825  # from each layer to the shallower one, where the prompt weighs more
# the order in which a ControlNet union was taught what its pictures are
HINTS = ("pose", "depth", "soft", "lines", "normal", "segments", "tile", "inpaint")
HINT_OF = {
    "pose": "pose",
    "depth": "depth",
    "softedge": "soft",
    "scribble": "soft",
    "canny": "lines",
    "lineart": "lines",
    "tile": "tile",
    "blur": "tile",
    "inpaint": "inpaint",
}


@dataclass(frozen=True, kw_only=True)
class NetUnit:
    """A ControlNet (arXiv:2302.05543) with its picture; `hole`, the part of it that isn't known."""

    net: ControlNetModel | ControlNetUnionModel
    picture: Image.Image
    options: ControlOptions
    hole: Image.Image | None = None

    def pixels(self, size: tuple[int, int]) -> Tensor:
        """[1, 3, height, width] in 0..1, and -1 in the hole."""
        pixels = _unit_pixels(self.picture, size)
        if self.hole is not None:
            hole = _unit_pixels(self.hole.resize(size, LANCZOS), size)[:, :1] >= 0.5
            pixels = pixels.masked_fill(hole, -1.0)
        return pixels.to(self.net.device, self.net.dtype)

    def residuals(
        self,
        pixels: Tensor,
        latents: Tensor,
        timestep: Tensor,
        conditioning: Conditioning,
        added: dict[str, Tensor] | None,
        negative: Tensor,
    ) -> list[Tensor]:
        """Those of the down blocks, then of the middle one, [rows, …]; `negative` [rows]."""
        net, rows = self.net, len(latents)
        down, middle = net(
            latents[:, : net.config.in_channels].to(net.dtype),
            timestep,
            encoder_hidden_states=conditioning.tokens,
            conditioning_scale=self.options.weight,
            added_cond_kwargs=added,
            return_dict=False,
            **self._hinted(pixels.expand(rows, -1, -1, -1)),
        )
        found = [*down, middle]
        if self.options.mode != "balanced":
            deepest = len(found) - 1
            found = [r * SOFTER ** (deepest - layer) for layer, r in enumerate(found)]
        # a net that pools its picture is trained to lead the prompt alone
        if self.options.mode == "control" or net.config.global_pool_conditions:
            # the negative prompt is left to itself, so that guidance pulls towards the picture
            kept = (~negative).to(found[0])[:, None, None, None]
            found = [residual * kept for residual in found]
        return found

    def _hinted(self, pixels: Tensor) -> dict[str, object]:
        if not isinstance(self.net, ControlNetUnionModel):
            return {"controlnet_cond": pixels}
        known = HINTS[: self.net.config.num_control_type]
        hint = self.options.hint or HINT_OF.get(self.options.preprocessor)
        if hint not in known:
            raise ConfigError(
                "a ControlNet union must be told what its picture is",
                field="control.hint",
                value=hint,
                choices=known,
            )
        place = known.index(hint)
        kinds = torch.zeros(len(pixels), self.net.config.num_control_type)
        kinds[:, place] = 1
        return {
            "controlnet_cond": [pixels],
            "control_type": kinds.to(pixels),
            "control_type_idx": [place],
        }


@dataclass(frozen=True, kw_only=True)
class AdapterUnit:
    """A T2I-Adapter (arXiv:2302.08453) with its picture."""

    net: T2IAdapter
    picture: Image.Image
    options: ControlOptions

    def features(self, size: tuple[int, int]) -> list[Tensor]:
        """What is added to each down block, [1, …], times the weight.

        Raises InputError for a size that it can't divide.
        """
        step = self.net.downscale_factor
        for field, side in zip(("width", "height"), size, strict=True):
            if side % step:
                raise InputError(
                    f"is not a multiple of {step}, as {self.options.model} needs",
                    field=field,
                    value=side,
                )
        pixels = _unit_pixels(self.picture, size)
        if self.net.config.in_channels == 1:
            pixels = _unit_pixels(self.picture.convert("L"), size)[:, :1]
        pixels = pixels.to(self.net.device, self.net.dtype)
        return [feature * self.options.weight for feature in self.net(pixels)]


@dataclass(frozen=True, kw_only=True)
class PictureUnit:
    """An IP-Adapter with its picture's tokens and those of no picture, [1, tokens, width]."""

    adapter: IPAdapter
    positive: Tensor
    negative: Tensor
    options: ControlOptions

    def rows(self, negative: Tensor) -> Tensor:
        """The tokens of each row, [rows, tokens, width]; `negative` [rows]."""
        which = negative.to(self.positive.device)[:, None, None]
        return torch.where(which, self.negative, self.positive)


Unit = NetUnit | AdapterUnit | PictureUnit


def added_up(found: Sequence[list[Tensor]]) -> list[Tensor]:
    """The sum of lists of tensors, one by one."""
    return [sum(each[1:], each[0]) for each in zip(*found, strict=True)]


def _unit_pixels(picture: Image.Image, size: tuple[int, int]) -> Tensor:
    """[1, 3, height, width] in 0..1, resized as diffusers does."""
    return to_pixels([picture.resize(size, LANCZOS)]) / 2 + 0.5
