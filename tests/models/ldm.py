"""Diffusers' parts to one file in the original LDM layout: the inverse of the conversions under
test, so that a file can be made of a small random model (tensors may be on the meta device)."""

import re

import torch

State = dict[str, torch.Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_HEAD = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def sd_file(unet: State, vae: State, text_encoder: State, layers: int) -> State:
    """A Stable Diffusion 1.x file; `layers` is the UNet's layers_per_block."""
    text = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in text_encoder.items()}
    return {
        **prefixed("model.diffusion_model.", unet_to_ldm(unet, layers)),
        **prefixed("first_stage_model.", vae_to_ldm(vae)),
        **prefixed("cond_stage_model.transformer.", text),
    }


def sdxl_file(unet: State, vae: State, first: State, second: State, layers: int) -> State:
    """An SDXL file."""
    text = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in first.items()}
    return {
        **prefixed("model.diffusion_model.", unet_to_ldm(unet, layers)),
        **prefixed("first_stage_model.", vae_to_ldm(vae)),
        **prefixed("conditioner.embedders.0.transformer.", text),
        **prefixed("conditioner.embedders.1.model.", open_clip(second)),
    }


def sd2_file(unet: State, vae: State, text_encoder: State, layers: int) -> State:
    """A Stable Diffusion 2.x file, with the last layer of OpenCLIP that conditions nothing."""
    text = open_clip(text_encoder)
    last = 1 + max(int(m[1]) for name in text if (m := re.search(r"resblocks\.(\d+)\.", name)))
    spare = {
        re.sub(r"resblocks\.\d+", f"resblocks.{last}", name): torch.zeros_like(tensor)
        for name, tensor in text.items()
        if "resblocks.0." in name
    }
    width = text["ln_final.bias"].shape[0]
    text |= {**spare, "text_projection": torch.zeros(width, width)}
    return {
        **prefixed("model.diffusion_model.", unet_to_ldm(unet, layers)),
        **prefixed("first_stage_model.", vae_to_ldm(vae)),
        **prefixed("cond_stage_model.model.", text),
    }


def refiner_file(unet: State, vae: State, second: State, layers: int) -> State:
    """A file of the SDXL refiner."""
    return {
        **prefixed("model.diffusion_model.", unet_to_ldm(unet, layers)),
        **prefixed("first_stage_model.", vae_to_ldm(vae)),
        **prefixed("conditioner.embedders.0.model.", open_clip(second)),
    }


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def unet_to_ldm(state: State, layers: int) -> State:
    return {_unet_name(name, state, layers): tensor for name, tensor in state.items()}


def _unet_name(name: str, state: State, layers: int) -> str:
    for head, ldm in UNET_HEAD.items():
        if name.startswith(f"{head}."):
            return name.replace(head, ldm, 1)
    found = re.match(r"(down_blocks\.(\d+)|mid_block|up_blocks\.(\d+))\.(\w+)\.(\d+)\.(.*)", name)
    assert found, name
    block, down, up, kind, layer, rest = found.groups()
    level, place = int(down or up or 0), int(layer)
    if kind == "resnets":
        part = rest.split(".")[0]
        rest = rest.replace(part, RESNET[part], 1)
    if block == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * place}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        attended = any(key.startswith(f"{block}.attentions.") for key in state)
        return f"output_blocks.{level * (layers + 1) + layers}.{1 + attended}.{rest}"
    inner = int(kind == "attentions")
    if down:
        return f"input_blocks.{1 + level * (layers + 1) + place}.{inner}.{rest}"
    return f"output_blocks.{level * (layers + 1) + place}.{inner}.{rest}"


def vae_to_ldm(state: State) -> State:
    levels = 1 + max(int(m[1]) for name in state if (m := re.search(r"down_blocks\.(\d+)", name)))
    converted = {}
    for name, tensor in state.items():
        ldm = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        ldm = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", ldm)
        ldm = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", ldm)
        ldm = re.sub(
            r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", ldm
        )
        ldm = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0",
            lambda m: f"up.{levels - 1 - int(m[1])}.upsample",
            ldm,
        )
        ldm = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", ldm)
        if "mid_block.attentions.0" in ldm:
            ldm = ldm.replace("mid_block.attentions.0", "mid.attn_1")
            for new, old in VAE_ATTENTION.items():
                ldm = ldm.replace(f".{new}.", f".{old}.")
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        converted[ldm] = tensor
    return converted


def open_clip(state: State) -> State:
    converted: State = {}
    state = {
        name if name.startswith("text_") else f"text_model.{name}": tensor
        for name, tensor in state.items()
    }
    for name, tensor in state.items():
        ldm = name
        for new, old in OPEN_CLIP.items():
            ldm = ldm.replace(new, old)
        if name == "text_projection.weight":
            converted["text_projection"] = tensor.T.contiguous()
        elif ".q_proj." in name:
            kind = name.rpartition(".")[2]
            rows = [state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            converted[ldm.replace(f"q_proj.{kind}", f"in_proj_{kind}")] = torch.cat(rows)
        elif not re.search(r"\.[kv]_proj\.", name):
            converted[ldm] = tensor
    return converted
