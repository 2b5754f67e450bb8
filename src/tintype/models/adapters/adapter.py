"""What an adapter is: peft's configs and tensors, for the parts of a model that it changes."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from peft import LoraConfig, OFTConfig, PeftConfig, get_peft_model_state_dict
from torch import Tensor, nn

from tintype.errors import ModelError
from tintype.runtime.quantize import weight_shape

# A layer's tensors by peft's names. `dora_scale` is not peft's: it holds magnitudes that peft has
# no place for (along the inputs, or with LoHa and LoKr), [out, 1…] or [1, in, 1…].
TENSORS = (
    "lora_A.weight",
    "lora_B.weight",
    "lora_magnitude_vector",
    "dora_scale",
    *(f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
    *(f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
    "oft_R.weight",
)
TITLES = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT"}
_LITERAL = re.compile(r"[\w.]+")

LayerTensors = dict[str, Tensor]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """An adapter of one kind for one module of a model.

    `component` is the module's folder name ("unet", "text_encoder", "text_encoder_2"); `config`
    is peft's, whose rank_pattern and alpha_pattern hold each layer's own; `state` has the names
    that `peft.get_peft_model_state_dict` gives ("down_blocks.1….to_q.lora_A.weight").
    """

    component: str
    config: PeftConfig
    state: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """ "lora", "dora", "loha", "lokr" or "oft"."""
        kind = str(self.config.peft_type.value).lower()
        return "dora" if getattr(self.config, "use_dora", False) else kind

    @cached_property
    def layers(self) -> dict[str, LayerTensors]:
        """The tensors by layer, and there by the names of `TENSORS`; raises ModelError."""
        layers: dict[str, LayerTensors] = {}
        for name, tensor in self.state.items():
            layer, tensor_name = split_name(name)
            layers.setdefault(layer, {})[tensor_name] = tensor
        return layers

    @cached_property
    def ranks(self) -> dict[str, int]:
        """The rank of each layer; for OFT, the number of blocks."""
        if self.kind in ("lora", "dora"):
            return {name: int(own["lora_A.weight"].shape[0]) for name, own in self.layers.items()}
        if isinstance(self.config, OFTConfig):
            return {name: int(own["oft_R.weight"].shape[0]) for name, own in self.layers.items()}
        config: Any = self.config
        return patterned(config.rank_pattern, config.r, self.layers)

    @cached_property
    def alphas(self) -> dict[str, float]:
        """The alpha of each layer; empty for OFT, which has none."""
        config: Any = self.config
        if isinstance(config, OFTConfig):
            return {}
        default = config.lora_alpha if isinstance(config, LoraConfig) else config.alpha
        return patterned(config.alpha_pattern, default, self.layers)

    def scale(self, layer: str) -> float:
        """What a layer's change is multiplied by: alpha / rank, or alpha / sqrt(rank) (rsLoRA)."""
        if layer not in self.alphas:
            return 1.0
        rank = self.ranks[layer]
        stabilized = getattr(self.config, "use_rslora", False)
        return float(self.alphas[layer]) / (math.sqrt(rank) if stabilized else rank)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Any number of parts; `metadata` is that of the file, `notes` what the person should know."""

    parts: tuple[Part, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """One line: "LoRA of rank 16 (unet 128 layers, text_encoder 72 layers)"."""
        kinds = sorted({TITLES[part.kind] for part in self.parts})
        ranks = sorted({rank for part in self.parts for rank in part.ranks.values()})
        spread = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        counts: dict[str, int] = {}
        for part in self.parts:
            counts[part.component] = counts.get(part.component, 0) + len(part.layers)
        where = ", ".join(f"{name} {count} layers" for name, count in counts.items())
        return f"{' and '.join(kinds)} of rank {spread} ({where})"


def part_of(module: nn.Module, component: str, adapter_name: str = "default") -> Part:
    """The adapter of that name in a module into which peft injected one; tensors are copies.

    Raises ModelError for an adapter that holds more than peft's low-rank tensors (biases, whole
    modules), and for a module without one of that name.
    """
    configs = getattr(module, "peft_config", {})
    if adapter_name not in configs:
        raise ModelError(
            f"{component} has no such adapter", field="adapter", value=adapter_name, choices=configs
        )
    state = get_peft_model_state_dict(
        module, adapter_name=adapter_name, save_embedding_layers=False
    )
    copies = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    part = Part(component=component, config=configs[adapter_name], state=copies)
    assert part.layers, "peft gives no adapter without layers"
    return part


def split_name(name: str) -> tuple[str, str]:
    """A layer's name and its tensor's, from peft's name for it; raises ModelError."""
    for tensor in TENSORS:
        if name.endswith(f".{tensor}"):
            return name.removesuffix(f".{tensor}"), tensor
    raise ModelError("is no tensor of an adapter that is known here", field="adapter", value=name)


def patterned(patterns: Mapping[str, T], default: T, layers: Iterable[str]) -> dict[str, T]:
    """Each layer's value by peft's rule: the first pattern that matches a whole end of its name."""
    literal = {key: value for key, value in patterns.items() if _LITERAL.fullmatch(key)}
    others = [
        (re.compile(rf"(.*\.)?({key})$"), value)
        for key, value in patterns.items()
        if key not in literal
    ]

    def value_of(layer: str) -> T:
        words = layer.split(".")
        ends = (".".join(words[i:]) for i in range(len(words)))
        found = next((literal[end] for end in ends if end in literal), None)
        if found is None:
            found = next((value for pattern, value in others if pattern.match(layer)), None)
        return default if found is None else found

    return {layer: value_of(layer) for layer in layers}


def clamp_rank(module: nn.Module, layers: Iterable[str], rank: int) -> dict[str, int]:
    """peft's rank_pattern for the layers of `module` that are smaller than `rank`."""
    smaller = {}
    for layer in layers:
        shape = weight_shape(module.get_submodule(layer))
        most = min(shape[0], shape[1:].numel())
        if most < rank:
            smaller[layer] = most
    return smaller


def on_device(tensors: LayerTensors, device: torch.device) -> LayerTensors:
    """A layer's tensors in float32 on a device, to compute with."""
    return {name: t.to(device=device, dtype=torch.float32) for name, t in tensors.items()}
