"""Tensors by layer, as a file holds them, to parts in peft's terms."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.tuners.lokr.layer import factorization
from torch import Tensor

from tintype.errors import WeightsError
from tintype.models.adapters.adapter import LayerTensors, Part
from tintype.models.adapters.delta import product
from tintype.models.adapters.targets import WRAPPED, Layer, Shape

V = TypeVar("V", int, float)
_Group = tuple[str, bool, bool]
# what each kind can't do without: any one of the alternatives
_NEEDED = {
    "lora": (("lora_A.weight",), ("lora_B.weight",)),
    "loha": (("hada_w1_a",), ("hada_w1_b",), ("hada_w2_a",), ("hada_w2_b",)),
    "lokr": (
        ("lokr_w1", "lokr_w1_a"),
        ("lokr_w1", "lokr_w1_b"),
        ("lokr_w2", "lokr_w2_a"),
        ("lokr_w2", "lokr_w2_b"),
    ),
    "oft": (("oft_R.weight",),),
}
_SIGNS = {"lora_": "lora", "hada_": "loha", "lokr_": "lokr", "oft_R": "oft"}


def kind_of(tensors: Iterable[str]) -> str | None:
    """The kind of a layer's tensors; None if they are of none that is known here."""
    names = list(tensors)
    return next((k for sign, k in _SIGNS.items() if any(n.startswith(sign) for n in names)), None)


def shaped(tensors: LayerTensors, shape: Shape, name: str) -> LayerTensors:
    """One layer's tensors in peft's own shapes, without what peft folds into others.

    `lora_mid` (LyCORIS' Tucker form of a convolution) and `scalar` are multiplied into their
    neighbours. Raises WeightsError for tensors that are missing or don't fit a weight of `shape`.
    """
    kind = kind_of(tensors)
    assert kind is not None, "only layers of a known kind are shaped"
    for alternatives in _NEEDED[kind]:
        if not any(part in tensors for part in alternatives):
            raise WeightsError(f"lacks {alternatives[0]}", field="adapter layer", value=name)
    own = dict(tensors)
    try:
        if kind == "lora":
            own = _shaped_lora(own, shape)
        elif "scalar" in own:
            first = "hada_w1_a" if kind == "loha" else "lokr_w2"
            first = first if first in own else "lokr_w2_a"
            own[first] = own[first] * own.pop("scalar")
        own = _magnitude(own, shape, kind)
        if kind != "oft":
            added = product({key: tensor.to("meta").float() for key, tensor in own.items()})
            added.reshape(shape)
        elif math.prod(shape[1:]) % _block_size(own["oft_R.weight"]):
            raise RuntimeError("its blocks don't divide the layer's inputs")
    except RuntimeError:
        found = {key: list(tensor.shape) for key, tensor in tensors.items()}
        raise WeightsError(
            f"doesn't fit: the model's weight is {list(shape)}, the adapter's tensors are {found}",
            field="adapter layer",
            value=name,
        ) from None
    return own


def _block_size(angles: Tensor) -> int:
    return int(((8 * angles.shape[1] + 1) ** 0.5 + 1) / 2)


def _shaped_lora(own: LayerTensors, shape: Shape) -> LayerTensors:
    down, up = own["lora_A.weight"], own["lora_B.weight"]
    middle = own.pop("lora_mid.weight", None)
    if middle is not None:
        # down [r, in, 1, 1] and a core [r, r, kh, kw] are one convolution [r, in, kh, kw]
        core = middle.float().flatten(2)
        whole = torch.einsum("ijk,jn->ink", core, down.float().flatten(1))
        down = whole.reshape(len(middle), down.shape[1], *middle.shape[2:]).to(down.dtype)
    if "scalar" in own:
        up = up * own.pop("scalar")
    rank, ones = down.shape[0], [1] * (len(shape) - 2)
    own["lora_A.weight"] = down.reshape(rank, *shape[1:])
    own["lora_B.weight"] = up.reshape(shape[0], rank, *ones)
    return own


def _magnitude(own: LayerTensors, shape: Shape, kind: str) -> LayerTensors:
    """DoRA's magnitudes: peft's where it has a place for them, else as LyCORIS has them."""
    scale, vector = own.pop("dora_scale", None), own.pop("lora_magnitude_vector", None)
    ones = [1] * (len(shape) - 2)
    if scale is not None and scale.dim() > 1 and scale.shape[0] == 1 != shape[0]:
        own["dora_scale"] = scale.reshape(1, shape[1], *ones)
    elif kind == "lora" and (scale is not None or vector is not None):
        found = scale if vector is None else vector
        assert found is not None, "one of the two"
        place = (1, shape[0], *ones) if ones else (shape[0],)
        own["lora_magnitude_vector"] = found.reshape(place)
    elif scale is not None:
        own["dora_scale"] = scale.reshape(shape[0], 1, *ones)
    return own


