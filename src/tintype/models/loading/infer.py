"""The configs of a single file in the original LDM layout, from the shapes of its tensors.

Shapes give every size. They don't give the numbers of heads and of norm groups, the picture
size or the prediction type: those are the originals' own (8 heads in SD 1.x, 64 channels a head
in SD 2.x, SDXL and CLIP, 32 groups), unless the file's metadata says otherwise: `modelspec.*`
(Stability's ModelSpec), or `tintype.configs`, a JSON object of configs by part.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tintype.errors import WeightsError
from tintype.models.families.family import Family, TextEncoderSpec
from tintype.models.families.registry import family
from tintype.models.loading.prefixes import UNET, VAE
from tintype.models.loading.recognise import Shapes

Config = dict[str, Any]
CONFIGS_KEY = "tintype.configs"
INDEX = "model_index"
HEAD = 64
SD1_HEADS = 8
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
# tensors that say by their names alone what a model predicts
VELOCITY, ZERO_SNR, EDM_VELOCITY = "v_pred", "ztsnr", "edm_vpred.sigma_max"
# Playground v2.5: what is taken from each channel of the latents, and their spread
EDM_MEAN, EDM_STD = "edm_mean", "edm_std"
EDM_SCALING = 0.5
EDM_SCHEDULER: Config = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "sigma_schedule": "karras",
}
COSINE_EDM_SCHEDULER: Config = {
    "_class_name": "EDMEulerScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_data": 1.0,
    "sigma_max": 120.0,
    "sigma_min": 0.002,
    "sigma_schedule": "exponential",
}


def infer_configs(
    name: str, shapes: Shapes, metadata: Mapping[str, str], path: Path
) -> dict[str, Config]:
    """The configs by part, of a file of the family of that name; "scheduler" and "model_index",
    the pipeline's own options, are among them.

    Raises WeightsError if a tensor is missing.
    """
    row = family(name)
    try:
        texts = {
            spec.folder: _text(spec, _under(shapes, spec.prefix)) for spec in row.text_encoders
        }
        pooled = [texts[spec.folder]["projection_dim"] for spec in row.text_encoders if spec.pooled]
        configs = {
            "unet": unet_config(
                _under(shapes, UNET), sum(pooled), numbers=row.single_file.size_numbers
            ),
            "vae": vae_config(_under(shapes, VAE)),
            **texts,
        }
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"lacks tensors that every model of its family has ({error})",
            field="weights",
            value=str(path),
        ) from None
    _add_what_shapes_leave_out(configs, row, shapes, metadata)
    return {part: {**config, **_stated(metadata, part, path)} for part, config in configs.items()}


def _add_what_shapes_leave_out(
    configs: dict[str, Config], row: Family, shapes: Shapes, metadata: Mapping[str, str]
) -> None:
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    side = _side(metadata, factor) or row.single_file.sample_size
    configs["unet"] |= {**row.single_file.unet, "sample_size": side}
    scaling = EDM_SCALING if EDM_MEAN in shapes else row.single_file.scaling_factor
    configs["vae"] |= {"sample_size": side * factor, "scaling_factor": scaling}
    configs["scheduler"] = scheduler_config(row, shapes, metadata)
    configs[INDEX] = {"force_zeros_for_empty_prompt": row.zeros_for_empty_negative}


def unet_config(shapes: Shapes, pooled: int, *, numbers: int) -> Config:
    """A UNet2DConditionModel's config; `pooled` is the width of SDXL's pooled embedding, beside
    which it takes so many `numbers`."""
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
    if not depths[-1]:
        # the middle has as many as the config says of the last level, be that without attention
        depths[-1] = -_count(shapes, r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    linear = any(k.endswith(".1.proj_in.weight") and len(s) == 2 for k, s in shapes.items())
    heads: int | list[int] = [max(1, c // HEAD) for c in channels] if linear else SD1_HEADS
    widths = [s[1] for k, s in shapes.items() if k.endswith("attn2.to_k.weight")]
    config: Config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if d > 0 else "DownBlock2D" for d in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if d > 0 else "UpBlock2D" for d in depths[::-1]],
        "transformer_layers_per_block": [abs(d) or 1 for d in depths] if max(depths) > 1 else 1,
        "attention_head_dim": heads,
        "norm_num_groups": _groups(channels),
        "cross_attention_dim": widths[0],
        "use_linear_projection": linear,
    }
    added = shapes.get("label_emb.0.0.weight")
    if added:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (added[1] - pooled) // numbers,
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


def open_clip_config(shapes: Shapes, unused_layers: int) -> Config:
    """A CLIP text model's config, from OpenCLIP's names, without its last layers."""
    tokens, width = shapes["token_embedding.weight"]
    return {
        **_text_config(tokens, width),
        "max_position_embeddings": shapes["positional_embedding"][0],
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": _count(shapes, r"transformer\.resblocks\.(\d+)\.") - unused_layers,
        "hidden_act": "gelu",
        "projection_dim": shapes.get("text_projection", (width, width))[1],
    }


def scheduler_config(row: Family, shapes: Shapes, metadata: Mapping[str, str]) -> Config:
    """The originals' schedule; v-prediction and zero terminal SNR where the file says so."""
    stated = stated_prediction(shapes, metadata)
    if stated == "edm":
        return dict(EDM_SCHEDULER if EDM_MEAN in shapes else COSINE_EDM_SCHEDULER)
    fallback = "v_prediction" if row.single_file.guess_prediction else "epsilon"
    config = {**SCHEDULER, "prediction_type": stated or fallback}
    if ZERO_SNR in shapes:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return config


def stated_prediction(shapes: Shapes, metadata: Mapping[str, str]) -> str | None:
    """What the file itself says that its UNet predicts; None if it doesn't say."""
    if EDM_MEAN in shapes or EDM_VELOCITY in shapes:
        return "edm"
    stated = metadata.get("modelspec.prediction_type", "").lower().replace("-", "_")
    if VELOCITY in shapes or stated in ("v", "v_prediction"):
        return "v_prediction"
    return "epsilon" if stated in ("epsilon", "eps") else None


def _text(spec: TextEncoderSpec, shapes: Shapes) -> Config:
    return open_clip_config(shapes, spec.unused_layers) if spec.open_clip else clip_config(shapes)


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
