"""SDXL: two text encoders side by side, a pooled embedding and the sizes as conditions."""

from typing import TYPE_CHECKING

from tintype.models.family import Conditioning, Family, TextEncoderSpec

if TYPE_CHECKING:
    from torch import Tensor

    from tintype.models.model import Model


def added_conditions(
    model: "Model", conditioning: Conditioning, sizes: "Tensor"
) -> dict[str, "Tensor"]:
    """The pooled embedding and the six size numbers (SDXL, arXiv:2307.01952, section 2.2)."""
    assert conditioning.pooled is not None, "SDXL's second text encoder gives a pooled embedding"
    pooled = conditioning.pooled
    return {"text_embeds": pooled, "time_ids": sizes.to(device=pooled.device, dtype=pooled.dtype)}


SDXL = Family(
    name="sdxl",
    title="SDXL",
    pipeline="StableDiffusionXLPipeline",
    text_encoders=(
        TextEncoderSpec(
            folder="text_encoder",
            tokenizer="tokenizer",
            transformers_class="CLIPTextModel",
            layer=-2,
        ),
        TextEncoderSpec(
            folder="text_encoder_2",
            tokenizer="tokenizer_2",
            transformers_class="CLIPTextModelWithProjection",
            layer=-2,
            pooled=True,
        ),
    ),
    native_size=1024,
    zeros_for_empty_negative=True,
    added_conditions=added_conditions,
    train_defaults={"steps": 800, "batch_size": 1, "learning_rate": 2e-6, "class_pictures": 200},
)
