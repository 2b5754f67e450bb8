"""The layers of a UNet and a VAE decoder as plain functions, for drawing alone.

A layer here reads the parameters of a diffusers module and never writes them: the module stays as
it was. What is derived from parameters (packed, fused or summed weights) is made when the layer
is, and lives as long as one drawing, so that it can't grow stale. Pictures are [batch, channels,
height, width] in channels_last, so that [batch, height * width, channels] is a view of them.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

Layer = Callable[[Tensor], Tensor]


class UnsupportedError(Exception):
    """A module that isn't quite what these layers stand for; it has to run itself."""


def require(holds: bool, what: str) -> None:
    """Raise UnsupportedError unless it holds."""
    if not holds:
        raise UnsupportedError(what)


def check_untouched(module: Any) -> None:
    """Raise UnsupportedError if hooks or patches make any submodule more than its class."""
    for name, part in module.named_modules():
        hooked = part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__
        require(not hooked, f"{name} is hooked")


def exactly(module: Any, kind: type[nn.Module]) -> None:
    """Raise UnsupportedError for a subclass or wrapper (as adapters are) of that kind of module."""
    require(type(module) is kind, f"{type(module).__name__} is not {kind.__name__}")


def convolution(module: Any) -> Layer:
    """A Conv2d; on the CPU in fp32 with its weights packed as oneDNN wants them."""
    exactly(module, nn.Conv2d)
    require(module.padding_mode == "zeros" and module.groups == 1, "an unusual convolution")
    return convolve(module.weight, module.bias, module.padding, module.stride)


def convolve(
    weight: Tensor,
    bias: Tensor | None,
    padding: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
) -> Layer:
    """The convolution by `weight` [out, in, height, width]."""
    if _packs(weight):
        return PackedConvolution(weight.detach(), bias, padding, stride)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return lambda x: functional.conv2d(x, weight, bias, stride=stride, padding=padding)


class PackedConvolution:
    """A convolution whose weights are packed once, where every call would do it anew.

    oneDNN wants them otherwise for each size of picture and on each kind of CPU, so they are
    packed when the first picture of a size comes: packed for no size, they suit some CPUs alone,
    and others take up to sixty times as long.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
        stride: tuple[int, int],
    ) -> None:
        self.weight, self.bias, self.padding, self.stride = weight, bias, padding, stride
        self.packed: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape not in self.packed:
            self.packed[x.shape] = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, (1, 1), 1, x.shape
            )
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.packed[x.shape], self.bias, self.padding, self.stride, (1, 1), 1, "none", [], ""
        )


def _packs(weight: Tensor) -> bool:
    """Whether it can be packed: oneDNN's own operators are there, which torch builds for CPUs."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32
    return fits and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")


