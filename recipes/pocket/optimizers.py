"""Muon for the matrices inside a network, AdamW for all else."""

from __future__ import annotations

import torch
from torch import nn

from tintype.runtime.muon import Muon

DECAY = 1e-3
# First and last layers, and the tables that tokens are looked up in, are AdamW's.
OUTER = {"conv_in", "conv_out", "token_embedding", "position_embedding"}


def make(model: nn.Module, lr: float, muon: bool) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a network's trainable weights: AdamW, after Muon if asked for.

    Muon's updates are as large as AdamW's for the same learning rate (arXiv:2502.16982,
    equation 4).
    """
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    inner = {n: p for n, p in weights.items() if p.ndim > 1 and OUTER.isdisjoint(n.split("."))}
    others = [p for n, p in weights.items() if not muon or n not in inner]
    rest = torch.optim.AdamW(others, lr, weight_decay=DECAY, fused=True)
    matrices = {"params": list(inner.values()), "weight_decay": DECAY, "use_muon": True, "lr": lr}
    return [Muon([matrices], use_adjusted_lr=True), rest] if muon else [rest]