def build_parts(
    layers: Mapping[Layer, LayerTensors],
    shapes: Mapping[str, Mapping[str, Shape]],
    alphas: Mapping[Layer, float],
    configs: Mapping[str, list[PeftConfig]],
) -> tuple[Part, ...]:
    """Shaped tensors to parts, one for each component and kind.

    `alphas` are those that the file states by layer (a layer without one has alpha = rank);
    `configs` are peft's, by component, where the file holds them, and say more than any of that.
    """
    groups: dict[tuple[str, _Group], dict[str, LayerTensors]] = {}
    tucker = {c for (c, _), own in layers.items() if "hada_t1" in own or "lokr_t2" in own}
    for (component, layer), own in layers.items():
        group = _group(own, shapes[component][layer], component in tucker)
        groups.setdefault((component, group), {})[layer] = own
    parts = []
    for (component, group), members in groups.items():
        state = {f"{layer}.{key}": t for layer, own in members.items() for key, t in own.items()}
        config = next((c for c in configs.get(component, ()) if _suits(c, group)), None)
        if config is None:
            own_alphas = {layer: alphas.get((component, layer)) for layer in members}
            config = _config(group, members, own_alphas, shapes[component])
        parts.append(Part(component=component, config=config, state=state))
    return tuple(parts)


def _group(own: LayerTensors, shape: Shape, tucker: bool) -> _Group:
    """What one peft config has in common: the kind, magnitudes, and Tucker's form.

    Where a component has layers in Tucker's form, only the larger convolutions without it need
    a config of their own: peft never gives it to linear layers and 1x1 convolutions.
    """
    kind = kind_of(own)
    assert kind is not None, "checked when it was read"
    large = math.prod(shape[2:]) > 1
    plain = large and "hada_t1" not in own and "lokr_t2" not in own
    return kind, "lora_magnitude_vector" in own, kind in ("loha", "lokr") and tucker and not plain


def _suits(config: PeftConfig, group: _Group) -> bool:
    kind, dora, tucker = group
    effective = getattr(config, "use_effective_conv2d", False)
    return (
        config.peft_type.value.lower() == kind
        and bool(getattr(config, "use_dora", False)) == dora
        and (effective or not tucker)
    )


def _config(
    group: _Group,
    layers: Mapping[str, LayerTensors],
    alphas: Mapping[str, float | None],
    shapes: Mapping[str, Shape],
) -> PeftConfig:
    kind, dora, tucker = group
    if kind == "oft":
        raise WeightsError("lacks peft's config, without which OFT can't be read", field="adapter")
    ranks = {layer: _rank(own) for layer, own in layers.items()}
    # both factors whole: LyCORIS takes no notice of alpha then
    stated = {
        layer: float(ranks[layer])
        if alpha is None or {"lokr_w1", "lokr_w2"} <= layers[layer].keys()
        else float(alpha)
        for layer, alpha in alphas.items()
    }
    r, rank_pattern = common(ranks)
    alpha, alpha_pattern = common(stated)
    shared: dict[str, Any] = {
        "r": r,
        "rank_pattern": bare_names(rank_pattern),
        "alpha_pattern": bare_names(alpha_pattern),
        "target_modules": sorted(bare_names(layers)),
    }
    if kind == "lora":
        return LoraConfig(**shared, lora_alpha=alpha, use_dora=dora)
    if kind == "loha":
        return LoHaConfig(**shared, alpha=alpha, use_effective_conv2d=tucker)
    return LoKrConfig(
        **shared,
        alpha=alpha,
        use_effective_conv2d=tucker,
        decompose_both=any("lokr_w1_a" in own for own in layers.values()),
        decompose_factor=_factor(layers, shapes),
    )


def common(values: Mapping[str, V]) -> tuple[V, dict[str, V]]:
    """The most frequent value, and the others by name: peft's default and its pattern."""
    most = Counter(values.values()).most_common(1)[0][0]
    return most, {name: value for name, value in values.items() if value != most}


def bare_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without `text_model.`: peft matches ends of names, and releases differ in that start."""
    return {name.removeprefix(WRAPPED): value for name, value in values.items()}


def _rank(own: LayerTensors) -> int:
    if "lora_A.weight" in own:
        return int(own["lora_A.weight"].shape[0])
    if "hada_w1_b" in own:
        return int(own["hada_w1_b"].shape[0])
    for name, axis in (("lokr_t2", 0), ("lokr_w2_b", 0), ("lokr_w1_b", 0)):
        if name in own:
            return int(own[name].shape[axis])
    # whole factors, for which peft wants a rank of at least half their size
    return max(*own["lokr_w1"].shape, *own["lokr_w2"].shape[:2])


def _factor(layers: Mapping[str, LayerTensors], shapes: Mapping[str, Shape]) -> int:
    """The `decompose_factor` by which peft splits all these layers as they are; -1 if none does."""
    splits: set[tuple[int, int]] = set()
    for layer, own in layers.items():
        rows, columns = (own["lokr_w1"] if "lokr_w1" in own else own["lokr_w1_a"]).shape
        columns = columns if "lokr_w1" in own else own["lokr_w1_b"].shape[1]
        outputs, inputs = shapes[layer][:2]
        splits |= {(rows, outputs // rows), (columns, inputs // columns)}
    candidates = [-1, *sorted({first for first, _ in splits})]
    fits = (f for f in candidates if all(factorization(a * b, f) == (a, b) for a, b in splits))
    return next(fits, -1)
