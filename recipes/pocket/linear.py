"""Start the autoencoder from closed forms: a principal-component encoder, a fitted decoder.

The encoder computes the first components of 16x16 blocks, factored through its strided
convolutions, and stays so: latents never change while the decoder goes on learning. Its last
norm and SiLU are made harmless by two identities: silu(a) - silu(-a) = a, and a pair of large
constant channels that fixes the norm's deviation. The decoder's upsampling convolutions are
fitted one after another by least squares to the encoder's own features.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

CONSTANT = 12.0
WHITEN = 0.25  # latents have deviation eigenvalue ** (0.5 - WHITEN)
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


def _clear(*convs: nn.Conv2d) -> None:
    for conv in convs:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)


def blocks(x: Tensor) -> Tensor:
    """Turn (n, c, h, w) into rows of 2x2 blocks (n * h/2 * w/2, 4c), as the taps order them."""
    return functional.pixel_unshuffle(x, 2).permute(0, 2, 3, 1).flatten(0, 2)


def components(rows: Tensor, count: int, centre: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (d,), the first components (count, d) and their variances."""
    mean = rows.mean(0) if centre else torch.zeros(rows.shape[1])
    cov = (rows - mean).T @ (rows - mean) / len(rows)
    values, vectors = torch.linalg.eigh(cov)
    return mean, vectors[:, -count:].T.flip(0), values[-count:].flip(0)


def _norm_to_linear(norm: nn.GroupNorm, last: nn.Conv2d, signals: int) -> None:
    """Add the constant pair in the last two channels and undo the norm on the first ones."""
    width = norm.num_channels
    last.bias[-2], last.bias[-1] = CONSTANT, -CONSTANT
    norm.weight[:signals] = CONSTANT * (2 / width) ** 0.5


@torch.no_grad()
def fit_encoder(model: AutoencoderKL, pictures: Tensor) -> list[Tensor]:
    """Write principal components into the encoder; return its features, coarsest last."""
    encoder, latents = model.encoder, model.config.latent_channels
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            _clear(module)
    encoder.conv_in.weight[:3, :, 1, 1] = torch.eye(3)
    features, x = [pictures], pictures
    for i, block in enumerate(encoder.down_blocks[:-1]):
        rows, conv = blocks(x), block.downsamplers[0].conv
        final = i == len(encoder.down_blocks) - 2
        count = latents if final else min(rows.shape[1], conv.out_channels)
        mean, basis, values = components(rows, count, final)
        taps = basis.view(count, x.shape[1], 2, 2)
        conv.weight[:count, : x.shape[1], :2, :2] = taps
        if final:
            conv.weight[count : 2 * count] = -conv.weight[:count]
            conv.bias[:count] = -(basis @ mean)
            conv.bias[count : 2 * count] = basis @ mean
        x = functional.conv2d(x, taps, -(basis @ mean), stride=2)
        features.append(x)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                nn.init.dirac_(resnet.conv_shortcut.weight)
    _norm_to_linear(encoder.conv_norm_out, encoder.mid_block.resnets[-1].conv2, 2 * latents)
    gain = values.clamp_min(1e-8) ** -WHITEN
    gain = gain / (values * gain.square()).mean().sqrt()
    for c in range(latents):
        encoder.conv_out.weight[c, c, 1, 1] = gain[c]
        encoder.conv_out.weight[c, c + latents, 1, 1] = -gain[c]
    encoder.conv_out.bias[latents:] = -6
    _clear(model.quant_conv, model.post_quant_conv)
    nn.init.dirac_(model.quant_conv.weight)
    nn.init.dirac_(model.post_quant_conv.weight)
    return features


def _shifted(x: Tensor, count: int) -> Tensor:
    """Return the first channels of x and those of its four neighbours."""
    return torch.cat(
        [x.roll(s, (2, 3))[:, : count if k else None] for k, s in enumerate(SHIFTS)], 1
    )


