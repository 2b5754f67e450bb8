"""pocket-xl: SDXL's layout in small, with two text encoders, a pooled embedding and time ids."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from . import clip, tokenizer, training, unet, vae
from .cache import SIZES, SQUARE, Latents, Size, scaling_factor, token_ids
from .fit import Plan, fit

NARROW, IDS = 128, 32  # width of the first text encoder; sinusoids for each of the six time ids
LEVELS = (64, 96)


def first_encoder(work: Path) -> CLIPTextModel:
    """Build the narrow first text encoder; it is trained together with the UNet."""
    tokens = tokenizer.load(work)
    config = CLIPTextConfig(
        hidden_size=NARROW,
        intermediate_size=4 * NARROW,
        num_attention_heads=2,
        num_hidden_layers=2,
        projection_dim=NARROW,
        vocab_size=len(tokens),
        max_position_embeddings=tokenizer.LENGTH,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return CLIPTextModel(config)


def second_encoder(work: Path) -> CLIPTextModelWithProjection:
    """Return pocket-clip's text encoder with its projection, frozen."""
    whole = clip.load(work)
    model = CLIPTextModelWithProjection(whole.config.text_config)
    model.text_model.load_state_dict(whole.text_model.state_dict())
    model.text_projection.load_state_dict(whole.text_projection.state_dict())
    return model.eval().requires_grad_(False)


def denoiser() -> UNet2DConditionModel:
    """Build the UNet: SDXL's conditioning, two small levels."""
    return UNet2DConditionModel(
        sample_size=SQUARE[0] // vae.FACTOR,
        in_channels=vae.LATENTS,
        out_channels=vae.LATENTS,
        block_out_channels=LEVELS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=NARROW + clip.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=IDS,
        projection_class_embeddings_input_dim=clip.WIDTH + 6 * IDS,
    )


class Both(nn.Module):
    """What is trained: the first text encoder and the UNet."""

    def __init__(self, work: Path) -> None:
        super().__init__()
        self.text_encoder, self.unet = first_encoder(work), denoiser()

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        second: Tensor,
        ids: Tensor,
        told: Tensor,
        added: dict[str, Tensor],
    ) -> Tensor:
        """Predict the velocity.

        `second` is the second encoder's penultimate layer; zeros stand for prompts that `told` (n,)
        marks as empty, as SDXL's own pipeline has them.
        """
        states = self.text_encoder(ids, output_hidden_states=True).hidden_states
        words = torch.cat([states[-2], second], -1) * told[:, None, None]
        return self.unet(noisy, t, words, added_cond_kwargs=added).sample


def time_ids(size: Size, count: int, where: torch.device) -> Tensor:
    """Return original height, width, crop top, left, target height, width (n, 6)."""
    width, height = size
    return torch.tensor([[height, width, 0, 0, height, width]], device=where).expand(count, -1)


def train(work: Path, minutes: float, batch: int, sizes: tuple[Size, ...] = SIZES) -> None:
    """Train WORK/xl.pt from scratch; every second batch is of another size than 128 x 128 px."""
    where, every = training.device(), (SQUARE, *sizes)
    latents, ids = Latents(work, where, every, 41), token_ids(work).to(where)
    second, alphas = second_encoder(work).to(where), unet.scheduler().alphas_cumprod.to(where)

    def loss_of(model: nn.Module, count: int, step: int, progress: float) -> Tensor:
        x, rows = latents.batch(count, step)
        tokens = ids[rows].long()
        with torch.no_grad(), training.autocast():
            out = second(tokens, output_hidden_states=True)
        size = (x.shape[3] * vae.FACTOR, x.shape[2] * vae.FACTOR)
        told = (rows > 0).float()
        added = {
            "text_embeds": out.text_embeds.float() * told[:, None],
            "time_ids": time_ids(size, count, where),
        }
        hidden = out.hidden_states[-2].float()
        return unet.velocity_loss(model, x, hidden, alphas, ids=tokens, told=told, added=added)

    fit(Plan(name="xl", minutes=minutes, batch=batch), work, Both(work).to(where), loss_of)


def pipeline(work: Path) -> StableDiffusionXLPipeline:
    """Assemble the pipeline from WORK/xl.pt, in float32."""
    both = Both(work)
    both.load_state_dict(training.need(work / "xl.pt")["ema"])
    coder = vae.load(work)
    coder.register_to_config(scaling_factor=scaling_factor(work), force_upcast=False)
    words = tokenizer.load(work)
    return StableDiffusionXLPipeline(
        vae=coder,
        text_encoder=both.text_encoder.eval(),
        text_encoder_2=second_encoder(work),
        tokenizer=words,
        tokenizer_2=words,
        unet=both.unet.eval(),
        scheduler=unet.scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
