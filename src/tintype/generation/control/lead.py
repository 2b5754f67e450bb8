"""ControlNets at work (arXiv:2302.05543): their residuals for each evaluation of the UNet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffusers import ControlNetModel
from torch import Tensor
from torch.nn import functional

from tintype.generation.control.preprocess import preprocess
from tintype.generation.latents import to_pixels
from tintype.generation.sources import open_picture
from tintype.generation.stages import Stage
from tintype.models.controlnet import load_controlnet
from tintype.models.family import Conditioning
from tintype.models.model import Model
from tintype.types import GenerateRequest
from tintype.types.modes import ControlOptions

SOFTER = 0.825  # from each layer to the shallower one, where the prompt weighs more


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One ControlNet with its picture, pixels [1, 3, height, width] in 0..1."""

    net: ControlNetModel
    pixels: Tensor
    options: ControlOptions


@dataclass(frozen=True, kw_only=True)
class Control:
    """All that leads a batch; `size` (width, height in px), `evaluations` and `negative` (which
    rows are negative prompts') are known once it is `prepared` for a stage."""

    units: tuple[Unit, ...]
    size: tuple[int, int] = (0, 0)
    evaluations: int = 1
    negative: Tensor | None = None

    @classmethod
    def load(cls, model: Model, request: GenerateRequest) -> "Control | None":
        """What a request asks for, or None; raises ModelError, PictureError or ConfigError."""
        if not request.control:
            return None
        units = []
        for options in request.control:
            net = load_controlnet(options.model, model)
            picture = preprocess(
                open_picture(options.image, field="control.image"), options.preprocessor
            )
            pixels = to_pixels([picture]) / 2 + 0.5
            units.append(Unit(net=net, pixels=pixels, options=options))
        return cls(units=tuple(units))

    def prepared(self, stage: Stage, evaluations: int, negative: Tensor) -> "Control":
        """This one for the size of a stage."""
        size = (stage.width, stage.height)
        return replace(self, size=size, evaluations=evaluations, negative=negative)

    def arguments(
        self,
        latents: Tensor,
        timestep: Tensor,
        number: int,
        conditioning: Conditioning,
        added: dict[str, Tensor] | None,
    ) -> dict[str, Any]:
        """The sum of the residuals of those that are at work at this evaluation."""
        at = number / self.evaluations
        working = [u for u in self.units if u.options.start <= at < u.options.end]
        total: list[Tensor] = []
        for unit in working:
            found = self._residuals(unit, latents, timestep, conditioning, added)
            total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        if not total:
            return {}
        return {
            "down_block_additional_residuals": tuple(total[:-1]),
            "mid_block_additional_residual": total[-1],
        }

    def _residuals(
        self,
        unit: Unit,
        latents: Tensor,
        timestep: Tensor,
        conditioning: Conditioning,
        added: dict[str, Tensor] | None,
    ) -> list[Tensor]:
        """Those of the down blocks, then of the middle one."""
        width, height = self.size
        pixels = functional.interpolate(
            unit.pixels, size=(height, width), mode="bicubic", antialias=True
        ).clamp(0, 1)
        pixels = pixels.to(latents.device, unit.net.dtype).expand(len(latents), -1, -1, -1)
        channels = unit.net.config.in_channels
        down, middle = unit.net(
            latents[:, :channels].to(unit.net.dtype),
            timestep,
            encoder_hidden_states=conditioning.tokens,
            controlnet_cond=pixels,
            conditioning_scale=unit.options.weight,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return self._weighted([*down, middle], unit.options)

    def _weighted(self, residuals: Sequence[Tensor], options: ControlOptions) -> list[Tensor]:
        if options.mode == "balanced":
            return list(residuals)
        deepest = len(residuals) - 1
        softer = [r * SOFTER ** (deepest - layer) for layer, r in enumerate(residuals)]
        if options.mode == "prompt" or self.negative is None:
            return softer
        # the negative prompt is left to itself, so that guidance pulls towards the picture
        kept = (~self.negative).to(softer[0])[:, None, None, None]
        return [residual * kept for residual in softer]
