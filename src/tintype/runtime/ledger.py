"""A ledger of the memory that tensors take, and of the work that is done on them."""

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _attention(query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any
) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


# torch counts the attentions of GPUs alone
FLOPS = {**flop_registry, ATTENTION: _attention, ATTENTION_BACKWARD: _attention_backward}


@dataclass(frozen=True)
class Like:
    """What a tensor was, without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Call:
    """An operator and what it was called with: `leaves` of its (arguments, named arguments), whose
    tensors are Likes. `kind` is "convolutions", "products" or "moved", and `amount` how much of
    that a call is."""

    operator: Any
    leaves: tuple[Any, ...]
    structure: TreeSpec = field(compare=False)
    kind: str
    amount: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations (a multiplication and an addition are two) in convolutions and in
    products, and the bytes that all other operators read and write.

    `calls` are the distinct ones and how often each was made, `dispatched` how many there were of
    all, views too.
    """

    convolutions: int
    products: int
    moved: int
    calls: Mapping[Call, int] = field(default_factory=dict)
    dispatched: int = 0


class Ledger(TorchDispatchMode):
    """Counts bytes of storages that operators make, for as long as they live.

    `now` is what lives, `peak` the most that did; `work` is what was done. It also works on fake
    tensors (`FakeTensorMode`), which take no memory and no time.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """`known` tensors are there already, and don't count."""
        super().__init__()
        self.now = self.peak = 0
        self._calls: Counter[Call] = Counter()
        self._dispatched = 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, int]
        self._seen = weakref.WeakKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        leaves, structure = tree_flatten((args, named))
        likes = tuple(map(_like, leaves))  # before it may be changed in place
        out = func(*args, **named)
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        count = FLOPS.get(func.overloadpacket)
        if func.namespace == "prim":  # a question, such as which device
            return out
        self._dispatched += 1
        if count is not None:
            kind = "convolutions" if "convolution" in str(func.overloadpacket) else "products"
            amount = count(*args, **named, out_val=out)
            self._calls[Call(func, likes, structure, kind, amount)] += 1
        elif not func.is_view:
            taken = [value for value in leaves if isinstance(value, Tensor)]
            amount = sum(value.nbytes for value in (*taken, *made))
            self._calls[Call(func, likes, structure, "moved", amount)] += 1
        for value in made:
            self._enter(value.untyped_storage())
        return out

    @property
    def work(self) -> Work:
        sums: Counter[str] = Counter()
        for call, times in self._calls.items():
            sums[call.kind] += call.amount * times
        return Work(
            convolutions=sums["convolutions"],
            products=sums["products"],
            moved=sums["moved"],
            calls=dict(self._calls),
            dispatched=self._dispatched,
        )

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.now -= size


def _like(value: Any) -> Any:
    """A tensor's Like; anything else is itself."""
    if isinstance(value, Tensor):
        return Like(tuple(value.shape), tuple(value.stride()), value.dtype)
    return value
