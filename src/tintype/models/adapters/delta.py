"""What an adapter's tensors do to a layer's weight, all in float32.

LoRA: arXiv:2106.09685; DoRA: arXiv:2402.09353; LoHa: arXiv:2108.06098; LoKr: arXiv:2212.10650
(both as LyCORIS lays them out, arXiv:2309.14859); OFT: arXiv:2306.07280.
"""

import torch
from peft import OFTConfig
from peft.tuners.lokr.layer import make_kron, make_weight_cp
from peft.tuners.oft.layer import OFTRotationModule
from torch import Tensor

from tintype.models.adapters.adapter import LayerTensors, Part, on_device


def change(part: Part, layer: str, weight: Tensor) -> Tensor:
    """What the adapter at full strength adds to `weight`, as [*weight.shape] in float32."""
    tensors = on_device(part.layers[layer], weight.device)
    base = weight.detach().to(torch.float32)
    if isinstance(part.config, OFTConfig):
        return rotated(part.config, tensors["oft_R.weight"], base) - base
    added = product(tensors).reshape(base.shape) * part.scale(layer)
    magnitude = magnitude_of(tensors, base.dim())
    return added if magnitude is None else decomposed(base + added, magnitude) - base


def product(tensors: LayerTensors) -> Tensor:
    """The unscaled difference of LoRA (B A), LoHa or LoKr, [out, in…] up to a reshape."""
    if "lora_A.weight" in tensors:
        return tensors["lora_B.weight"].flatten(1) @ tensors["lora_A.weight"].flatten(1)
    if "hada_w1_a" in tensors:
        return _hadamard_factor(tensors, 1) * _hadamard_factor(tensors, 2)
    return make_kron(_factor(tensors, "lokr_w1"), _factor(tensors, "lokr_w2"))


def _hadamard_factor(tensors: LayerTensors, number: int) -> Tensor:
    first, second = tensors[f"hada_w{number}_a"], tensors[f"hada_w{number}_b"]
    core = tensors.get(f"hada_t{number}")
    return first @ second if core is None else make_weight_cp(core, first, second)


def _factor(tensors: LayerTensors, name: str) -> Tensor:
    if name in tensors:
        return tensors[name]
    first, second = tensors[f"{name}_a"], tensors[f"{name}_b"]
    core = tensors.get("lokr_t2") if name == "lokr_w2" else None
    return first @ second if core is None else make_weight_cp(core, first, second)


def magnitude_of(tensors: LayerTensors, dims: int) -> Tensor | None:
    """DoRA's magnitudes, [out, 1…] or [1, in, 1…]; None for an adapter without."""
    if "lora_magnitude_vector" in tensors:
        return tensors["lora_magnitude_vector"].reshape(-1, *[1] * (dims - 1))
    return tensors.get("dora_scale")


def decomposed(weight: Tensor, magnitude: Tensor) -> Tensor:
    """`weight` with each row (or column) brought to the length that `magnitude` says."""
    along_inputs = magnitude.shape[0] == 1 and weight.shape[0] != 1
    others = [axis for axis in range(weight.dim()) if axis != (1 if along_inputs else 0)]
    return magnitude * weight / torch.linalg.vector_norm(weight, dim=others, keepdim=True)


def rotated(config: OFTConfig, angles: Tensor, weight: Tensor) -> Tensor:
    """`weight` after OFT's rotation of its inputs, block by block.

    y = W R x is what peft computes, with R of Cayley's transform of a skew matrix Q, which a
    module of peft applies to rows: W R^T here. R^T is R of -Q.
    """
    rows = weight.flatten(1)
    blocks, elements = angles.shape
    size = int(((8 * elements + 1) ** 0.5 + 1) / 2)
    module = OFTRotationModule(
        blocks,
        elements,
        size,
        rows.shape[1],
        coft=config.coft,
        eps=config.eps,
        block_share=config.block_share,
        use_cayley_neumann=config.use_cayley_neumann,
        num_cayley_neumann_terms=config.num_cayley_neumann_terms,
    ).to(weight.device)
    module.weight.data = -angles
    with torch.no_grad():
        turned: Tensor = module(rows)
    return turned.reshape(weight.shape)
