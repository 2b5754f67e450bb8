"""Prompts to the embeddings that condition a UNet, for any family."""

import torch

from tintype.models.family import Conditioning
from tintype.models.model import Model


def tokenize(model: Model, prompts: list[str]) -> tuple[torch.Tensor, ...]:
    """Token ids [batch, length], one tensor a tokenizer; longer prompts are cut."""
    return tuple(
        tokenizer(
            prompts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for tokenizer in model.tokenizers
    )


def encode_tokens(model: Model, ids: tuple[torch.Tensor, ...]) -> Conditioning:
    """Token ids to a Conditioning; gradients flow if the caller allows them."""
    tokens, pooled = [], None
    encoders = zip(model.family.text_encoders, model.text_encoders, ids, strict=True)
    for spec, encoder, encoder_ids in encoders:
        out = encoder(encoder_ids.to(encoder.device), output_hidden_states=spec.layer is not None)
        tokens.append(out[0] if spec.layer is None else out.hidden_states[spec.layer])
        if spec.pooled:
            pooled = out.text_embeds
    return Conditioning(tokens=torch.cat(tokens, dim=-1), pooled=pooled)


def encode(model: Model, prompts: list[str]) -> Conditioning:
    """Prompts to a Conditioning, without gradients."""
    with torch.no_grad():
        return encode_tokens(model, tokenize(model, prompts))


def encode_negative(model: Model, prompts: list[str]) -> Conditioning:
    """Negative prompts; families trained so take zeros where all of them are empty."""
    conditioning = encode(model, prompts)
    zeros = model.extra_config.get(
        "force_zeros_for_empty_prompt", model.family.zeros_for_empty_negative
    )
    if not zeros or any(prompts):
        return conditioning
    pooled = None if conditioning.pooled is None else torch.zeros_like(conditioning.pooled)
    return Conditioning(tokens=torch.zeros_like(conditioning.tokens), pooled=pooled)
