"""A ledger of the memory that tensors take, and of the work that is done on them."""

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations (a multiplication and an addition are two) in convolutions and in
    products, and the bytes that all other operators read and write."""

    convolutions: int
    products: int
    moved: int


class Ledger(TorchDispatchMode):
    """Counts bytes of storages that operators make, for as long as they live.

    `now` is what lives, `peak` the most that did; `work` is what was done. It also works on fake
    tensors (`FakeTensorMode`), which take no memory and no time.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """`known` tensors are there already, and don't count."""
        super().__init__()
        self.now = self.peak = 0
        self._flops: Counter[bool] = Counter()  # of convolutions, and of products
        self._moved = 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, int]
        self._seen = weakref.WeakKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            flops = count(*args, **(kwargs or {}), out_val=out)
            self._flops["convolution" in str(func.overloadpacket)] += flops
        elif not func.is_view:
            taken = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
            self._moved += sum(value.nbytes for value in (*taken, *made))
        for value in made:
            self._enter(value.untyped_storage())
        return out

    @property
    def work(self) -> Work:
        return Work(convolutions=self._flops[True], products=self._flops[False], moved=self._moved)

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
