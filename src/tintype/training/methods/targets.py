"""Which layers an adapter is added to."""

import fnmatch
import re

from torch import nn

from tintype.errors import ConfigError
from tintype.training.methods.freeze import like
from tintype.types import AdapterConfig

# Ends of names: of a UNet's attentions, and of CLIP's.
ATTENTION = r"attn\d\.to_(q|k|v|out\.0)|self_attn\.(q|k|v|out)_proj"
FEED_FORWARD = r"proj_(in|out)|ff\.net\.(0\.proj|2)|mlp\.fc[12]"
ENDS = {
    "attention": re.compile(rf"(.*\.)?({ATTENTION})"),
    "attention+ff": re.compile(rf"(.*\.)?({ATTENTION}|{FEED_FORWARD})"),
}
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "all": (nn.Linear, nn.Conv2d),
}


def target_layers(modules: dict[str, nn.Module], config: AdapterConfig) -> dict[str, list[str]]:
    """The names of the layers to adapt in each of `modules` (by component); some have none.

    Patterns match a layer's name with or without its component ("unet.down_blocks.*.attn2.*",
    "*.to_k"). Raises ConfigError for one that matches no linear layer or convolution.
    """
    layers = {
        component: [
            name for name, layer in module.named_modules() if isinstance(layer, KINDS["all"])
        ]
        for component, module in modules.items()
    }
    if isinstance(config.targets, tuple):
        return _matching(layers, config.targets)
    if config.targets in ENDS:
        ends = ENDS[config.targets]
        return {c: [name for name in names if ends.fullmatch(name)] for c, names in layers.items()}
    kinds = KINDS[config.targets]
    return {
        component: [
            name for name in names if isinstance(modules[component].get_submodule(name), kinds)
        ]
        for component, names in layers.items()
    }


def _matching(layers: dict[str, list[str]], patterns: tuple[str, ...]) -> dict[str, list[str]]:
    whole = [f"{component}.{name}" for component, names in layers.items() for name in names]
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [
            name
            for name in whole
            if fnmatch.fnmatchcase(name, pattern)
            or fnmatch.fnmatchcase(name.partition(".")[2], pattern)
        ]
        if not matches:
            raise ConfigError(
                f"matches no linear layer or convolution. {like(pattern, whole)}",
                field="adapter.targets",
                value=pattern,
            )
        found |= dict.fromkeys(matches)
    return {
        component: [name for name in names if f"{component}.{name}" in found]
        for component, names in layers.items()
    }
