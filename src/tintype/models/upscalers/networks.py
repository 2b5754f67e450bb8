"""The networks that most upscaler files are of: RRDBNet (arXiv:1809.00219) and the compact one of
Real-ESRGAN (arXiv:2107.10833). Both take and give pictures [batch, channels, height, width] in
0..1; nothing holds what they give to that range."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of the leaky rectifiers
RESIDUAL = 0.2  # how much of a block is added to what it was given


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it gave."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, growth)
        self.conv2 = _conv(width + growth, growth)
        self.conv3 = _conv(width + 2 * growth, growth)
        self.conv4 = _conv(width + 3 * growth, growth)
        self.conv5 = _conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, _leaky(conv(seen))], dim=1)
        return x + RESIDUAL * self.conv5(seen)


class ResidualBlock(nn.Module):
    """A residual in residual dense block."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """ESRGAN's network: 2^`doublings` times as large, after `unshuffle` x `unshuffle` pixels were
    put into the channels of one."""

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        growth: int,
        blocks: int,
        doublings: int,
        unshuffle: int = 1,
    ) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.conv_first = _conv(channels * unshuffle**2, width)
        self.body = nn.Sequential(*(ResidualBlock(width, growth) for _ in range(blocks)))
        self.conv_body = _conv(width, width)
        self.conv_up = nn.ModuleList(_conv(width, width) for _ in range(doublings))
        self.conv_hr = _conv(width, width)
        self.conv_last = _conv(width, channels)
        self.scale = 2**doublings // unshuffle

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        x = pixels
        if self.unshuffle > 1:
            right, below = (-side % self.unshuffle for side in (width, height))
            x = functional.pad(x, (0, right, 0, below), mode="reflect")
            x = functional.pixel_unshuffle(x, self.unshuffle)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for conv in self.conv_up:
            x = _leaky(conv(functional.interpolate(x, scale_factor=2, mode="nearest")))
        x = self.conv_last(_leaky(self.conv_hr(x)))
        return x[..., : height * self.scale, : width * self.scale]


class CompactNet(nn.Module):
    """Real-ESRGAN's small network: convolutions at the picture's size, whose last one gives what
    is added to the picture of larger pixels."""

    def __init__(self, *, channels: int, width: int, convs: int, scale: int) -> None:
        super().__init__()
        inner: Iterable[nn.Module] = (
            layer for _ in range(convs) for layer in (_conv(width, width), nn.PReLU(width))
        )
        self.body = nn.Sequential(
            _conv(channels, width), nn.PReLU(width), *inner, _conv(width, channels * scale**2)
        )
        self.scale = scale

    def forward(self, pixels: Tensor) -> Tensor:
        larger = functional.interpolate(pixels, scale_factor=self.scale, mode="nearest")
        return functional.pixel_shuffle(self.body(pixels), self.scale) + larger


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1)


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE)
