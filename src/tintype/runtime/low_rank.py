"""Plain LoRA beside a frozen linear layer in few operators (arXiv:2106.09685, equation 3).

peft computes it as a chain, in which each link costs a call, a node of the graph and mostly a pass
over the layer's output. Here the products are added where they belong, forward and backward, and
those with few columns are laid out as rows, which a CPU multiplies several times as fast. Results
are equal to rounding.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Forward = Callable[..., Tensor]


class LowRank:
    """A lever: as long as it is put in, plain linear LoRA layers of a module compute so.

    Others (DoRA, dropout, convolutions, a base in few bits, several adapters) are left to peft, and
    so is what is compiled.
    """

    name = "low-rank products"

    def __init__(self, module: nn.Module) -> None:
        self.layers: list[Any] = [part for part in module.modules() if fits(part)]

    def put_in(self) -> None:
        for layer in self.layers:
            layer.forward = _forward_of(layer)

    def take_out(self) -> None:
        for layer in self.layers:
            del layer.forward


def fits(layer: Any) -> bool:
    """Whether that is a layer which can be computed so."""
    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return False
    [name, *more] = layer.active_adapters
    if more or name not in layer.lora_A or name in layer.lora_variant:
        return False
    down, up, base = layer.lora_A[name], layer.lora_B[name], layer.base_layer
    return (
        type(layer.lora_dropout[name]) is nn.Identity
        and down.bias is None
        and up.bias is None
        and not any(parameter.requires_grad for parameter in base.parameters())
        and not any(part._forward_hooks or part._forward_pre_hooks for part in (base, down, up))
    )


def _forward_of(layer: Any) -> Forward:
    """The layer's forward: in few operators, or peft's own where that can't be."""
    [name] = layer.active_adapters
    base, scale = layer.base_layer, layer.scaling[name]
    down, up = layer.lora_A[name], layer.lora_B[name]
    plain: Forward = type(layer).forward.__get__(layer)

    def forward(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        if layer.disable_adapters or layer.merged or torch.compiler.is_compiling():
            return plain(x, *arguments, **named)
        device = x.device.type
        if torch.is_autocast_enabled(device):
            kind = torch.get_autocast_dtype(device)
            bias = None if base.bias is None else base.bias.to(kind)
            weights = (base.weight.to(kind), bias, down.weight.to(kind), up.weight.to(kind))
            with torch.autocast(device, enabled=False):
                return _product(x.to(kind), *weights, scale)
        if not x.dtype == base.weight.dtype == down.weight.dtype:
            return plain(x, *arguments, **named)
        return _product(x, base.weight, base.bias, down.weight, up.weight, scale)

    return forward


class _Product(torch.autograd.Function):
    """x W^T + b + s x A^T B^T for x [..., in], W [out, in], A [rank, in], B [out, rank]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.t()
        out = functional.linear(rows, weight, bias).addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        out = grad.reshape(-1, grad.shape[-1])
        grad_low, grad_b = (b.t() @ out.t()).t(), (low.t() @ out).t()
        if ctx.scale != 1:
            grad_low, grad_b = grad_low * ctx.scale, grad_b * ctx.scale
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (out @ weight).addmm_(grad_low, a).view(*grad.shape[:-1], -1)
        return grad_x, None, None, grad_low.t() @ rows, grad_b, None


def _product(*given: Any) -> Tensor:
    made: Tensor = _Product.apply(*given)
    return made
