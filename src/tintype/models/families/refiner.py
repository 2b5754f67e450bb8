"""The SDXL refiner: SDXL's second text encoder alone, an aesthetic score as a condition."""

from typing import TYPE_CHECKING

from tintype.models.families.family import Conditioning, Family, SingleFile, TextEncoderSpec
from tintype.models.loading.prefixes import TEXT_REFINER

if TYPE_CHECKING:
    from torch import Tensor

    from tintype.models.model import Model

AESTHETIC_SCORE = 6.0
NEGATIVE_AESTHETIC_SCORE = 2.5


def added_conditions(
    model: "Model",
    conditioning: Conditioning,
    sizes: "Tensor",
    negative: "Tensor | None" = None,
) -> dict[str, "Tensor"]:
    """The pooled embedding, the original size and crop, and an aesthetic score in 0..10.

    A UNet made for six numbers takes the target size in place of the score, as SDXL does.
    """
    assert conditioning.pooled is not None, "the refiner's text encoder gives a pooled embedding"
    pooled = conditioning.pooled
    ids = sizes.to(device=pooled.device, dtype=pooled.dtype)
    config = model.unet.config
    taken = config.projection_class_embeddings_input_dim - pooled.shape[-1]
    if taken < 6 * config.addition_time_embed_dim:
        ids = ids[:, :5].clone()
        ids[:, 4] = AESTHETIC_SCORE
        if negative is not None:
            ids[negative.to(ids.device), 4] = NEGATIVE_AESTHETIC_SCORE
    return {"text_embeds": pooled, "time_ids": ids}


REFINER = Family(
    name="sdxl_refiner",
    title="SDXL refiner",
    pipeline="StableDiffusionXLImg2ImgPipeline",
    text_encoders=(
        TextEncoderSpec(
            folder="text_encoder_2",
            tokenizer="tokenizer_2",
            transformers_class="CLIPTextModelWithProjection",
            prefix=TEXT_REFINER,
            layer=-2,
            pooled=True,
            open_clip=True,
        ),
    ),
    native_size=1024,
    single_file=SingleFile(scaling_factor=0.13025, sample_size=128, size_numbers=5),
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