def upsampling(module: Any) -> Layer:
    """Nearest-neighbour doubling and a 3x3 convolution as one 2x2 convolution of the small picture.

    Of the nine pixels under the kernel, those that doubling made equal are taken once, with
    the sum of their weights: output rows 2i and 2i + 1 see rows (i - 1, i) and (i, i + 1), so
    that 16 products do the work of 36.
    """
    exactly(module, Upsample2D)
    known = module.use_conv and not module.use_conv_transpose and module.norm is None
    require(known and module.interpolate, "an unusual upsampling")
    conv = module.conv
    exactly(conv, nn.Conv2d)
    require(conv.kernel_size == (3, 3) and conv.padding == (1, 1), "an unusual upsampling")
    out, size_in = conv.weight.shape[:2]
    # [phase, tap of 2, tap of 3]: which of the three rows fall together for an even, an odd row
    merge = conv.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    weight = torch.einsum("pai,qbj,ocij->pqocab", merge, merge, conv.weight)
    bias = None if conv.bias is None else conv.bias.repeat(4)
    run = convolve(weight.reshape(4 * out, size_in, 2, 2), bias, (1, 1))

    def layer(x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        phases = run(x).permute(0, 2, 3, 1).reshape(batch, height + 1, width + 1, 2, 2, out)
        doubled = x.new_empty(batch, height, 2, width, 2, out)
        for row in (0, 1):
            for column in (0, 1):
                part = phases[:, row : row + height, column : column + width, row, column]
                doubled[:, :, row, :, column] = part
        return doubled.view(batch, 2 * height, 2 * width, out).permute(0, 3, 1, 2)

    return layer


def downsampling(module: Any) -> Layer:
    """A 3x3 convolution of stride 2."""
    exactly(module, Downsample2D)
    known = module.use_conv and module.norm is None and module.padding == 1
    require(known, "an unusual downsampling")
    return convolution(module.conv)


def group_norm(module: Any) -> Layer:
    exactly(module, nn.GroupNorm)
    groups, weight, bias, eps = module.num_groups, module.weight, module.bias, module.eps
    return lambda x: torch.group_norm(x, groups, weight, bias, eps)


def layer_norm(module: Any) -> Layer:
    exactly(module, nn.LayerNorm)
    shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def linear(module: Any) -> Layer:
    exactly(module, nn.Linear)
    weight, bias = module.weight, module.bias
    return lambda x: functional.linear(x, weight, bias)


class Resnet:
    """A ResnetBlock2D; `shifts` [steps, rows or 1, channels] are its timestep embeddings."""

    def __init__(self, module: Any, embeddings: Tensor | None = None) -> None:
        exactly(module, ResnetBlock2D)
        require(module.upsample is None and module.downsample is None, "a resampling resnet")
        require(type(module.nonlinearity) is nn.SiLU, "not SiLU")
        self.scale = module.output_scale_factor
        self.norm1, self.norm2 = group_norm(module.norm1), group_norm(module.norm2)
        self.conv1, self.conv2 = convolution(module.conv1), convolution(module.conv2)
        shortcut = module.conv_shortcut
        self.shortcut = None if shortcut is None else pointwise(shortcut)
        self.shifts = None
        if module.time_emb_proj is not None:
            require(module.time_embedding_norm == "default", "an unusual timestep embedding")
            if embeddings is None:
                raise UnsupportedError("a resnet that wants timestep embeddings")
            exactly(module.time_emb_proj, nn.Linear)
            self.shifts = module.time_emb_proj(functional.silu(embeddings))[..., None, None]

    def __call__(self, x: Tensor, step: int = 0) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x), inplace=True))
        if self.shifts is not None:
            hidden += self.shifts[step]
        hidden = self.conv2(functional.silu(self.norm2(hidden), inplace=True))
        hidden += x if self.shortcut is None else self.shortcut(x)
        return hidden if self.scale == 1 else hidden / self.scale


def pointwise(module: Any) -> Layer:
    """A 1x1 convolution, or a linear layer, of every pixel."""
    if isinstance(module, nn.Conv2d):
        exactly(module, nn.Conv2d)
        require(module.kernel_size == (1, 1) and module.stride == (1, 1), "not pointwise")
        weight, bias = module.weight.flatten(1), module.bias
    else:
        exactly(module, nn.Linear)
        weight, bias = module.weight, module.bias
    return lambda x: functional.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def widen(x: Tensor, rows: int) -> Tensor:
    """Both halves of a guided batch, where they were still one: [rows / 2, …] -> [rows, …]."""
    return x if x.shape[0] == rows else torch.cat([x, x])


def _check_attention(module: Any) -> None:
    exactly(module, Attention)
    require(type(module.processor) in (AttnProcessor, AttnProcessor2_0), "an own processor")
    plain = (
        module.group_norm is None
        and module.spatial_norm is None
        and module.norm_q is None
        and module.norm_k is None
        and not module.norm_cross
        and not module.residual_connection
        and module.rescale_output_factor == 1
        and module.add_k_proj is None
        and not getattr(module, "fused_projections", False)
    )
    require(bool(plain), "an unusual attention")
    for part in (module.to_q, module.to_k, module.to_v, module.to_out[0]):
        exactly(part, nn.Linear)


class SelfAttention:
    """An Attention of a picture to itself, its three projections in one product."""

    def __init__(self, module: Any) -> None:
        _check_attention(module)
        projections = (module.to_q, module.to_k, module.to_v)
        self.weight = torch.cat([part.weight for part in projections])
        biases = [part.bias for part in projections]
        self.bias = None if biases[0] is None else torch.cat(biases)
        self.heads, self.scale = module.heads, module.scale
        self.out = linear(module.to_out[0])

    def __call__(self, x: Tensor) -> Tensor:
        """x: [batch, tokens, channels]."""
        batch, tokens, _ = x.shape
        fused = functional.linear(x, self.weight, self.bias)
        query, key, value = fused.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1))


