"""Muon for the matrices inside a network, AdamW for all else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

DECAY = 1e-3
# First and last layers, and the tables that tokens are looked up in, are AdamW's.
OUTER = {"conv_in", "conv_out", "token_embedding", "position_embedding"}


class Muon(torch.optim.Muon):
    """torch's Muon (Jordan et al., 2024) for weights of any shape: a row for each output channel.

    Its updates are as large as AdamW's for the same learning rate (arXiv:2502.16982, equation 4).
    It needs no package beside torch, which is what a GPU without a network has.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float) -> None:
        # each matrix is a view: what is written to it is written to the weight
        self.pairs = [(nn.Parameter(w.data.view(len(w), -1)), w) for w in weights]
        matrices = [matrix for matrix, _ in self.pairs]
        super().__init__(matrices, lr, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the weights against their own gradients."""
        for matrix, weight in self.pairs:
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        return super().step(closure)


def make(model: nn.Module, lr: float, muon: bool) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a network's trainable weights: AdamW, after Muon if asked for."""
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    inner = {n: p for n, p in weights.items() if p.ndim > 1 and OUTER.isdisjoint(n.split("."))}
    others = [p for n, p in weights.items() if not muon or n not in inner]
    rest = torch.optim.AdamW(others, lr, weight_decay=DECAY, fused=True)
    return [Muon(inner.values(), lr), rest] if muon else [rest]
