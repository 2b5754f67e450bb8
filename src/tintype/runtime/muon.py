"""Muon, with products of matrices that a CPU is fast at."""

from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_gram_newton_schulz
from torch import Tensor

AT_ONCE = 2**23  # numbers that are multiplied together


class Muon(pytorch_optimizer.Muon):
    """pytorch-optimizer's Muon; on a CPU its products are in float32, and mostly of Gram matrices.

    In bfloat16, a CPU without instructions for it takes fifteen times as long. The iterations on
    Gram matrices (https://dao-lab.ai/blog/2026/gram-newton-schulz/) come to the same with less
    work, and are stable in float32. Small matrices are stacked, so that each thread has its own.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        """Of matrices or kernels that all have the same sides, in either order."""
        if updates[0].device.type != "cpu":
            found: list[Tensor] = pytorch_optimizer.Muon._orthogonalize(group, updates)
            return found
        matrices = [update.flatten(1) for update in updates]
        tall = [matrix.shape[0] > matrix.shape[1] for matrix in matrices]
        wide = [m.mT if is_tall else m for m, is_tall in zip(matrices, tall, strict=True)]
        each = max(1, AT_ONCE // wide[0].numel())
        factors = [
            factor
            for first in range(0, len(wide), each)
            for factor in zero_power_via_gram_newton_schulz(
                torch.stack(wide[first : first + each]),
                num_steps=group["ns_steps"],
                weights=group["ns_coeffs"],
                dtype=torch.float32,
                reset_steps=group["ns_reset_steps"],
            )
        ]
        return [f.mT if is_tall else f for f, is_tall in zip(factors, tall, strict=True)]
