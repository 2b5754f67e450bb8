"""Stable Diffusion 2.x: OpenCLIP's text encoder without its last layer, epsilon or v-prediction.

Its folders store 23 of the encoder's 24 layers, so that the last hidden state, after the layer
norm, is the penultimate one that the UNet was trained with; single files store all 24.
"""

from tintype.models.families.family import Family, SingleFile, TextEncoderSpec
from tintype.models.loading.prefixes import TEXT_SD2

SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    pipeline="StableDiffusionPipeline",
    inpaint_pipeline="StableDiffusionInpaintPipeline",
    text_encoders=(
        TextEncoderSpec(
            folder="text_encoder",
            tokenizer="tokenizer",
            transformers_class="CLIPTextModel",
            prefix=TEXT_SD2,
            open_clip=True,
            unused_layers=1,
        ),
    ),
    native_size=768,
    single_file=SingleFile(
        scaling_factor=0.18215,
        sample_size=96,
        unet={"upcast_attention": True},
        guess_prediction=True,
    ),
    train_defaults={
        "dreambooth": {
            "steps": 800,
            "batch_size": 1,
            "learning_rate": 5e-6,
            "prior": {"pictures": 200},
        },
    },
)
