"""The layers of a model that an adapter can change, and what each file layout calls them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from diffusers import UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from tintype.errors import WeightsError
from tintype.models.adapters.adapter import Adapter
from tintype.models.adapters.standards import Standard, standard
from tintype.models.families.family import Family
from tintype.models.families.registry import family
from tintype.models.loading.assemble import empty_text_encoder, empty_unet
from tintype.models.model import Model

Shape = tuple[int, ...]
Layer = tuple[str, str]

WRAPPED = "text_model."
_HEADS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(
    r"(?P<block>down_blocks\.(?P<down>\d+)|mid_block|up_blocks\.(?P<up>\d+))"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<place>\d+)\.(?P<rest>.+)"
)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The linear and convolution layers of a model.

    `layers` gives the shape of each one's weight, by component and the module's name in it;
    `blocks` is the number of resnets in one level of the UNet on the way down.
    """

    family: Family
    layers: Mapping[str, Mapping[str, Shape]]
    blocks: int
    prediction_type: str | None = None

    @property
    def standard(self) -> Standard:
        return standard(self.family)

    @cached_property
    def names(self) -> dict[str, Layer]:
        """Every name by which a file may call a layer, to (component, layer)."""
        names: dict[str, Layer] = {}
        for component, layers in self.layers.items():
            for layer in layers:
                for name in self._names(component, layer):
                    names[name] = (component, layer)
        return names

    def _names(self, component: str, layer: str) -> list[str]:
        if component == "unet":
            original = self.original_name(layer)
            plain = [layer] if original is None else [layer, original]
            starts = ("lora_unet_", "lycoris_", "lycoris_unet_")
            names = [start + flat(name) for start in starts for name in plain]
            names += [f"unet.{layer}", layer]
            if original is not None:
                names += [f"diffusion_model.{original}", f"model.diffusion_model.{original}"]
            return names
        bare = layer.removeprefix(WRAPPED)
        both = (bare, WRAPPED + bare)
        comfy = self.standard.text[component]
        return [
            *(start + flat(name) for start in self._text_starts(component) for name in both),
            *(f"{component}.{name}" for name in both),
            *(f"text_encoders.{comfy}.transformer.{name}" for name in both),
            *(f"{comfy}.transformer.{name}" for name in both),
        ]

    def _text_starts(self, component: str) -> list[str]:
        """kohya's prefixes; the last one is lora_te2_ where there are two text encoders."""
        folders = [spec.folder for spec in self.family.text_encoders]
        if len(folders) == 1:
            return ["lora_te_", "lora_te1_", "lora_te2_"]
        return ["lora_te_", "lora_te1_"] if component == folders[0] else ["lora_te2_"]

    def kohya_name(self, component: str, layer: str) -> str:
        """kohya's name of a layer, which A1111 and ComfyUI take too."""
        if component == "unet":
            original = self.original_name(layer) if self.standard.sgm_names else None
            return "lora_unet_" + flat(original or layer)
        folders = [spec.folder for spec in self.family.text_encoders]
        start = f"lora_te{folders.index(component) + 1}_" if len(folders) > 1 else "lora_te_"
        return start + flat(wrapped(layer))

    def comfy_name(self, component: str, layer: str) -> str:
        """ComfyUI's own name of a layer: that of its tensor in a ComfyUI model."""
        if component == "unet":
            return f"diffusion_model.{self.original_name(layer) or layer}"
        return f"text_encoders.{self.standard.text[component]}.transformer.{wrapped(layer)}"

    def original_name(self, layer: str) -> str | None:
        """The UNet layer's name in the original LDM and SGM code; None if it has none there."""
        for head, original in _HEADS.items():
            if layer == head:
                return original
        found = _BLOCK.fullmatch(layer)
        if found is None:
            return None
        kind, place, rest = found["kind"], int(found["place"]), found["rest"]
        if kind == "resnets":
            rest = _RESNET.get(rest, rest)
        level, inner = int(found["down"] or found["up"] or 0), int(kind == "attentions")
        first = level * (self.blocks + 1)
        if found["block"] == "mid_block":
            return f"middle_block.{1 if inner else 2 * place}.{rest}"
        if kind == "downsamplers":
            return f"input_blocks.{first + self.blocks + 1}.0.{rest.replace('conv', 'op', 1)}"
        if kind == "upsamplers":
            return f"output_blocks.{first + self.blocks}.{1 + self._attended(level)}.{rest}"
        if found["down"] is not None:
            return f"input_blocks.{1 + first + place}.{inner}.{rest}"
        return f"output_blocks.{first + place}.{inner}.{rest}"

    def _attended(self, level: int) -> bool:
        return any(
            name.startswith(f"up_blocks.{level}.attentions.") for name in self.layers["unet"]
        )


def targets_of(model: Model | Family) -> Targets:
    """The layers of a model, or of the standard model of a family (built without storage)."""
    if isinstance(model, Family):
        return _standard_targets(model.name)
    parts = {name: part for name, part in model.parts.items() if name != "vae"}
    return _targets(model.family, parts, model.prediction_type)


@lru_cache(maxsize=8)
def _standard_targets(name: str) -> Targets:
    of = family(name)
    row = standard(of)
    parts: dict[str, nn.Module] = {"unet": empty_unet(row.unet)}
    for spec in of.text_encoders:
        config = row.text_configs[spec.folder]
        parts[spec.folder] = empty_text_encoder(spec.transformers_class, config)
    return _targets(of, parts, None)


def _targets(of: Family, parts: Mapping[str, nn.Module], prediction: str | None) -> Targets:
    unet: Any = parts["unet"]
    assert isinstance(unet, UNet2DConditionModel), "every family here has this UNet"
    blocks = unet.config.layers_per_block
    return Targets(
        family=of,
        layers={name: layers_of(part) for name, part in parts.items()},
        blocks=blocks if isinstance(blocks, int) else blocks[0],
        prediction_type=prediction,
    )


def layers_of(module: nn.Module) -> dict[str, Shape]:
    """The weights' shapes of linear and 2-D convolution layers, by module name.

    A layer that peft has wrapped counts under its own name.
    """
    shapes: dict[str, Shape] = {}
    inside: tuple[str, ...] = ()
    for name, layer in module.named_modules():
        if inside and name.startswith(inside):
            continue
        base = layer
        if isinstance(layer, BaseTunerLayer):
            base = layer.get_base_layer()
            inside += (f"{name}.",)
        if isinstance(base, nn.Linear | nn.Conv2d):
            shapes[name] = tuple(base.weight.shape)
    return shapes


def check_fits(adapter: Adapter, targets: Targets) -> None:
    """Raises WeightsError unless every layer that `adapter` changes is there."""
    title = targets.family.title
    for part in adapter.parts:
        if part.component not in targets.layers:
            raise WeightsError(
                f"is for the {part.component}, which {title} doesn't have", field="adapter"
            )
        strange = part.layers.keys() - targets.layers[part.component].keys()
        if strange:
            raise WeightsError(
                f"{title} has no such layer in its {part.component}",
                field="adapter layer",
                value=sorted(strange)[0],
            )


def flat(name: str) -> str:
    """kohya's spelling of a module's name."""
    return name.replace(".", "_")


def wrapped(layer: str) -> str:
    """A text encoder's layer by its older name, which begins with `text_model.`."""
    outside = layer.startswith((WRAPPED, "text_projection"))
    return layer if outside else WRAPPED + layer
