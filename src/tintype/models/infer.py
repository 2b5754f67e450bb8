"""The configs of a single file in the original LDM layout, from the shapes of its tensors.

Shapes give every size. They don't give the numbers of heads and of norm groups, the picture
size or the prediction type: those are the originals' own (8 heads in SD 1.x, 64 channels a head
in SDXL and in CLIP, 32 groups), unless the file's metadata says otherwise: `modelspec.*`
(Stability's ModelSpec), or `tintype.configs`, a JSON object of configs by part.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tintype.errors import WeightsError
from tintype.models.recognise import TEXT_SD1, TEXT_XL_1, TEXT_XL_2, UNET, VAE, Shapes

Config = dict[str, Any]
CONFIGS_KEY = "tintype.configs"
HEAD = 64
SD1_HEADS = 8
SCALING = {"sd1": 0.18215, "sdxl": 0.13025}
SAMPLE_SIZE = {"sd1": 64, "sdxl": 128}
SCHEDULER: Config = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}


def infer_configs(
    family: str, shapes: Shapes, metadata: Mapping[str, str], path: Path
) -> dict[str, Config]:
    """The configs by part, "scheduler" among them; raises WeightsError if a tensor is missing."""
    try:
        if family == "sdxl":
            texts = {
                "text_encoder": clip_config(_under(shapes, TEXT_XL_1)),
                "text_encoder_2": open_clip_config(_under(shapes, TEXT_XL_2)),
            }
        else:
            texts = {"text_encoder": clip_config(_under(shapes, TEXT_SD1))}
        pooled = texts.get("text_encoder_2", {}).get("projection_dim", 0)
        configs = {
            "unet": unet_config(_under(shapes, UNET), pooled),
            "vae": vae_config(_under(shapes, VAE)),
            **texts,
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"lacks tensors that every model of its family has ({error})",
            field="weights",
            value=str(path),
        ) from None
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    configs["unet"]["sample_size"] = _side(metadata, factor) or SAMPLE_SIZE[family]
    configs["vae"]["sample_size"] = configs["unet"]["sample_size"] * factor
    configs["vae"]["scaling_factor"] = SCALING[family]
    configs["scheduler"] = scheduler_config(shapes, metadata)
    return {part: {**config, **_stated(metadata, part, path)} for part, config in configs.items()}


def unet_config(shapes: Shapes, pooled: int) -> Config:
    """A UNet2DConditionModel's config; `pooled` is the width of SDXL's pooled embedding."""
    blocks = 1 + max(int(m[1]) for k in shapes if (m := re.match(r"input_blocks\.(\d+)\.", k)))
    channels: list[int] = []
    depths: list[int] = []
    layers = level_layers = 0
    for i in range(1, blocks):
        if f"input_blocks.{i}.0.op.weight" in shapes:
            level_layers = 0
            continue
        if not level_layers:
            channels.append(shapes[f"input_blocks.{i}.0.in_layers.2.weight"][0])
            depths.append(_count(shapes, rf"input_blocks\.{i}\.1\.transformer_blocks\.(\d+)\."))
        level_layers += 1
        layers = max(layers, level_layers)
    linear = any(k.endswith(".1.proj_in.weight") and len(s) == 2 for k, s in shapes.items())
    heads: int | list[int] = [max(1, c // HEAD) for c in channels] if linear else SD1_HEADS
    widths = [s[1] for k, s in shapes.items() if k.endswith("attn2.to_k.weight")]
    config: Config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in depths[::-1]],
        "transformer_layers_per_block": [d or 1 for d in depths] if max(depths) > 1 else 1,
        "attention_head_dim": heads,
        "norm_num_groups": _groups(channels),
        "cross_attention_dim": widths[0],
        "use_linear_projection": linear,
    }
    added = shapes.get("label_emb.0.0.weight")
    if added:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (added[1] - pooled) // 6,
            "projection_class_embeddings_input_dim": added[1],
        }
    return config


def vae_config(shapes: Shapes) -> Config:
    """An AutoencoderKL's config."""
    levels = _count(shapes, r"encoder\.down\.(\d+)\.")
    channels = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": channels,
        "layers_per_block": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": _groups(channels),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def clip_config(shapes: Shapes) -> Config:
    """A CLIPTextModel's config, from transformers' names, with or without `text_model.`."""
    shapes = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    tokens, width = shapes["embeddings.token_embedding.weight"]
    return {
        **_text_config(tokens, width),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, r"encoder\.layers\.(\d+)\."),
        "hidden_act": "quick_gelu",
        "projection_dim": width,
    }


def open_clip_config(shapes: Shapes) -> Config:
    """A CLIPTextModelWithProjection's config, from OpenCLIP's names."""
    tokens, width = shapes["token_embedding.weight"]
    return {
        **_text_config(tokens, width),
        "max_position_embeddings": shapes["positional_embedding"][0],
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": _count(shapes, r"transformer\.resblocks\.(\d+)\."),
        "hidden_act": "gelu",
        "projection_dim": shapes["text_projection"][1],
    }


def scheduler_config(shapes: Shapes, metadata: Mapping[str, str]) -> Config:
    """The originals' schedule; v-prediction and zero terminal SNR where the file says so."""
    stated = metadata.get("modelspec.prediction_type", "").lower()
    velocity = "v_pred" in shapes or stated in ("v", "v_prediction", "v-prediction")
    config = {**SCHEDULER, "prediction_type": "v_prediction" if velocity else "epsilon"}
    if "ztsnr" in shapes:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def _text_config(tokens: int, width: int) -> Config:
    return {
        "vocab_size": tokens,
        "hidden_size": width,
        "num_attention_heads": max(1, width // HEAD),
        "bos_token_id": tokens - 2,
        "eos_token_id": tokens - 1,
        "pad_token_id": tokens - 1,
    }


def _under(shapes: Shapes, prefix: str) -> Shapes:
    return {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}


def _count(shapes: Shapes, pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


def _groups(channels: list[int]) -> int:
    return math.gcd(32, *channels)


def _side(metadata: Mapping[str, str], factor: int) -> int | None:
    """The latent's side from ModelSpec's "512x512"."""
    found = re.match(r"(\d+)", metadata.get("modelspec.resolution", ""))
    return int(found[1]) // factor if found else None


def _stated(metadata: Mapping[str, str], part: str, path: Path) -> Config:
    try:
        stated = json.loads(metadata.get(CONFIGS_KEY, "{}")).get(part, {})
    except (ValueError, AttributeError):
        stated = None
    if not isinstance(stated, dict):
        raise WeightsError(
            f"its metadata {CONFIGS_KEY} isn't a JSON object of configs",
            field="weights",
            value=str(path),
        )
    return stated
