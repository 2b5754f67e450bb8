"""SDXL: two text encoders side by side, a pooled embedding and the sizes as conditions."""

from typing import TYPE_CHECKING

from tintype.models.families.family import Conditioning, Family, SingleFile, TextEncoderSpec
from tintype.models.loading.prefixes import TEXT_XL_1, TEXT_XL_2

if TYPE_CHECKING:
    from torch import Tensor

    from tintype.models.model import Model

# SDXL's sizes in training, width and height in px (arXiv:2307.01952, appendix I)
_SIDES = (
    (512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664),
    (640, 1600), (640, 1536), (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280),
    (832, 1216), (832, 1152), (896, 1152), (896, 1088), (960, 1088), (960, 1024),
)  # fmt: skip
BUCKETS = (*_SIDES, (1024, 1024), *((height, width) for width, height in reversed(_SIDES)))


def added_conditions(
    model: "Model",
    conditioning: Conditioning,
    sizes: "Tensor",
    negative: "Tensor | None" = None,
) -> dict[str, "Tensor"]:
    """The pooled embedding and the six size numbers (SDXL, arXiv:2307.01952, section 2.2)."""
    assert conditioning.pooled is not None, "SDXL's second text encoder gives a pooled embedding"
    pooled = conditioning.pooled
    return {"text_embeds": pooled, "time_ids": sizes.to(device=pooled.device, dtype=pooled.dtype)}


SDXL = Family(
    name="sdxl",
    title="SDXL",
    pipeline="StableDiffusionXLPipeline",
    inpaint_pipeline="StableDiffusionXLInpaintPipeline",
    text_encoders=(
        TextEncoderSpec(
            folder="text_encoder",
            tokenizer="tokenizer",
            transformers_class="CLIPTextModel",
            prefix=TEXT_XL_1,
            layer=-2,
        ),
        TextEncoderSpec(
            folder="text_encoder_2",
            tokenizer="tokenizer_2",
            transformers_class="CLIPTextModelWithProjection",
            prefix=TEXT_XL_2,
            layer=-2,
            pooled=True,
            open_clip=True,
        ),
    ),
    native_size=1024,
    single_file=SingleFile(scaling_factor=0.13025, sample_size=128),
    buckets=BUCKETS,
    zeros_for_empty_negative=True,
    align_your_steps="StableDiffusionXL",
    added_conditions=added_conditions,
    train_defaults={
        "dreambooth": {
            "steps": 800,
            "batch_size": 1,
            "learning_rate": 2e-6,
            "prior": {"pictures": 200},
        },
    },
)
