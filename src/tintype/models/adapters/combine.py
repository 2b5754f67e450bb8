"""Several adapters made into one LoRA, and a LoRA brought to another rank."""

from collections.abc import Sequence

import torch
from peft import LoraConfig
from torch import Tensor

from tintype.errors import InputError
from tintype.models.adapters.adapter import Adapter, LayerTensors, Part, on_device
from tintype.models.adapters.apply import Weighted, weight_for
from tintype.models.adapters.build import bare_names, common
from tintype.models.adapters.delta import change, product
from tintype.models.adapters.targets import Layer, check_fits, targets_of
from tintype.models.model import Model

_Share = tuple[Part, float]
_FROM_BASE = ("dora", "oft")


def combine(
    adapters: Sequence[Weighted], *, rank: int | None = None, model: Model | None = None
) -> Adapter:
    """One LoRA that does what these adapters do together, each with its weight.

    Without `rank` it is exact, up to rounding in float32: the matrices of LoRAs side by side,
    whose ranks add up. With `rank` each layer is cut to at most that rank by its singular values;
    `notes` tell how much of the change is kept. LoHa and LoKr need a `rank`; DoRA and OFT also
    the `model` they are for, for what they do depends on its weights.

    Raises InputError where rank or model is missing or out of range; WeightsError for adapters
    that don't fit the model.
    """
    if not adapters:
        raise InputError("no adapters to combine", field="adapters")
    if rank is not None and rank < 1:
        raise InputError("is less than 1", field="rank", value=rank)
    if model is not None:
        for adapter, _ in adapters:
            check_fits(adapter, targets_of(model))
    shares: dict[Layer, list[_Share]] = {}
    for adapter, weight in adapters:
        for part in adapter.parts:
            strength = weight_for(weight, part.component)
            for layer in part.layers:
                shares.setdefault((part.component, layer), []).append((part, strength))
    kept, whole = 0.0, 0.0
    layers: dict[str, dict[str, LayerTensors]] = {}
    for (component, layer), own in shares.items():
        tensors, energy = _combined(layer, own, rank, model)
        layers.setdefault(component, {})[layer] = tensors
        kept, whole = kept + energy[0], whole + energy[1]
    share = f"rank {rank} keeps {kept / whole if whole else 1:.1%} of the change (squared norm)"
    return Adapter(
        parts=tuple(_part(component, own) for component, own in layers.items()),
        notes=(share,) if rank is not None else (),
    )


def resize(adapter: Adapter, rank: int, *, model: Model | None = None) -> Adapter:
    """The adapter as a LoRA of at most that rank; see `combine`."""
    return combine([(adapter, 1.0)], rank=rank, model=model)


def _combined(
    layer: str, shares: list[_Share], rank: int | None, model: Model | None
) -> tuple[LayerTensors, tuple[float, float]]:
    """One layer's lora_A and lora_B at scale 1, and the squared norms kept and whole."""
    if all(part.kind == "lora" for part, _ in shares):
        pairs = [(on_device(p.layers[layer], torch.device("cpu")), p, s) for p, s in shares]
        down = torch.cat([own["lora_A.weight"] for own, _, _ in pairs])
        up = torch.cat([own["lora_B.weight"] * (s * p.scale(layer)) for own, p, s in pairs], dim=1)
        if rank is None:
            return _named(up, down), (1.0, 1.0)
        return _cut(up.flatten(1), down.flatten(1), rank, down.shape[1:])
    if rank is None:
        kinds = sorted({part.kind for part, _ in shares} - {"lora"})
        raise InputError(
            f"{', '.join(kinds)} can't be written as a LoRA exactly: give a rank", field="rank"
        )
    total: Tensor | None = None
    for part, strength in shares:
        added = strength * _difference(part, layer, model)
        total = added if total is None else total + added
    assert total is not None, "a layer has shares"
    identity = torch.eye(total.shape[0])
    return _cut(identity, total.flatten(1), rank, total.shape[1:])


def _difference(part: Part, layer: str, model: Model | None) -> Tensor:
    own = on_device(part.layers[layer], torch.device("cpu"))
    if model is not None:
        weight = model.parts[part.component].get_submodule(layer).get_parameter("weight")
        return change(part, layer, weight.detach().cpu())
    if part.kind in _FROM_BASE or "dora_scale" in own:
        raise InputError(f"what {part.kind} does depends on the base model: name it", field="model")
    return product(own) * part.scale(layer)


def _cut(
    up: Tensor, down: Tensor, rank: int, inputs: torch.Size
) -> tuple[LayerTensors, tuple[float, float]]:
    """up @ down ([out, k] @ [k, in]) at its `rank` largest singular values, shared evenly."""
    left, left_core = torch.linalg.qr(up)
    right, right_core = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(left_core @ right_core.T)
    most = min(rank, len(values))
    root = values[:most].sqrt()
    low_up, low_down = left @ u[:, :most] * root, root[:, None] * (v[:most] @ right.T)
    kept, whole = values[:most].square().sum().item(), values.square().sum().item()
    ones = [1] * (len(inputs) - 1)
    named = _named(low_up.reshape(*low_up.shape, *ones), low_down.reshape(most, *inputs))
    return named, (kept, whole)


def _named(up: Tensor, down: Tensor) -> LayerTensors:
    return {"lora_A.weight": down.contiguous(), "lora_B.weight": up.contiguous()}


def _part(component: str, layers: dict[str, LayerTensors]) -> Part:
    ranks = {layer: int(own["lora_A.weight"].shape[0]) for layer, own in layers.items()}
    rank, pattern = common(ranks)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=bare_names(pattern),
        alpha_pattern=bare_names(pattern),
        target_modules=sorted(bare_names(layers)),
    )
    state = {f"{layer}.{name}": t for layer, own in layers.items() for name, t in own.items()}
    return Part(component=component, config=config, state=state)
