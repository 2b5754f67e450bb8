"""The names of a file's tensors, in any layout, to layers and peft's names for their tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tintype.errors import WeightsError
from tintype.models.adapters.adapter import LayerTensors
from tintype.models.adapters.build import kind_of
from tintype.models.adapters.targets import Layer

# How a file's name ends, and the tensor's name here (adapter.TENSORS); alpha, lora_mid and scalar
# are folded into others.
_ENDS = {
    ".lora_down.weight": "lora_A.weight",
    ".lora_up.weight": "lora_B.weight",
    ".lora_A.weight": "lora_A.weight",
    ".lora_B.weight": "lora_B.weight",
    ".lora_A.default.weight": "lora_A.weight",
    ".lora_B.default.weight": "lora_B.weight",
    ".lora.down.weight": "lora_A.weight",
    ".lora.up.weight": "lora_B.weight",
    "_lora.down.weight": "lora_A.weight",
    "_lora.up.weight": "lora_B.weight",
    ".lora_linear_layer.down.weight": "lora_A.weight",
    ".lora_linear_layer.up.weight": "lora_B.weight",
    ".lora_mid.weight": "lora_mid.weight",
    ".lora_magnitude_vector": "lora_magnitude_vector",
    ".lora_magnitude_vector.weight": "lora_magnitude_vector",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
    ".scalar": "scalar",
    ".oft_R.weight": "oft_R.weight",
    **{f".hada_{end}": f"hada_{end}" for end in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f".lokr_{end}": f"lokr_{end}" for end in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}
_LONGEST_FIRST = sorted(_ENDS, key=len, reverse=True)
# what trainers store beside a low-rank adapter, and can be left out with a word
_BESIDE = {
    "w_norm": "norm layers",
    "b_norm": "norm layers",
    "diff": "whole differences",
    "diff_b": "biases",
    "bias": "biases",
    "oft_blocks": "OFT blocks of the outputs",
    "oft_diag": "OFT blocks of the outputs",
    "rescale": "OFT blocks of the outputs",
    "on_input": "IA3 scales",
    "string_to_param": "an embedding",
}
_BESIDE_END = re.compile(rf"\.({'|'.join(_BESIDE)})(\.[^.]+)?$")


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A file's tensors by layer, the alphas, and what it holds beside them, by what it is."""

    layers: dict[Layer, LayerTensors] = field(default_factory=dict)
    alphas: dict[Layer, float] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    beside: dict[str, list[str]] = field(default_factory=dict)


def parse(state: Mapping[str, Tensor], names: Mapping[str, Layer]) -> Parsed:
    """Every tensor of `state` to its layer; `names` are all that a layer may be called.

    What isn't of a layer that the model has goes to `unknown`. Raises WeightsError for a layer
    that is there twice under different names.
    """
    parsed = Parsed()
    found: dict[Layer, LayerTensors] = {}
    for key, tensor in state.items():
        beside = _BESIDE_END.search(key)
        if beside:
            parsed.beside.setdefault(_BESIDE[beside[1]], []).append(key)
            continue
        name, end = split_end(key)
        layer = names.get(name)
        if layer is None or end is None:
            parsed.unknown.append(key)
            continue
        if _ENDS[end] in found.setdefault(layer, {}):
            raise WeightsError("is there twice", field="adapter tensor", value=key)
        found[layer][_ENDS[end]] = tensor
    for layer, tensors in found.items():
        alpha = tensors.pop("alpha", None)
        if alpha is not None:
            parsed.alphas[layer] = float(alpha)
        if kind_of(tensors) is not None:
            parsed.layers[layer] = tensors
        elif layer not in {names.get(split_layer(k)) for v in parsed.beside.values() for k in v}:
            parsed.unknown.append(".".join(layer))
    return parsed


def split_end(key: str) -> tuple[str, str | None]:
    """A tensor's name to that of its layer, in today's spelling, and how it ended."""
    key = re.sub(r"(^|\.)base_model\.model\.", r"\1", key)
    for end in _LONGEST_FIRST:
        if key.endswith(end):
            return _today(key.removesuffix(end)), end
    return key, None


def split_layer(key: str) -> str:
    """The layer's name of what is stored beside a low-rank adapter."""
    return _today(_BESIDE_END.sub("", key))


def _today(name: str) -> str:
    """diffusers named layers by their attention processors until 0.20 or so."""
    name = name.replace(".processor.", ".").removesuffix("_lora")
    text = re.fullmatch(r"(.*\.self_attn)\.to_(q|k|v|out)", name)
    if text:
        return f"{text[1]}.{text[2]}_proj"
    return f"{name}.0" if name.endswith(".to_out") else name
