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


def left_out(model: Model, prompt: str) -> str:
    """The end of a prompt that is too long for the model's first tokenizer; "" if it fits."""
    tokenizer = model.tokenizers[0]
    # a token stands for one byte or more, between a start and an end
    if len(prompt.encode()) + 2 <= tokenizer.model_max_length:
        return ""
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    rest: str = tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1])
    return rest.strip()


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
    """Prompts to a Conditioning, without gradients; equal prompts are encoded once."""
    unique = list(dict.fromkeys(prompts))
    with torch.no_grad():
        conditioning = encode_tokens(model, tokenize(model, unique))
    if len(unique) == len(prompts):
        return conditioning
    return conditioning[torch.tensor([unique.index(prompt) for prompt in prompts])]


def encode_negative(model: Model, prompts: list[str]) -> Conditioning:
    """Negative prompts; a family trained so takes zeros in place of each empty one."""
    conditioning = encode(model, prompts)
    zeros = model.extra_config.get(
        "force_zeros_for_empty_prompt", model.family.zeros_for_empty_negative
    )
    if not zeros or all(prompts):
        return conditioning
    kept = torch.tensor([bool(prompt) for prompt in prompts], device=conditioning.tokens.device)
    pooled = conditioning.pooled
    return Conditioning(
        tokens=conditioning.tokens * kept[:, None, None],
        pooled=None if pooled is None else pooled * kept[:, None],
    )
