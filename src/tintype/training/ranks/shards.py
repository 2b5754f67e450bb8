"""Weights spread over the devices, so that each keeps a part of them and of the optimiser's state
(FSDP2, arXiv:2304.11277)."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tintype.models.model import Model
from tintype.training.methods.method import Trained
from tintype.training.optim import Updates
from tintype.training.ranks.ranks import Ranks

SHARDED = "fsdp"  # the strategy
UNIT = 0.01  # of a part's weights: what has less isn't gathered by itself

Nested = TypeVar("Nested")


class Shards:
    """Spreads the weights of modules, in place; what belongs together is found by its names.

    All processes call each method at once.
    """

    def __init__(self, parts: nn.ModuleDict, ranks: Ranks, device: torch.device) -> None:
        self.parts, self.ranks = parts, ranks
        mesh = init_device_mesh(device.type, (ranks.ranks,))
        self.shells = {name: _shell(part) for name, part in parts.items()}
        for part in parts.values():
            _shard(part, mesh)

    def follow(self, trained: Trained) -> Trained:
        """What trains, by the same names as before."""
        own = dict(self.parts.named_parameters())
        groups = tuple(
            replace(group, parameters={name: own[name] for name in group.parameters})
            for group in trained.groups
        )
        return replace(trained, groups=groups)

    def whole(self, nested: Nested) -> Nested:
        """Nested dicts and lists with whole tensors on the CPU; elsewhere than on the first
        process they are empty."""
        if isinstance(nested, DTensor):
            full = cast(DTensor, nested).full_tensor()
            return cast(Nested, full.cpu() if self.ranks.rank == 0 else full.new_empty(0))
        if isinstance(nested, Mapping):
            return cast(Nested, {key: self.whole(value) for key, value in nested.items()})
        if isinstance(nested, list):
            return cast(Nested, [self.whole(value) for value in nested])
        return nested

    def spread(self, state: Mapping[str, Any], updates: Updates) -> dict[str, Any]:
        """The state of `updates` as `Updates.state` gives it, with whole tensors, for these."""
        optimizer = updates.optimizer
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        own = {
            key: {name: like(value, parameters[int(key)]) for name, value in values.items()}
            for key, values in state["optimizer"]["state"].items()
        }
        average = {
            name: like(value, updates.parameters[name]) for name, value in state["average"].items()
        }
        return {**state, "optimizer": {**state["optimizer"], "state": own}, "average": average}

    @contextmanager
    def lent(self, model: Model, device: torch.device) -> Iterator[None]:
        """Have `model` be whole for a moment, on the first process."""
        unet, encoders = model.unet, model.text_encoders
        whole = self.put_together(model)
        model.unet, model.text_encoders = whole.unet, whole.text_encoders
        if self.ranks.rank == 0:
            for name in self.parts:
                self.shells[name].to(device).eval()
        try:
            yield
        finally:
            model.unet, model.text_encoders = unet, encoders
            for shell in self.shells.values():
                _empty(shell)

    def put_together(self, model: Model) -> Model:
        """`model` with the modules as they were before they were spread, and the weights of now,
        on the CPU."""
        found: dict[str, Any] = {}
        for name, part in self.parts.items():
            shell = self.shells[name]
            weights = self.whole(dict(part.named_parameters()))
            if self.ranks.rank == 0:
                shell.load_state_dict(weights, assign=True, strict=False)
            found[name] = shell
        encoders = [
            found.get(spec.folder, encoder)
            for spec, encoder in zip(model.family.text_encoders, model.text_encoders, strict=True)
        ]
        unet = found.get("unet", model.unet)
        return replace(model, unet=unet, text_encoders=tuple(encoders))


def _shell(part: nn.Module) -> nn.Module:
    """A copy of a module with parameters that have no storage."""
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in part.parameters()
    }
    return copy.deepcopy(part, empty)


def _empty(shell: nn.Module) -> None:
    """Let go of the parameters' storage; buffers, which have no other copy, stay."""
    for module in shell.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            empty = torch.empty_like(p, device="meta")
            setattr(module, name, nn.Parameter(empty, requires_grad=p.requires_grad))


def _shard(part: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a module, unit by unit: at any time few units are whole on a device."""
    for unit in reversed(list(_units(part))):
        fully_shard(unit, mesh=mesh)
    fully_shard(part, mesh=mesh)


def _units(part: nn.Module) -> Iterator[nn.Module]:
    """Blocks that lists of modules hold and that are large enough, outer ones before inner ones."""
    total = sum(p.numel() for p in part.parameters())
    for module in part.modules():
        if isinstance(module, nn.ModuleList):
            for element in module:
                size = sum(p.numel() for p in element.parameters())
                if size >= UNIT * total and any(element.children()):
                    yield element


def like(value: Any, parameter: Tensor) -> Any:
    """A whole tensor of a parameter's shape, spread as that is; other values as they are."""
    if not isinstance(value, Tensor) or not isinstance(parameter, DTensor):
        return value
    if value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def everywhere(value: Tensor) -> Tensor:
    """A tensor that each process has some of, whole on each; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_part(value: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value