class CrossAttention:
    """An Attention of a picture to a text that doesn't change from step to step.

    Adds itself to its residual. With keys and values known, both projections on the picture's
    side can be multiplied into them: softmax(x A) B, A = Wq^T K^T per head, B = V Wo^T per head;
    done where that is less work. As each head's weights sum to 1, the output's bias goes
    into B as well.
    """

    def __init__(self, module: Any, text: Tensor) -> None:
        _check_attention(module)
        self.heads, self.scale = module.heads, module.scale
        rows, length, _ = text.shape
        key, value = (
            part(text).view(rows, length, self.heads, -1).transpose(1, 2)
            for part in (module.to_k, module.to_v)
        )
        out = module.to_out[0]
        channels, inner = out.weight.shape
        self.merged = self.heads * length <= inner and module.to_q.bias is None
        if self.merged:
            queries = module.to_q.weight.view(self.heads, -1, channels)
            self.into = torch.einsum("rhld,hdc->rchl", key * self.scale, queries).flatten(2)
            outs = out.weight.view(channels, self.heads, -1)
            back = torch.einsum("rhld,chd->rhlc", value, outs)
            if out.bias is not None:
                back += out.bias / self.heads
            self.back = back.flatten(1, 2)
        else:
            self.key, self.value = key.contiguous(), value.contiguous()
            self.query, self.out = linear(module.to_q), linear(out)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        """x, residual: [batch, tokens, channels]."""
        batch, tokens, _ = x.shape
        if self.merged:
            scores = torch.bmm(x, self.into).view(batch, tokens, self.heads, -1)
            return torch.baddbmm(residual, scores.softmax(-1).flatten(2), self.back)
        query = self.query(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            query, self.key, self.value, scale=self.scale
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, -1)).add_(residual)


def gated_feed_forward(module: Any) -> Layer:
    """A FeedForward with GEGLU (arXiv:2002.05202): (x A + a) * gelu(x B + b), then linear."""
    exactly(module, FeedForward)
    gate, _, last = module.net
    exactly(gate, GEGLU)
    exactly(gate.proj, nn.Linear)
    exactly(last, nn.Linear)
    value_weight, gate_weight = gate.proj.weight.chunk(2)
    value_bias, gate_bias = gate.proj.bias.chunk(2)
    value = product(value_weight, value_bias)
    gelu = product(gate_weight, gate_bias, gelu=True)
    down = product(last.weight, last.bias)
    return lambda x: down(value(x).mul_(gelu(x)))


def product(weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Layer:
    """x W^T + b, and gelu of it; packed for oneDNN like the convolutions."""
    if not _packs(weight):
        if gelu:
            return lambda x: functional.gelu(functional.linear(x, weight, bias))
        return lambda x: functional.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    run, bias = torch.ops.mkldnn._linear_pointwise, bias.contiguous()
    name, algorithm = ("gelu", "none") if gelu else ("none", "")
    return lambda x: run(x, packed, bias, name, [], algorithm)


class TransformerBlock:
    """A BasicTransformerBlock: attention to itself, to the text, and a gated feed-forward."""

    def __init__(self, module: Any, text: Tensor) -> None:
        exactly(module, BasicTransformerBlock)
        known = module.norm_type == "layer_norm" and module.attn2 is not None
        known = known and not module.only_cross_attention and module.pos_embed is None
        require(bool(known), "an unusual transformer block")
        self.norms = [layer_norm(part) for part in (module.norm1, module.norm2, module.norm3)]
        self.itself = SelfAttention(module.attn1)
        self.text = CrossAttention(module.attn2, text)
        self.rows = text.shape[0]
        self.feed = gated_feed_forward(module.ff)

    def __call__(self, x: Tensor) -> Tensor:
        """[rows or half of them, tokens, channels] -> [rows, tokens, channels]."""
        x = self.itself(self.norms[0](x)).add_(x)
        x = widen(x, self.rows)
        x = self.text(self.norms[1](x), x)
        return self.feed(self.norms[2](x)).add_(x)


class Transformer:
    """A Transformer2DModel over the pixels of a picture."""

    def __init__(self, module: Any, text: Tensor) -> None:
        exactly(module, Transformer2DModel)
        require(module.is_input_continuous, "a transformer of patches")
        self.norm = group_norm(module.norm)
        self.before, self.after = pointwise(module.proj_in), pointwise(module.proj_out)
        self.blocks = [TransformerBlock(block, text) for block in module.transformer_blocks]

    def __call__(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        hidden = self.before(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        pixels = hidden.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return self.after(pixels).add_(widen(x, hidden.shape[0]))
