"""Random ControlNets, T2I-Adapters and IP-Adapters that fit the tiny models, as files."""

import re
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.models.ldm import unet_to_ldm

EMBEDDING = (4, 8, 8, 8)
WIDTH, PROJECTED = 16, 24  # of the image encoder


def save_controlnet(folder: Path, base: Path, seed: int, *, pooled: bool = False) -> Path:
    """A random ControlNet for the UNet in `base`, whose residuals aren't zero."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    torch.manual_seed(seed)
    net = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=EMBEDDING)
    net.register_to_config(global_pool_conditions=pooled)
    return _save(net, folder)


def save_union(folder: Path, base: Path, seed: int) -> Path:
    """A random ControlNet union of six kinds of pictures."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    torch.manual_seed(seed)
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    width = unet.config.block_out_channels[0]
    net = diffusers.ControlNetUnionModel.from_config(
        {
            **config,
            "conditioning_embedding_out_channels": EMBEDDING,
            "num_trans_channel": width,
            "num_proj_channel": width,
        }
    )
    with torch.no_grad():
        net.spatial_ch_projs.weight.normal_(std=0.2)
    return _save(net, folder)


def _save(net: Any, folder: Path) -> Path:
    with torch.no_grad():
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            block.weight.normal_(std=0.2)
        # strong enough for what the picture shows to matter, and not only that there is one
        for weight in net.controlnet_cond_embedding.parameters():
            if weight.ndim == 4:
                weight.normal_(std=2 / weight[0].numel() ** 0.5)
    net.save_pretrained(folder)
    return folder


def save_attentive(folder: Path, base: Path) -> Path:
    """The model in `base` with a UNet whose first block has attention, as SD 1.x has."""
    return _changed(
        folder,
        base,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def save_deep(folder: Path, base: Path) -> Path:
    """The model in `base` with a UNet of three blocks, as SDXL has."""
    return _changed(
        folder,
        base,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        transformer_layers_per_block=(1, 1, 1),
    )


def _changed(folder: Path, base: Path, **changes: Any) -> Path:
    shutil.copytree(base, folder)
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    torch.manual_seed(0)
    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    made = diffusers.UNet2DConditionModel.from_config({**config, **changes})
    made.save_pretrained(folder / "unet")
    return folder


def save_t2i(folder: Path, seed: int, **values: Any) -> Path:
    """A random T2I-Adapter for the tiny UNets."""
    torch.manual_seed(seed)
    options = {"channels": [16, 32], "num_res_blocks": 1, **values}
    diffusers.T2IAdapter(**options).save_pretrained(folder)
    return folder


def save_ip(folder: Path, base: Path, seed: int, *, kind: str = "plain") -> Path:
    """A random IP-Adapter file in `folder`/models, with an image encoder beside it; the kinds are
    plain, plus and full (face)."""
    torch.manual_seed(seed)
    encoder = folder / "models" / "image_encoder"
    if not encoder.exists():
        config = CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=PROJECTED,
        )
        CLIPVisionModelWithProjection(config).save_pretrained(encoder)
    unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
    width = unet.config.cross_attention_dim
    state = {"plain": _plain, "plus": _plus, "full": _full}[kind](width)
    state = {f"image_proj.{name}": tensor for name, tensor in state.items()}
    modules = dict(unet.named_modules())
    for place, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            hidden = modules[name.removesuffix(".processor")].inner_dim
            for kind in "kv":
                state[f"ip_adapter.{place}.to_{kind}_ip.weight"] = torch.randn(hidden, width)
    file = folder / "models" / f"{kind}{seed}.safetensors"
    save_file(state, file)
    return file


def _plain(width: int) -> dict[str, Tensor]:
    return {
        "proj.weight": torch.randn(4 * width, PROJECTED) * 0.3,
        "proj.bias": torch.randn(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def _full(width: int) -> dict[str, Tensor]:
    return {
        "proj.0.weight": torch.randn(WIDTH, WIDTH) * 0.3,
        "proj.0.bias": torch.randn(WIDTH),
        "proj.2.weight": torch.randn(width, WIDTH) * 0.3,
        "proj.2.bias": torch.randn(width),
        "proj.3.weight": torch.ones(width),
        "proj.3.bias": torch.zeros(width),
    }


def _plus(width: int, hidden: int = 64, depth: int = 4) -> dict[str, Tensor]:
    state = {
        "latents": torch.randn(1, 6, hidden),
        "proj_in.weight": torch.randn(hidden, WIDTH) * 0.2,
        "proj_in.bias": torch.zeros(hidden),
        "proj_out.weight": torch.randn(width, hidden) * 0.2,
        "proj_out.bias": torch.zeros(width),
        "norm_out.weight": torch.ones(width),
        "norm_out.bias": torch.zeros(width),
    }
    for layer in range(depth):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            state[f"layers.{layer}.{norm}.weight"] = torch.ones(hidden)
            state[f"layers.{layer}.{norm}.bias"] = torch.zeros(hidden)
        shapes = {"0.to_q": 1, "0.to_kv": 2, "0.to_out": 1, "1.1": 4}
        for name, times in shapes.items():
            state[f"layers.{layer}.{name}.weight"] = torch.randn(times * hidden, hidden) * 0.1
        state[f"layers.{layer}.1.3.weight"] = torch.randn(hidden, 4 * hidden) * 0.1
    return state


def control_to_ldm(state: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A ControlNet's tensors by the names of its paper's repository; `layers` is its
    layers_per_block."""
    last = max(int(n.split(".")[2]) for n in state if n.startswith("controlnet_cond_embedding.b"))
    named: dict[str, Tensor] = {}
    inner = {}
    for name, tensor in state.items():
        kind = name.rpartition(".")[2]
        part, _, rest = name.partition(".")
        if part == "controlnet_cond_embedding":
            layer = rest.rpartition(".")[0]
            ends = {"conv_in": 0, "conv_out": 2 * last + 4}
            place = ends.get(layer)
            if place is None:
                place = 2 * int(layer.partition(".")[2]) + 2
            named[f"input_hint_block.{place}.{kind}"] = tensor
        elif part == "controlnet_down_blocks":
            named[f"zero_convs.{rest.partition('.')[0]}.0.{kind}"] = tensor
        elif part == "controlnet_mid_block":
            named[f"middle_block_out.0.{kind}"] = tensor
        else:
            inner[name] = tensor
    return {**named, **unet_to_ldm(inner, layers)}


def t2i_to_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A T2I-Adapter's tensors by the names of its paper's repository."""
    light = "adapter.body.0.out_conv.weight" in state
    named = {}
    for name, tensor in state.items():
        plain = name.removeprefix("adapter.")
        found = re.fullmatch(r"body\.(\d+)\.resnets\.(\d+)\.(.*)", plain)
        first = re.fullmatch(r"body\.(\d+)\.(in_conv\..*)", plain)
        if found and light:
            plain = "body.{}.body.{}.{}".format(*found.groups())
        elif found:
            plain = f"body.{2 * int(found[1]) + int(found[2])}.{found[3]}"
        elif first and not light:
            plain = f"body.{2 * int(first[1])}.{first[2]}"
        named[plain] = tensor
    return named
