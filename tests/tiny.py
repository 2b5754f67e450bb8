"""Small random-weight models of the true layouts, made on the fly, in diffusers' folders."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EDMDPMSolverMultistepScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

MERGES = ["s k", "sk s</w>", "d o", "do g</w>", "c a", "ca t</w>"]
LENGTH = 24


def tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with six merges: `sks`, `dog` and `cat` are one token each."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [merge.replace(" ", "") for merge in MERGES]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    merges = [tuple(merge.split()) for merge in MERGES]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def text_config(tokens: CLIPTokenizer, width: int, **extra: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        **extra,
    )


def vae(**extra: Any) -> AutoencoderKL:
    """Factor 8, 4 latent channels."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        **extra,
    )


def scheduler(**extra: Any) -> DDIMScheduler:
    """Stable Diffusion's own noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **extra,
    )


ddim = scheduler


def unet(cross_attention_dim: int, **extra: Any) -> UNet2DConditionModel:
    """8x8 latents (64 px)."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        **extra,
    )


def save_sd(
    folder: Path,
    seed: int = 0,
    *,
    inpaint: bool = False,
    time_cond_proj_dim: int | None = None,
    **scheduler_extra: Any,
) -> Path:
    """A random Stable Diffusion 1.x in `folder`, or one for inpainting, of 9 channels."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    pipeline = (StableDiffusionInpaintPipeline if inpaint else StableDiffusionPipeline)(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(tokens, 16)),
        tokenizer=tokens,
        unet=unet(
            16,
            attention_head_dim=4,
            time_cond_proj_dim=time_cond_proj_dim,
            **_channels(inpaint),
        ),
        scheduler=scheduler(**scheduler_extra),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_sd2(
    folder: Path,
    seed: int = 0,
    *,
    prediction_type: str = "v_prediction",
    inpaint: bool = False,
    **scheduler_extra: Any,
) -> Path:
    """A random Stable Diffusion 2.x in `folder`: linear projections, OpenCLIP's activation."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    tokens.pad_token = "!"
    pipeline = (StableDiffusionInpaintPipeline if inpaint else StableDiffusionPipeline)(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(tokens, 16, hidden_act="gelu")),
        tokenizer=tokens,
        unet=unet(16, attention_head_dim=(2, 4), use_linear_projection=True, **_channels(inpaint)),
        scheduler=scheduler(prediction_type=prediction_type, **scheduler_extra),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_inpaint(folder: Path, family: str = "sd1", seed: int = 0) -> Path:
    """A random inpainting model of 9 channels, of "sd1", "sd2" or "sdxl"."""
    save = {"sd1": save_sd, "sd2": save_sd2, "sdxl": save_sdxl}[family]
    return save(folder, seed, inpaint=True)


def save_sdxl(
    folder: Path,
    seed: int = 0,
    *,
    inpaint: bool = False,
    vae_extra: dict[str, Any] | None = None,
    scheduler: Any = None,
    zeros_for_empty_prompt: bool = True,
    **scheduler_extra: Any,
) -> Path:
    """A random SDXL in `folder`; the two text encoders have different widths, as they must."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    pipeline = (StableDiffusionXLInpaintPipeline if inpaint else StableDiffusionXLPipeline)(
        vae=vae(**(vae_extra or {})),
        text_encoder=CLIPTextModel(text_config(tokens, 16)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokens, 32, projection_dim=32)),
        tokenizer=tokens,
        tokenizer_2=tokens,
        unet=unet(
            48,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            transformer_layers_per_block=(1, 2),
            **_channels(inpaint),
        ),
        scheduler=scheduler or ddim(**scheduler_extra),
        force_zeros_for_empty_prompt=zeros_for_empty_prompt,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_edm(folder: Path, seed: int = 0) -> Path:
    """A random SDXL in EDM's parametrisation, its latents shifted and scaled by channel."""
    return save_sdxl(
        folder,
        seed,
        vae_extra={
            "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
            "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
            "scaling_factor": 0.5,
        },
        scheduler=EDMDPMSolverMultistepScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5),
    )


def save_refiner(folder: Path, seed: int = 0) -> Path:
    """A random SDXL refiner: the second text encoder alone, an aesthetic score as a condition."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    pipeline = StableDiffusionXLImg2ImgPipeline(
        vae=vae(),
        text_encoder=None,
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokens, 32, projection_dim=32)),
        tokenizer=None,
        tokenizer_2=tokens,
        unet=unet(
            32,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=5 * 8 + 32,
            transformer_layers_per_block=2,
        ),
        scheduler=scheduler(),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def _channels(inpaint: bool) -> dict[str, int]:
    return {"in_channels": 9, "out_channels": 4} if inpaint else {}


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A random CLIP of 32 px in `folder`."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    text = text_config(tokens, 16).to_dict()
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    ).to_dict()
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
