"""Random ControlNets, T2I-Adapters and IP-Adapters that fit the tiny models, as files."""

import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

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


def save_ip(folder: Path, base: Path, seed: int, *, plus: bool = False) -> Path:
    """A random IP-Adapter file in `folder`/models, with an image encoder beside it."""
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
    state = _plus(width) if plus else _plain(width)
    state = {f"image_proj.{name}": tensor for name, tensor in state.items()}
    modules = dict(unet.named_modules())
    for place, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            hidden = modules[name.removesuffix(".processor")].inner_dim
            for kind in "kv":
                state[f"ip_adapter.{place}.to_{kind}_ip.weight"] = torch.randn(hidden, width)
    file = folder / "models" / f"{'plus' if plus else 'plain'}{seed}.safetensors"
    save_file(state, file)
    return file


def _plain(width: int) -> dict[str, Tensor]:
    return {
        "proj.weight": torch.randn(4 * width, PROJECTED) * 0.3,
        "proj.bias": torch.randn(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
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
