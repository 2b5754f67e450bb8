"""Stable Diffusion 1.x: one CLIP text encoder, its last hidden state after the layer norm."""

from tintype.models.family import Family, TextEncoderSpec

SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    pipeline="StableDiffusionPipeline",
    text_encoders=(
        TextEncoderSpec(
            folder="text_encoder", tokenizer="tokenizer", transformers_class="CLIPTextModel"
        ),
    ),
    native_size=512,
    train_defaults={"steps": 800, "batch_size": 1, "learning_rate": 5e-6, "class_pictures": 200},
)
