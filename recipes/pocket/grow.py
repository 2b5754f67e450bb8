"""Go on from weights with fewer latent channels: the old channels stay, new ones join.

The encoder gets the next principal components, so that its first channels, and all that the
UNet knows of them, stay what they are; new weights for new channels start at zero.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from . import linear, training, unet, vae


def _copied(old: nn.Module, new: nn.Module) -> None:
    """Copy parameters of the same shape and clear the others."""
    state = old.state_dict()
    for name, value in new.state_dict().items():
        if value.shape == state[name].shape:
            value.copy_(state[name])
        else:
            value.zero_()


def _block_features(model: AutoencoderKL, x: Tensor) -> Tensor:
    """Return what the encoder's last strided convolution sees, (n, 64, h / 8, w / 8)."""
    x = functional.conv2d(x, model.encoder.conv_in.weight[:3, :, 1:2, 1:2])
    for block in model.encoder.down_blocks[:-2]:
        conv = block.downsamplers[0].conv
        taps = conv.weight[:, : x.shape[1], :2, :2]
        x = functional.conv2d(x, taps, conv.bias, stride=2)
    return x[:, : model.config.block_out_channels[-3]]


@torch.no_grad()
def coder(old: AutoencoderKL, new: AutoencoderKL, pictures: Tensor) -> None:
    """Write a trained autoencoder into one with more channels, which encodes finer components."""
    before, after = old.config.latent_channels, new.config.latent_channels
    x = _block_features(old, pictures)
    last = old.encoder.down_blocks[-2].downsamplers[0].conv
    known = last.weight[:before, : x.shape[1], :2, :2].flatten(1)
    rows = linear.blocks(x)
    mean = rows.mean(0)
    rest = (rows - mean) - (rows - mean) @ known.T @ known
    _, basis, values = linear.components(rest, after - before, False)
    _copied(old, new)
    conv = new.encoder.down_blocks[-2].downsamplers[0].conv
    conv.weight[before:] = 0
    conv.bias[before:] = 0
    conv.weight[before:after, : x.shape[1], :2, :2] = basis.view(-1, x.shape[1], 2, 2)
    conv.bias[before:after] = -(basis @ mean)
    conv.weight[after : 2 * after] = -conv.weight[:after]
    conv.bias[after : 2 * after] = -conv.bias[:after]
    width = new.encoder.conv_norm_out.num_channels
    new.encoder.conv_norm_out.weight[: 2 * after] = linear.CONSTANT * (2 / width) ** 0.5
    gain = old.encoder.conv_out.weight[range(before), range(before), 1, 1]
    spread = functional.conv2d(x, known.view(before, -1, 2, 2), stride=2)
    scale = (gain.square() * spread.var((0, 2, 3)).sqrt()).mean()
    gains = torch.cat([gain, (scale / values.clamp_min(1e-8).sqrt()).sqrt()])
    for c in range(after):
        new.encoder.conv_out.weight[c, c, 1, 1] = gains[c]
        new.encoder.conv_out.weight[c, c + after, 1, 1] = -gains[c]
    new.encoder.conv_out.bias[after:] = -6
    nn.init.dirac_(new.quant_conv.weight)
    nn.init.dirac_(new.post_quant_conv.weight)
    new.post_quant_conv.weight[:before, :before] = old.post_quant_conv.weight
    new.post_quant_conv.bias[:before] = old.post_quant_conv.bias
    new.decoder.conv_in.weight[:, :before] = old.decoder.conv_in.weight


@torch.no_grad()
def denoiser(old: UNet2DConditionModel, new: UNet2DConditionModel) -> None:
    """Write a trained UNet into one with more latent channels."""
    before = old.config.in_channels
    _copied(old, new)
    new.conv_in.weight[:, :before] = old.conv_in.weight
    new.conv_out.weight[:before] = old.conv_out.weight
    new.conv_out.bias[:before] = old.conv_out.bias


def _save(path: Path, model: nn.Module) -> None:
    """Write weights as a checkpoint, with how far the training was, where a note beside tells."""
    state, facts = model.float().state_dict(), path.with_suffix(".json")
    known = json.loads(facts.read_text()) if facts.exists() else {}
    training.save(path, model=state, ema=state, **known)


def start(work: Path, npm: Path, package: Path, count: int = 500) -> None:
    """Start WORK's checkpoints from exported weights; those with fewer channels are grown.

    The text encoder brings its tokenizer, whatever WORK had: its rows are of those tokens.
    """
    if not (work / "clip.pt").exists():
        shutil.copytree(package / "weights/tokenizer", work / "tokenizer", dirs_exist_ok=True)
        _save(work / "clip.pt", CLIPModel.from_pretrained(package / "clip", dtype=torch.float32))
    if (work / "vae.pt").exists() and (work / "unet.pt").exists():
        return
    pipe = StableDiffusionPipeline.from_pretrained(package / "weights", dtype=torch.float32)
    (work / "scaling.txt").write_text(f"{pipe.vae.config.scaling_factor}\n")
    old_coder, old_unet = pipe.vae, pipe.unet
    if old_coder.config.latent_channels < vae.LATENTS:
        new_coder, new_unet = vae.make(), unet.make()
        coder(old_coder, new_coder, vae.to_tensor(vae.pool(work, npm, count, seed=3)))
        denoiser(old_unet, new_unet)
        old_coder, old_unet = new_coder, new_unet
    _save(work / "vae.pt", old_coder)
    _save(work / "unet.pt", old_unet)
