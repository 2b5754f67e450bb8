"""What adapters' files say of a family, and the sizes of its standard model."""

from dataclasses import dataclass, field
from typing import Any

from tintype.errors import ModelError
from tintype.models.families.family import Family

Config = dict[str, Any]
_OPEN_CLIP_G: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
_CLIP_L: Config = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_XL: Config = {
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
}


@dataclass(frozen=True, kw_only=True)
class Standard:
    """A family as adapters' files know it.

    `base_version` is kohya's `ss_base_model_version`, with `base_version_v` for v-prediction;
    `architecture` is ModelSpec's; `sgm_names` says that kohya names its UNet's layers as the
    original code does (input_blocks, …). `text` holds, by folder, ComfyUI's name of each text
    encoder. `unet` and `text_configs` are the configs of the standard model, over the defaults.
    """

    base_version: str
    architecture: str
    text: dict[str, str]
    unet: Config
    text_configs: dict[str, Config]
    sgm_names: bool = False
    base_version_v: str | None = None
    architecture_v: str | None = None
    other_versions: tuple[str, ...] = field(default=())


STANDARDS = {
    "sd1": Standard(
        base_version="sd_v1",
        architecture="stable-diffusion-v1",
        text={"text_encoder": "clip_l"},
        unet={"cross_attention_dim": 768},
        text_configs={"text_encoder": _CLIP_L},
        other_versions=("sd_1.5", "sd1"),
    ),
    "sd2": Standard(
        base_version="sd_v2",
        base_version_v="sd_v2_v",
        architecture="stable-diffusion-v2-512",
        architecture_v="stable-diffusion-v2-768-v",
        text={"text_encoder": "clip_h"},
        unet={
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
        text_configs={
            "text_encoder": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 23,
                "num_attention_heads": 16,
            }
        },
        other_versions=("sd_2.1",),
    ),
    "sdxl": Standard(
        base_version="sdxl_base_v1-0",
        architecture="stable-diffusion-xl-v1-base",
        text={"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
        sgm_names=True,
        unet={
            **_XL,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "projection_class_embeddings_input_dim": 2816,
        },
        text_configs={"text_encoder": _CLIP_L, "text_encoder_2": _OPEN_CLIP_G},
        other_versions=("sdxl_1.0", "sdxl"),
    ),
    "sdxl_refiner": Standard(
        base_version="sdxl_refiner_v1-0",
        architecture="stable-diffusion-xl-v1-refiner",
        text={"text_encoder_2": "clip_g"},
        sgm_names=True,
        unet={
            **_XL,
            "block_out_channels": [384, 768, 1536, 1536],
            "down_block_types": [
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ],
            "up_block_types": [
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D",
                "UpBlock2D",
            ],
            "transformer_layers_per_block": 4,
            "attention_head_dim": [6, 12, 24, 24],
            "cross_attention_dim": 1280,
            "projection_class_embeddings_input_dim": 2560,
        },
        text_configs={"text_encoder_2": _OPEN_CLIP_G},
    ),
}


def standard(family: Family) -> Standard:
    """A family's row; raises ModelError for one whose adapters aren't known here."""
    if family.name not in STANDARDS:
        raise ModelError(
            "has no adapters that are known here",
            field="family",
            value=family.name,
            choices=STANDARDS,
        )
    return STANDARDS[family.name]
