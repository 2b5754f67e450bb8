"""How long recorded work takes on a device, told from the operators that weigh most."""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from tintype.runtime.ledger import Call, Like, Work
from tintype.runtime.speed import wait_for

LONG = 0.05  # seconds of a call that needn't be made again
TURNS = 3
OTHERS = 1 << 21  # values that take the place of others in a cache
LARGE = 1 << 30  # bytes that are too many to take for a question
LINKS = 200  # of the chain that tells what a call costs whatever it does


def seconds_of(
    work: Work, rates: Mapping[str, float], device: torch.device, patience: float
) -> float:
    """The seconds of some work on that device.

    `rates` by kind of work (operations or bytes a second) say which calls weigh most. Those are
    made, on tensors of the same shapes, until `patience` seconds have gone; the others are as much
    slower than their rate as those of their operator, or else of their kind, were. What calls cost
    in themselves is added.
    """
    left = {call: times * call.amount / rates[call.kind] for call, times in work.calls.items()}
    guessed: defaultdict[str, float] = defaultdict(float)  # by operator, and by kind
    measured: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    ends = time.perf_counter() + patience
    for call in sorted(left, key=lambda one: -left[one]):
        if time.perf_counter() > ends:
            break
        seconds = _timed(call, device)
        if seconds is None:
            continue
        guess, took = left.pop(call), seconds * work.calls[call]
        total += took
        for name in (str(call.operator), call.kind):
            guessed[name] += guess
            measured[name] += took
    slower = {name: measured[name] / guess for name, guess in guessed.items() if guess}
    for call, guess in left.items():
        total += guess * slower.get(str(call.operator), slower.get(call.kind, 1.0))
    return total + work.dispatched * _of_a_call(device)


@torch.no_grad()
def _timed(call: Call, device: torch.device) -> float | None:
    """The seconds of one such call; None where it can't be made on this device."""
    if sum(_bytes(leaf) for leaf in call.leaves) > LARGE:
        return None
    try:
        leaves = [_tensor(leaf, device) for leaf in call.leaves]
        arguments, named = tree_unflatten(leaves, call.structure)
        found: list[float] = []
        kept: list[object] = []  # as for the backward pass, so that memory is taken anew
        others = torch.zeros(OTHERS, device=device)
        for _ in range(1 + TURNS):
            others.add_(1)  # a call of a step doesn't find its tensors in the cache either
            wait_for(device)
            began = time.perf_counter()
            made = call.operator(*arguments, **named)
            wait_for(device)
            found.append(time.perf_counter() - began)
            if "backward" not in str(call.operator):
                kept.append(made)
            if found[-1] > LONG:
                return found[-1]
    except RuntimeError:  # it refuses what stands in for its tensors, or there is no room
        return None
    return statistics.median(found[1:])


def _tensor(leaf: object, device: torch.device) -> object:
    """A tensor like that one; anything else is itself, but for devices."""
    if isinstance(leaf, torch.device):
        return device
    if not isinstance(leaf, Like):
        return leaf
    tensor = torch.empty_strided(leaf.shape, leaf.stride, dtype=leaf.dtype, device=device)
    return tensor.fill_(0.5 if leaf.dtype.is_floating_point else 0)


def _bytes(leaf: object) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize if isinstance(leaf, Like) else 0


def _of_a_call(device: torch.device) -> float:
    """Seconds of a layer's call, or its gradient's, in which there is nothing to compute."""
    first, layer = torch.ones(1, device=device, requires_grad=True), nn.SiLU()
    best = float("inf")
    for _ in range(TURNS):
        wait_for(device)
        began = time.perf_counter()
        value: Tensor = first
        for _ in range(LINKS):
            value = layer(value)
        value.backward()
        wait_for(device)
        best = min(best, time.perf_counter() - began)
    return best / (2 * LINKS)
