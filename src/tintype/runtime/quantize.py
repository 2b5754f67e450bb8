"""Weights kept in few bits and widened on the fly, for a base that doesn't train itself.

Only the weights of linear layers and convolutions are narrowed; the sums are done in the precision
of their input. Nothing wide is kept for the backward pass: it widens the codes again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

NF4_BLOCK = 64
# The 16 levels of NormalFloat4: quantiles of a normal distribution, in -1..1 (arXiv:2305.14314).
NF4_LEVELS = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip
FP8 = torch.float8_e4m3fn
INT8_MOST = 127.0


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way to store weights.

    `narrow` takes a weight [out, …] to its codes (uint8) and scales (float32); `widen` takes both
    back to a float32 weight of that shape. `levels` are what codes stand for, if they need a table.
    """

    narrow: Callable[[Tensor], tuple[Tensor, Tensor]]
    widen: Callable[[Tensor, Tensor, torch.Size, Tensor], Tensor]
    levels: tuple[float, ...] = ()


def _row_scales(weight: Tensor, most: float) -> Tensor:
    """What each output channel is divided by, [out, 1, …], so that its largest becomes `most`."""
    largest = weight.flatten(1).abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return (largest / most).view(-1, *[1] * (weight.dim() - 1))


def _narrow_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = _row_scales(weight, INT8_MOST)
    return (weight / scales).round().to(torch.int8).view(torch.uint8), scales


def _widen_int8(codes: Tensor, scales: Tensor, shape: torch.Size, levels: Tensor) -> Tensor:
    return codes.view(torch.int8) * scales


def _narrow_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = _row_scales(weight, torch.finfo(FP8).max)
    return (weight / scales).to(FP8).view(torch.uint8), scales


def _widen_fp8(codes: Tensor, scales: Tensor, shape: torch.Size, levels: Tensor) -> Tensor:
    return codes.view(FP8).to(torch.float32) * scales


def _narrow_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of 64 values by their largest; two codes a byte, the first in the high half."""
    flat = functional.pad(weight.flatten(), (0, -weight.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)
    scales = flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    levels = torch.tensor(NF4_LEVELS, device=weight.device)
    codes = torch.bucketize(flat / scales, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)
    pairs = codes.view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], scales


def _widen_nf4(codes: Tensor, scales: Tensor, shape: torch.Size, levels: Tensor) -> Tensor:
    halves = torch.stack([codes >> 4, codes & 15], dim=1).long()
    return (levels[halves].view(-1, NF4_BLOCK) * scales).flatten()[: shape.numel()].view(shape)


FORMATS = {
    "fp8": Format(narrow=_narrow_fp8, widen=_widen_fp8),
    "int8": Format(narrow=_narrow_int8, widen=_widen_int8),
    "nf4": Format(narrow=_narrow_nf4, widen=_widen_nf4, levels=NF4_LEVELS),
}


class _Narrow(nn.Module):
    """What both kinds of layer share: codes and scales in place of the weight."""

    codes: Tensor
    scales: Tensor
    levels: Tensor
    bias: Any

    def __init__(self, layer: nn.Linear | nn.Conv2d, kind: str) -> None:
        nn.Module.__init__(self)
        self.kind, self.format = kind, FORMATS[kind]
        self.shape, self.weight_dtype = layer.weight.shape, layer.weight.dtype
        with torch.no_grad():
            codes, scales = self.format.narrow(layer.weight.detach().float())
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        # on the device: made anew there, it would wait for it at each use
        levels = torch.tensor(self.format.levels, device=codes.device)
        self.register_buffer("levels", levels, persistent=False)
        self.bias = layer.bias

    @property
    def weight(self) -> Tensor:
        """The weight as it is used, made anew."""
        return self.widened(self.weight_dtype)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        raise TypeError("a narrow layer's weight stays as it is")

    @torch.no_grad()
    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weight in that dtype, made anew."""
        scales, levels = self.scales.float(), self.levels.float()
        return self.format.widen(self.codes, scales, self.shape, levels).to(dtype)


class NarrowLinear(_Narrow, nn.Linear):
    """A linear layer whose weight is stored in few bits and doesn't train."""

    def __init__(self, layer: nn.Linear, kind: str) -> None:
        super().__init__(layer, kind)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = _Linear.apply(input, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)


class NarrowConv2d(_Narrow, nn.Conv2d):
    """A convolution whose weight is stored in few bits and doesn't train.

    Made with a convolution's own arguments it is an ordinary one: peft makes the convolutions
    of an adapter from the type of the layer beside them.
    """

    def __new__(cls, layer: Any = None, *arguments: Any, **named: Any) -> Any:
        if layer is None or isinstance(layer, nn.Conv2d):  # None: it is being copied
            return super().__new__(cls)
        return nn.Conv2d(layer, *arguments, **named)

    def __init__(self, layer: nn.Conv2d, kind: str) -> None:
        super().__init__(layer, kind)
        for name in (*nn.Conv2d.__constants__, "transposed", "_reversed_padding_repeated_twice"):
            if name in layer.__dict__:
                setattr(self, name, layer.__dict__[name])

    def forward(self, input: Tensor) -> Tensor:
        product: Tensor = _Convolution.apply(input, self)
        if self.bias is None:
            return product
        return product + self.bias.to(product.dtype)[:, None, None]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: NarrowLinear) -> Tensor:
        ctx.layer, ctx.dtype = layer, x.dtype
        return functional.linear(x, layer.widened(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient @ ctx.layer.widened(gradient.dtype)).to(ctx.dtype), None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: NarrowConv2d) -> Tensor:
        ctx.layer, ctx.dtype, ctx.size = layer, x.dtype, x.shape
        weight = layer.widened(x.dtype)
        return functional.conv2d(
            x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        found = conv2d_input(
            ctx.size,
            layer.widened(gradient.dtype),
            gradient,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        return found.to(ctx.dtype), None


def quantize(module: nn.Module, kind: str, *, keep: tuple[str, ...] = ()) -> None:
    """Narrow the linear layers and convolutions inside `module`, in place.

    `kind` is one of FORMATS; names in `keep` stay as they are. Convolutions with a padding that
    isn't of zeros stay too, as does what is narrow already.
    """
    for name, parent in list(module.named_modules()):
        for child_name, child in list(parent.named_children()):
            full = f"{name}.{child_name}" if name else child_name
            if full in keep:
                continue
            if type(child) is nn.Linear:
                setattr(parent, child_name, NarrowLinear(child, kind))
            elif isinstance(child, nn.Conv2d) and _can_be_narrow(child):
                setattr(parent, child_name, NarrowConv2d(child, kind))


def _can_be_narrow(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer, _Narrow)


def weight_shape(layer: Any) -> torch.Size:
    """The shape of a layer's weight, which isn't widened for it."""
    shape: torch.Size = layer.shape if isinstance(layer, _Narrow) else layer.weight.shape
    return shape


def narrow_kinds(module: nn.Module) -> list[str]:
    """The formats that layers inside a module are stored in."""
    return sorted({layer.kind for layer in module.modules() if isinstance(layer, _Narrow)})
