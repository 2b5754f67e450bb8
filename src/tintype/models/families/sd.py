"""Stable Diffusion 1.x: one CLIP text encoder, its last hidden state after the layer norm."""

from tintype.models.families.family import Family, SingleFile, TextEncoderSpec
from tintype.models.loading.prefixes import TEXT_SD1

SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    inpaint_pipeline="StableDiffusionInpaintPipeline",
    text_encoders=(
        TextEncoderSpec(
            folder="text_encoder",
            tokenizer="tokenizer",
            transformers_class="CLIPTextModel",
            prefix=TEXT_SD1,
        ),
    ),
    native_size=512,
    single_file=SingleFile(scaling_factor=0.18215, sample_size=64),
    train_defaults={
        "dreambooth": {
            "steps": 800,
            "batch_size": 1,
            "learning_rate": 5e-6,
            "prior": {"pictures": 200},
        },
    },
)
