"""Muon, with products of matrices that a CPU is fast at."""

from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_gram_newton_schulz
from torch import Tensor


class Muon(pytorch_optimizer.Muon):
    """pytorch-optimizer's Muon; on a CPU its products are in float32, and mostly of Gram matrices.

    In bfloat16, a CPU without instructions for it takes fifteen times as long. The iterations on
    Gram matrices (https://dao-lab.ai/blog/2026/gram-newton-schulz/) come to the same with less
    work, and are stable in float32.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        if updates[0].device.type != "cpu":
            found: list[Tensor] = pytorch_optimizer.Muon._orthogonalize(group, updates)
            return found
        return [
            zero_power_via_gram_newton_schulz(
                update.flatten(1),
                num_steps=group["ns_steps"],
                weights=group["ns_coeffs"],
                dtype=torch.float32,
                reset_steps=group["ns_reset_steps"],
            )
            for update in updates
        ]
