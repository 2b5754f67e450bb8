"""pocket-xl: SDXL's layout in small, with two text encoders, a pooled embedding and time ids.

It begins as the base: the same UNet, which reads the second text encoder, and doesn't listen to
the first, to the pooled embedding and to the time ids until it has learnt to.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from . import clip, tokenizer, training, unet, vae
from .cache import SIZES, SQUARE, Latents, Size, scaling_factor, token_ids
from .fit import Plan, fit

NARROW, IDS = 64, 32  # width of the first text encoder; sinusoids for each of the six time ids
CAPTIONS = 1024  # that the step from the last hidden states to the penultimate is fitted to


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
    """Return pocket-clip's text encoder with its projection, frozen.

    A layer that changes nothing comes last, for SDXL reads the one before.
    """
    whole = clip.load(work)
    config = deepcopy(whole.config.text_config)
    config.num_hidden_layers += 1
    model = CLIPTextModelWithProjection(config)
    model.text_model.load_state_dict(whole.text_model.state_dict(), strict=False)
    model.text_projection.load_state_dict(whole.text_projection.state_dict())
    for part in model.text_model.encoder.layers[-1].modules():
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    return model.eval().requires_grad_(False)


def denoiser() -> UNet2DConditionModel:
    """Build the UNet: the base's levels, SDXL's conditioning."""
    return UNet2DConditionModel(
        sample_size=SQUARE[0] // vae.FACTOR,
        in_channels=vae.LATENTS,
        out_channels=vae.LATENTS,
        block_out_channels=unet.LEVELS,
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


@torch.no_grad()
def _last_from_penultimate(work: Path) -> tuple[Tensor, Tensor]:
    """Fit the text encoder's output as matrix @ penultimate + offset, over tokens of captions."""
    ids = token_ids(work)
    ids = ids[:: max(len(ids) // CAPTIONS, 1)].long()
    out = second_encoder(work)(ids, output_hidden_states=True)
    x, y = out.hidden_states[-2].flatten(0, 1), out.last_hidden_state.flatten(0, 1)
    ones = torch.ones(len(x), 1)
    solved = torch.linalg.lstsq(torch.cat([x, ones], 1), y).solution
    return solved[:-1].T, solved[-1]


@torch.no_grad()
def begin(work: Path, base: UNet2DConditionModel) -> UNet2DConditionModel:
    """Build the UNet with the base's weights, reading the second text encoder in its place."""
    matrix, offset = _last_from_penultimate(work)
    model, old = denoiser(), base.state_dict()
    state = model.state_dict()
    for name, value in old.items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            state[name][:, :NARROW] = 0
            state[name][:, NARROW:] = value @ matrix
        else:  # a projection by 1x1 convolutions is one by matrices here
            state[name].copy_(value.reshape(state[name].shape))
    for name in (n for n in old if n.endswith("attn2.to_v.weight")):
        out = name.replace("to_v.weight", "to_out.0")  # of keys, the offset would change nothing
        state[f"{out}.bias"] += old[f"{out}.weight"] @ (old[name] @ offset)
    for part in ("weight", "bias"):
        state[f"add_embedding.linear_2.{part}"].zero_()
    return model


class Both(nn.Module):
    """What is trained: the first text encoder and the UNet."""

    def __init__(self, text_encoder: CLIPTextModel, denoiser: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, denoiser

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
    """Train WORK/xl.pt from the base; every third batch is of another size than 128 x 128 px."""
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

    both = Both(first_encoder(work), begin(work, unet.load(work))).to(where)
    unet.attend_plainly(both.unet)
    plan = Plan(name="xl", minutes=minutes, batch=batch, peak=5e-4, ema=0.998, muon=True)
    fit(plan, work, both, loss_of)


def pipeline(work: Path) -> StableDiffusionXLPipeline:
    """Assemble the pipeline from WORK/xl.pt, in float32."""
    both = Both(first_encoder(work), denoiser())
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
