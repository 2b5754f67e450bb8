"""Weights in bfloat16 that train: widened for their update, and rounded by chance after it.

An update is mostly far smaller than the distance between two neighbours in bfloat16 (a 128th to a
256th of the weight), so that rounding to the nearest would lose it. Rounded up with a probability
of how far it is on the way, a weight moves as it should on average (arXiv:1502.02551, section 3).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tintype.training.seeds import stream_seed

AT_ONCE = 1 << 24  # weights that are widened together; each takes 12 bytes for that while
LOST = 1 << 16  # how many float32 lie between two neighbours in bfloat16
MADE = "rounded"  # a group's own count of steps, so that a resumed run goes on with it


def round_by_chance(values: Tensor, chance: torch.Generator) -> Tensor:
    """float32 values in bfloat16, each one of its two neighbours; their mean is the value.

    `values` are overwritten. What isn't finite stays so.
    """
    finite = values.isfinite()
    bits = values.view(torch.int32)
    noise = torch.randint(LOST, bits.shape, dtype=torch.int32, device=bits.device, generator=chance)
    # a float's bits, without its sign, rise with it
    bits.add_(noise.mul_(finite)).bitwise_and_(-LOST)
    return values.to(torch.bfloat16)


class Rounded(Optimizer):
    """An optimiser whose weights may be in bfloat16, and whose state stays in its own precision.

    Its steps are those of `inner`, taken some weights at a time with wide ones in their places.
    So `inner` must update each weight by itself. What is random follows from `seed` and the number
    of the step, and is the same in each of several processes.
    """

    def __init__(self, inner: Optimizer, seed: int) -> None:
        super().__init__(inner.param_groups, {})
        self.inner, self.seed = inner, seed
        self.state = inner.state
        inner.param_groups = self.param_groups
        for group in self.param_groups:
            group[MADE] = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all weights that have gradients, after `closure`, whose loss it gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        made = groups[0][MADE]
        chance = torch.Generator(groups[0]["params"][0].device)
        chance.manual_seed(stream_seed(self.seed, made, 0, "rounding"))
        for group in groups:
            after = dict(group)
            for some in _portions(group["params"]):
                after = {**group, "params": [_widened(parameter) for parameter in some]}
                with self._instead([after], dict(zip(some, after["params"], strict=True))):
                    self.inner.step()
                for parameter, wide in zip(some, after["params"], strict=True):
                    if wide is not parameter:
                        parameter.copy_(round_by_chance(wide.data, chance))
            group.update({**after, "params": group["params"], MADE: made + 1})
        return loss

    def state_dict(self) -> dict[str, Any]:
        """That of the optimiser within."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; torch would bring it to the precision of the weights."""
        groups = self.param_groups
        empty = {p: _widened(p, empty=True) for group in groups for p in group["params"]}
        wide = [{**group, "params": [empty[p] for p in group["params"]]} for group in groups]
        with self._instead(wide, empty):
            self.inner.load_state_dict(dict(state_dict))
            loaded = self.inner.param_groups
        for group, new in zip(groups, loaded, strict=True):
            group.update({**new, "params": group["params"]})
        self.state = self.inner.state

    @contextmanager
    def _instead(
        self, groups: list[dict[str, Any]], others: Mapping[Tensor, Tensor]
    ) -> Iterator[None]:
        """Have the optimiser within work on other weights, which have these ones' state."""
        _rename(self.inner.state, others)
        self.inner.param_groups = groups
        try:
            yield
        finally:
            self.inner.param_groups = self.param_groups
            _rename(self.inner.state, {other: own for own, other in others.items()})


def _rename(state: dict[Any, Any], names: Mapping[Tensor, Tensor]) -> None:
    for old, new in names.items():
        if old is not new and old in state:
            state[new] = state.pop(old)


def _portions(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Those that have gradients, in portions of about AT_ONCE values."""
    some: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if some and sum(p.numel() for p in some) + parameter.numel() > AT_ONCE:
            yield some
            some = []
        some.append(parameter)
    if some:
        yield some


def _widened(parameter: nn.Parameter, *, empty: bool = False) -> nn.Parameter:
    """A parameter in float32 with its gradient, or without values; a wide one stays itself."""
    if parameter.dtype != torch.bfloat16:
        return parameter
    if empty:
        return nn.Parameter(torch.empty(0, device=parameter.device))
    wide = nn.Parameter(parameter.float())
    wide.grad = None if parameter.grad is None else parameter.grad.float()
    return wide
