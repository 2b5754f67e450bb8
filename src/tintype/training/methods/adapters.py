"""An adapter on its way through training: added to a frozen model, taken out of it again."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from tintype.errors import ConfigError
from tintype.models.adapters.adapter import Adapter, clamp_rank, part_of
from tintype.models.model import Model
from tintype.training.methods.method import Group, text_encoders, text_learning_rate
from tintype.training.methods.narrow import narrow
from tintype.training.methods.targets import target_layers
from tintype.training.seeds import stream_seed
from tintype.types import AdapterConfig, TrainConfig

CLAMPED = ("lora", "dora", "loha")  # the other kinds fit themselves to a layer


@dataclass(frozen=True, kw_only=True)
class Added:
    """The adapted modules by component, their parameters that train, and notes on the way."""

    modules: dict[str, nn.Module]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The modules as they were before, for a moment."""
        layers = [
            layer
            for module in self.modules.values()
            for layer in module.modules()
            if isinstance(layer, BaseTunerLayer)
        ]
        before = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            for parameter, trains in before:  # peft would have all of them train again
                parameter.requires_grad_(trains)


def add_adapters(model: Model, config: TrainConfig, *, waits: int = 0) -> Added:
    """Add the adapter that `config` describes to the UNet, and to the text encoders if wished.

    The base is first stored as `memory.base_precision` says; what is added is in float32 whatever
    the base is in. Raises ConfigError for targets that aren't there.
    """
    modules: dict[str, nn.Module] = {"unet": model.unet}
    if config.train_text_encoder:
        modules |= text_encoders(model)
    adapted, groups, notes = {}, [], []
    for component, names in target_layers(modules, config.adapter).items():
        module = modules[component]
        fitting = [name for name in names if _fits(module.get_submodule(name), config.adapter)]
        if len(fitting) < len(names):
            number = len(names) - len(fitting)
            notes.append(f"oft leaves {number} convolutions of the {component} as they are")
        if not fitting:
            continue
        ranks = _smaller_ranks(module, fitting, config.adapter)
        notes += _clamp_note(component, ranks, config.adapter.rank)
        narrow(module, component, config)
        _inject(module, peft_config(config.adapter, fitting, ranks), seed=config.seed)
        adapted[component] = module
        groups.append(_group(module, component, config, waits))
    if not groups:
        raise ConfigError(
            f"no layer here that {config.adapter.kind} can adapt",
            field="adapter.targets",
            value=config.adapter.targets,
        )
    return Added(modules=adapted, groups=tuple(groups), notes=tuple(notes))


def _group(module: nn.Module, component: str, config: TrainConfig, waits: int) -> Group:
    """What of a module trains, now that all else is frozen."""
    assert config.learning_rate is not None, "a resolved config"
    return Group(
        name=component,
        parameters={
            f"{component}.{name}": parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        },
        learning_rate=config.learning_rate if component == "unet" else text_learning_rate(config),
        waits=waits,
    )


def taken_out(model: Model) -> Adapter:
    """What was added, in its present state."""
    adapted = {name: part for name, part in model.parts.items() if hasattr(part, "peft_config")}
    return Adapter(parts=tuple(part_of(part, name) for name, part in adapted.items()))


def peft_config(
    config: AdapterConfig, names: list[str], rank_pattern: Mapping[str, int]
) -> PeftConfig:
    """peft's config; layers of smaller rank keep the same alpha / rank."""
    alpha = config.alpha or config.rank
    alphas = {name: alpha * rank / config.rank for name, rank in rank_pattern.items()}
    patterns = {"rank_pattern": dict(rank_pattern), "alpha_pattern": alphas}
    lora = partial(
        LoraConfig,
        r=config.rank,
        lora_alpha=alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rank_stabilized,
        init_lora_weights="gaussian",
        **patterns,
    )
    lycoris = {"r": config.rank, "alpha": alpha, "rank_dropout": config.dropout, **patterns}
    kinds: dict[str, Any] = {
        "lora": lora,
        "dora": partial(lora, use_dora=True),
        "loha": partial(LoHaConfig, **lycoris),
        "lokr": partial(LoKrConfig, **lycoris),
        "oft": partial(OFTConfig, r=0, oft_block_size=config.rank, module_dropout=config.dropout),
    }
    made: PeftConfig = kinds[config.kind](target_modules=names)
    return made


def _fits(layer: nn.Module, config: AdapterConfig) -> bool:
    """Whether peft can adapt that layer: its OFT of a convolution of patches isn't the layer
    itself at the beginning, as it adds up the patches where they overlap."""
    one_pixel = not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1)
    return config.kind != "oft" or one_pixel


def _smaller_ranks(module: nn.Module, names: list[str], config: AdapterConfig) -> dict[str, int]:
    return clamp_rank(module, names, config.rank) if config.kind in CLAMPED else {}


def _clamp_note(component: str, pattern: Mapping[str, int], rank: int) -> list[str]:
    if not pattern:
        return []
    least = min(pattern.values())
    return [
        f"adapter.rank {rank} is more than {len(pattern)} layers of the {component} have: "
        f"it is {least} or as many as they have there"
    ]


def _inject(module: nn.Module, config: PeftConfig, *, seed: int) -> None:
    """Add peft's layers, in float32, with first values that `seed` decides."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft tells of OFT blocks that it fits to a layer
        warnings.filterwarnings("ignore", message="Invalid `oft_block_size`")
        torch.manual_seed(stream_seed(seed, 0, 0, "adapter"))
        inject_adapter_in_model(config, module)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