def _fit_conv(conv: nn.Conv2d, x: Tensor, target: Tensor, rows: int = 60_000) -> None:
    """Fit a 3x3 convolution's first outputs by ridge regression."""
    columns = functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
    wanted = target.permute(0, 2, 3, 1).flatten(0, 2)
    pick = torch.randperm(len(columns))[:rows]
    a = torch.cat([columns[pick], torch.ones(len(pick), 1)], 1)
    gram = a.T @ a
    gram += 1e-5 * gram.diagonal().mean() * torch.eye(len(gram))
    solution = torch.linalg.solve(gram, a.T @ wanted[pick]).T
    count = target.shape[1]
    conv.weight[:count] = solution[:, :-1].reshape(count, -1, 3, 3)
    conv.bias[:count] = solution[:, -1]


@torch.no_grad()
def fit_decoder(model: AutoencoderKL, features: list[Tensor], latents: Tensor) -> None:
    """Fit the decoder's upsampling convolutions to the encoder's features, coarse to fine."""
    decoder = model.decoder
    for name, module in decoder.named_modules():
        if name.endswith("conv2"):
            _clear(module)
    _clear(decoder.conv_in, decoder.conv_out)
    width = latents.shape[1]
    for k, (dy, dx) in enumerate(SHIFTS):
        for c in range(min(width, decoder.conv_in.out_channels - k * width)):
            decoder.conv_in.weight[k * width + c, c, 1 - dy, 1 - dx] = 1
    x, bands, shared = decoder.conv_in(latents), width, width
    for block, target in zip(decoder.up_blocks[:-1], features[-2::-1], strict=True):
        conv, shortcut = block.upsamplers[0].conv, block.resnets[0].conv_shortcut
        if shortcut is not None:
            _clear(shortcut)
            kept = kept_channels(shortcut.out_channels, bands, shared)
            for row, channel in enumerate(kept):
                shortcut.weight[row, channel] = 1
            x = shortcut(x)
        bands = target.shape[1]
        shared = min(bands, (conv.out_channels - bands) // 4)
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        goal = _shifted(target, shared) if bands > 3 else target
        _fit_conv(conv, x, goal)
        x = conv(x)
    last = decoder.up_blocks[-1]
    conv = last.resnets[0].conv_shortcut
    conv.weight *= 0.3
    conv.weight[:6] = 0
    conv.bias.zero_()
    for c in range(3):
        conv.weight[c, c], conv.weight[3 + c, c] = 1, -1
        decoder.conv_out.weight[c, c, 1, 1], decoder.conv_out.weight[c, 3 + c, 1, 1] = 1, -1
    conv.weight[-2:] = 0
    _norm_to_linear(decoder.conv_norm_out, last.resnets[-1].conv2, 6)


def kept_channels(room: int, bands: int, shared: int) -> list[int]:
    """Choose which of the bands and their shifted copies go on into a narrower level."""
    each = min(shared, (room - bands) // 4)
    kept = list(range(bands))
    for k in range(4):
        kept += [bands + k * shared + c for c in range(each)]
    return kept


@torch.no_grad()
def encode(model: AutoencoderKL, x: Tensor) -> Tensor:
    """Return the encoder's latent means (n, c, h, w), without its idle residual branches."""
    encoder, latents = model.encoder, model.config.latent_channels
    x = functional.conv2d(x, encoder.conv_in.weight[:3, :, 1:2, 1:2])
    for block in encoder.down_blocks[:-1]:
        conv = block.downsamplers[0].conv
        x = functional.conv2d(x, conv.weight[:, : x.shape[1], :2, :2], conv.bias, stride=2)
    x = x[:, :latents]
    width = encoder.conv_norm_out.num_channels
    power = x.square().mean((1, 2, 3), keepdim=True) * latents + CONSTANT**2
    gain = encoder.conv_out.weight[range(latents), range(latents), 1, 1][:, None, None]
    return x * gain * CONSTANT / (power + encoder.conv_norm_out.eps * width / 2).sqrt()
