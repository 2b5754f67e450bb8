"""Adapters merged into a model's weights, and taken out again to the bit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tintype.errors import InputError, ModelError, WeightsError
from tintype.models.adapters.adapter import Adapter, Part
from tintype.models.adapters.delta import change
from tintype.models.adapters.targets import Layer, check_fits, targets_of
from tintype.models.model import Model

Weight = float | Mapping[str, float]
Weighted = tuple[Adapter, Weight]
_Share = tuple[Part, float]
_Shares = dict[Layer, list[_Share]]


@dataclass(kw_only=True)
class _Ledger:
    """What is merged into one model: the weights before, and what is still in force.

    Holds nothing of the model itself, so that it goes when the model goes.
    """

    originals: dict[Layer, Tensor] = field(default_factory=dict)
    active: list[_Shares] = field(default_factory=list)


_LEDGERS: WeakKeyDictionary[nn.Module, _Ledger] = WeakKeyDictionary()


@dataclass(kw_only=True)
class Applied:
    """Adapters that are merged into a model, until `eject`."""

    model: Model
    shares: _Shares

    def eject(self) -> None:
        """Take these adapters out; the others that are merged stay, in whatever order they came.

        Weights that no other adapter changes are then those of before to the bit. A second call
        does nothing.
        """
        ledger = _LEDGERS[self.model.unet]
        before = len(ledger.active)
        ledger.active[:] = [one for one in ledger.active if one is not self.shares]
        if len(ledger.active) == before:
            return
        _settle(self.model, ledger, self.shares)


def apply(model: Model, adapters: Sequence[Weighted]) -> Applied:
    """Merge adapters into `model`, in place, each with a weight, or a weight by component.

    A weight multiplies what the adapter adds to each layer's weight, whatever its kind; in a
    mapping, "text_encoder" stands for both text encoders, and what isn't named has weight 1.
    Every adapter is computed from the weights before any, in float32, and the sum is rounded
    once; a merged model draws as fast as a plain one. What was merged before stays.

    Raises WeightsError, with the model unchanged, for an adapter that doesn't fit the model or
    gives weights that aren't finite; InputError for a weight that isn't finite.
    """
    applied = Applied(model=model, shares=_shares(model, adapters))
    ledger = _LEDGERS.setdefault(model.unet, _Ledger())
    ledger.active.append(applied.shares)
    try:
        _settle(model, ledger, applied.shares)
    except BaseException:
        applied.eject()
        raise
    return applied


@contextmanager
def applied(model: Model, adapters: Sequence[Weighted]) -> Iterator[Model]:
    """`model` with the adapters merged, in this block alone."""
    merged = apply(model, adapters)
    try:
        yield model
    finally:
        merged.eject()


def merge(model: Model, adapters: Sequence[Weighted]) -> None:
    """`apply` for good: nothing is kept to take the adapters out again."""
    parts = model.parts
    for (component, layer), shares in _shares(model, adapters).items():
        weight = _weight(parts, component, layer)
        _write(weight, _merged(weight, shares, f"{component}.{layer}"))


def weight_for(weight: Weight, component: str) -> float:
    """The weight of one component; raises InputError for one that isn't finite."""
    if isinstance(weight, Mapping):
        default = 1.0 if component == "unet" else weight.get("text_encoder", 1.0)
        weight = weight.get(component, default)
    if not -1e4 <= weight <= 1e4:
        raise InputError("isn't a number in -10000..10000", field="weight", value=weight)
    return float(weight)


def _shares(model: Model, adapters: Sequence[Weighted]) -> _Shares:
    targets = targets_of(model)
    shares: _Shares = {}
    for adapter, weight in adapters:
        check_fits(adapter, targets)
        for part in adapter.parts:
            strength = weight_for(weight, part.component)
            for layer in part.layers if strength else ():
                shares.setdefault((part.component, layer), []).append((part, strength))
    return shares


def _settle(model: Model, ledger: _Ledger, layers: _Shares) -> None:
    """Bring these layers to what the active applications make of the originals."""
    parts = model.parts
    for component, layer in layers:
        weight = _weight(parts, component, layer)
        key = (component, layer)
        shares = [share for one in ledger.active for share in one.get(key, ())]
        if not shares:
            if key in ledger.originals:
                _write(weight, ledger.originals.pop(key))
            continue
        if key not in ledger.originals:
            # on the CPU, so that a GPU holds the weights once
            ledger.originals[key] = weight.detach().to("cpu", copy=True)
        original = ledger.originals[key].to(weight.device)
        _write(weight, _merged(original, shares, f"{component}.{layer}"))


def _merged(weight: Tensor, shares: Sequence[_Share], name: str) -> Tensor:
    layer = name.partition(".")[2]
    merged = weight.detach().to(torch.float32, copy=True)
    for part, strength in shares:
        try:
            merged += strength * change(part, layer, weight)
        except RuntimeError as error:
            raise WeightsError(
                f"doesn't fit the model, whose weight is {list(weight.shape)}: {error}",
                field="adapter layer",
                value=name,
            ) from None
    rounded = merged.to(weight.dtype)
    if not bool(torch.isfinite(rounded).all()):
        raise WeightsError(
            f"makes weights that aren't finite in {str(weight.dtype).removeprefix('torch.')}",
            field="adapter layer",
            value=name,
        )
    return rounded


def _write(weight: Tensor, values: Tensor) -> None:
    # in place, so that whatever holds the parameter sees the new values
    with torch.no_grad():
        weight.copy_(values)


def _weight(parts: Mapping[str, nn.Module], component: str, layer: str) -> Tensor:
    module = parts[component].get_submodule(layer)
    base = getattr(module, "base_layer", module)
    weight = base.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise ModelError(
            "is quantised: adapters can be merged into float weights alone",
            field="layer",
            value=f"{component}.{layer}",
        )
    return weight
