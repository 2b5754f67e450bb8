"""Control at work: what a request's ControlNets and adapters add to each call of the UNet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import T2IAdapter
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from PIL import Image
from torch import Tensor

from tintype.errors import ConfigError
from tintype.generation.canvas import Canvas
from tintype.generation.control.preprocess import INPAINT, Make, preprocess
from tintype.generation.control.source import Source
from tintype.generation.control.units import (
    AdapterUnit,
    NetUnit,
    PictureUnit,
    Unit,
    added_up,
)
from tintype.generation.sources import open_picture
from tintype.generation.stages import Stage
from tintype.models.control.ip import IPAdapter, cross_attentions, processors
from tintype.models.families.family import Conditioning
from tintype.models.model import Model
from tintype.types import GenerateRequest
from tintype.types.modes import ControlOptions


@dataclass(frozen=True, kw_only=True)
class Control:
    """All that leads a batch, as it was loaded."""

    nets: tuple[NetUnit, ...] = ()
    adapters: tuple[AdapterUnit, ...] = ()
    pictures: tuple[PictureUnit, ...] = ()
    processors: tuple[IPAdapterAttnProcessor2_0, ...] = ()
    """Those of the IP-Adapters, in the order of the UNet's cross-attentions."""

    @classmethod
    def load(
        cls,
        model: Model,
        request: GenerateRequest,
        canvas: Canvas | None,
        source: Source | None = None,
    ) -> "Control | None":
        """What a request asks for, or None; raises ModelError, PictureError or ConfigError."""
        if not request.control:
            return None
        source = source or Source()
        units = [_unit(model, options, canvas, source) for options in request.control]
        pictures = tuple(unit for unit in units if isinstance(unit, PictureUnit))
        found = processors(model.unet, [one.adapter for one in pictures]) if pictures else []
        return cls(
            nets=tuple(unit for unit in units if isinstance(unit, NetUnit)),
            adapters=tuple(unit for unit in units if isinstance(unit, AdapterUnit)),
            pictures=pictures,
            processors=tuple(found),
        )

    def prepared(self, stage: Stage) -> "Led":
        """It for the size and the evaluations of a stage; call it without gradients."""
        size = (stage.width, stage.height)
        return Led(
            control=self,
            stage=stage,
            pixels=tuple(unit.pixels(size) for unit in self.nets),
            features=tuple(unit.features(size) for unit in self.adapters),
        )


@dataclass(frozen=True, kw_only=True)
class Led:
    """Control in one stage; `pixels` and `features` are those of its units at that size, and
    `negative` [rows] says which rows are negative prompts'."""

    control: Control
    stage: Stage
    pixels: tuple[Tensor, ...]
    features: tuple[list[Tensor], ...]
    negative: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def over(self, negative: Tensor) -> "Led":
        """It for a batch of such rows."""
        return replace(self, negative=negative)

    def arguments(
        self,
        latents: Tensor,
        timestep: Tensor,
        number: int,
        conditioning: Conditioning,
        added: dict[str, Tensor] | None,
    ) -> dict[str, Any]:
        """What the units that are at work at this evaluation have the UNet take."""
        control = self.control
        nets = [
            unit.residuals(pixels, latents, timestep, conditioning, added, self.negative)
            for unit, pixels in zip(control.nets, self.pixels, strict=True)
            if self._works(unit, number)
        ]
        features = [
            # the UNet passes over what has fewer rows than its own
            [feature.expand(len(latents), -1, -1, -1) for feature in found]
            for unit, found in zip(control.adapters, self.features, strict=True)
            if self._works(unit, number)
        ]
        result: dict[str, Any] = {}
        if nets:
            *down, middle = added_up(nets)
            result["down_block_additional_residuals"] = tuple(down)
            result["mid_block_additional_residual"] = middle
        if features:
            result["down_intrablock_additional_residuals"] = added_up(features)
        if self._looks(number):
            tokens = [unit.rows(self.negative) for unit in control.pictures]
            result["encoder_hidden_states"] = (conditioning.tokens, tokens)
        return result

    @contextmanager
    def put_in(self, number: int) -> Iterator[None]:
        """The UNet with eyes for the pictures of IP-Adapters; as it was on the way out."""
        if not self._looks(number):
            yield
            return
        units = self.control.pictures
        scales = [unit.options.weight * self._works(unit, number) for unit in units]
        layers = cross_attentions(self.stage.model.unet)
        before = [layer.processor for layer in layers]
        for layer, processor in zip(layers, self.control.processors, strict=True):
            processor.scale = scales
            layer.set_processor(processor)
        try:
            yield
        finally:
            for layer, processor in zip(layers, before, strict=True):
                layer.set_processor(processor)

    def _looks(self, number: int) -> bool:
        return any(self._works(unit, number) for unit in self.control.pictures)

    def _works(self, unit: Unit, number: int) -> bool:
        """Whether an evaluation lies wholly between a unit's start and end, as in diffusers."""
        done, total = number - self.stage.first, self.stage.evaluations
        return unit.options.start <= done / total and (done + 1) / total <= unit.options.end


def _unit(model: Model, options: ControlOptions, canvas: Canvas | None, source: Source) -> Unit:
    net = source.net(options, model)
    picture = _picture(options, canvas, source.detect(options, model.device))
    if isinstance(net, IPAdapter | T2IAdapter) and options.mode != "balanced":
        raise ConfigError("is for ControlNets alone", field="control.mode", value=options.mode)
    if isinstance(net, IPAdapter):
        positive, negative = net.tokens_of(picture)
        return PictureUnit(adapter=net, positive=positive, negative=negative, options=options)
    if isinstance(net, T2IAdapter):
        return AdapterUnit(net=net, picture=picture, options=options)
    hole = canvas.mask if canvas is not None and options.preprocessor == INPAINT else None
    return NetUnit(net=net, picture=picture, options=options, hole=hole)


def _picture(options: ControlOptions, canvas: Canvas | None, detect: Make | None) -> Image.Image:
    """The picture that leads, cut as the request's own is where that is drawn in part."""
    if options.preprocessor == INPAINT and (canvas is None or canvas.mask is None):
        raise ConfigError(
            "needs a mask: give mask, or outpaint",
            field="control.preprocessor",
            value=options.preprocessor,
        )
    if options.image is None:
        if canvas is None:
            raise ConfigError("is missing, and the request begins from none", field="control.image")
        return preprocess(canvas.picture, options.preprocessor, detect)
    given = open_picture(options.image, field="control.image")
    picture = preprocess(given, options.preprocessor, detect)
    if canvas is None or canvas.box is None or canvas.behind is None:
        return picture
    whole = canvas.behind.size
    if canvas.box == (0, 0, *whole):
        return picture
    return picture.resize(whole, Image.Resampling.LANCZOS).crop(canvas.box)
