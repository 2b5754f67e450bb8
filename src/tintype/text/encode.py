"""Prompts to the embeddings that condition a UNet, for any family."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tintype.errors import InputError
from tintype.models.embeddings.embeddings import expand
from tintype.models.families.family import Conditioning, TextEncoderSpec
from tintype.models.model import Model
from tintype.runtime.memory import visiting
from tintype.text.chunks import Chunk, chunks, empty_chunk
from tintype.text.grammar import Sections

CHUNKS_AT_ONCE = 32
ROUNDING = 1e-6


def tokenize(model: Model, prompts: list[str]) -> tuple[Tensor, ...]:
    """Token ids [batch, length], one tensor a tokenizer; longer prompts are cut."""
    return tuple(
        tokenizer(
            [expand(tokenizer, prompt) for prompt in prompts],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for tokenizer in model.tokenizers
    )


def encode_tokens(model: Model, ids: tuple[Tensor, ...]) -> Conditioning:
    """Token ids to a Conditioning; gradients flow if the caller allows them."""
    encoders = zip(model.family.text_encoders, model.text_encoders, ids, strict=True)
    found = [_run(spec, encoder, some, None) for spec, encoder, some in encoders]
    return Conditioning(
        tokens=torch.cat([tokens for tokens, _ in found], dim=-1), pooled=_last(p for _, p in found)
    )


def encode(model: Model, prompts: list[str]) -> Conditioning:
    """Plain prompts to a Conditioning, without gradients; equal prompts are encoded once."""
    unique = list(dict.fromkeys(prompts))
    with torch.no_grad():
        conditioning = encode_tokens(model, tokenize(model, unique))
    if len(unique) == len(prompts):
        return conditioning
    return conditioning[torch.tensor([unique.index(prompt) for prompt in prompts])]


@dataclass(frozen=True)
class _Encoded:
    """A chunk's hidden states [length, width], and its pooled embedding [width] if it has one."""

    tokens: Tensor
    pooled: Tensor | None


class EmbeddingCache:
    """The chunks encoded last, by text encoder and token ids; the oldest is dropped.

    Weights that change are not noticed: keep a cache no longer than the weights stay, or name in
    `encode_sections(state=…)` what changes them.
    """

    def __init__(self, size: int = 256) -> None:
        self.size, self.hits, self.misses = size, 0, 0
        self._kept: OrderedDict[Hashable, _Encoded] = OrderedDict()

    def get(self, key: Hashable) -> _Encoded | None:
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, value: _Encoded) -> None:
        self._kept[key] = value
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)


def count_chunks(model: Model, sections: Sections) -> int:
    """How many chunks this text needs, in the tokenizer that needs most."""
    return max(len(chunks(tokenizer, sections)) for tokenizer in model.tokenizers)


def encode_sections(
    model: Model,
    prompts: Sequence[Sections],
    *,
    length: int,
    clip_skip: int | None = None,
    cache: EmbeddingCache | None = None,
    state: Hashable = (),
) -> Conditioning:
    """Weighted prompts to a Conditioning of `length` chunks each, without gradients.

    A shorter prompt is filled with empty chunks. Hidden states are multiplied by the weights of
    their tokens, and each chunk then brought back to the mean that it had. The pooled embedding is
    that of the first chunk, without weights. `clip_skip` n takes the n-th last layer where the
    family takes an earlier one; `state` tells apart what `cache` holds of changed encoders.
    An encoder that lies elsewhere visits the UNet's device. Raises InputError for more layers than
    there are.
    """
    check_clip_skip(model, clip_skip)
    columns: list[Tensor] = []
    pooled: Tensor | None = None
    parts = zip(model.family.text_encoders, model.text_encoders, model.tokenizers, strict=True)
    cache = cache or EmbeddingCache()
    for spec, encoder, tokenizer in parts:
        filling = empty_chunk(tokenizer)
        rows = [list(chunks(tokenizer, sections)) for sections in prompts]
        rows = [row + [filling] * (length - len(row)) for row in rows]
        key = (encoder, model.device, encoder.dtype, clip_skip, state)
        encoded = _encoded(spec, encoder, rows, clip_skip, cache, key, model.device)
        tokens = [
            torch.cat([_weighted(encoded[chunk.ids].tokens, chunk) for chunk in row])
            for row in rows
        ]
        columns.append(torch.stack(tokens))
        first = [encoded[row[0].ids].pooled for row in rows]
        pooled = torch.stack([one for one in first if one is not None]) if spec.pooled else pooled
    return Conditioning(tokens=torch.cat(columns, dim=-1), pooled=pooled)


def zeros_for_empty(model: Model) -> bool:
    """Whether the model was trained with zeros in place of an empty negative prompt."""
    default = model.family.zeros_for_empty_negative
    return bool(model.extra_config.get("force_zeros_for_empty_prompt", default))


def check_clip_skip(model: Model, clip_skip: int | None) -> None:
    """Raises InputError for a layer that one of the text encoders doesn't have."""
    layers = min(int(encoder.config.num_hidden_layers) for encoder in model.text_encoders)
    if clip_skip is not None and clip_skip > layers:
        raise InputError(
            f"the text encoder of model {model.card.id!r} has {layers} layers",
            field="clip_skip",
            value=clip_skip,
            choices=range(1, layers + 1),
        )


def _encoded(
    spec: TextEncoderSpec,
    encoder: Any,
    rows: Sequence[Sequence[Chunk]],
    clip_skip: int | None,
    cache: EmbeddingCache,
    key: tuple[Hashable, ...],
    device: torch.device,
) -> dict[tuple[int, ...], _Encoded]:
    """Every chunk by its ids, from the cache or else from the encoder."""
    wanted = dict.fromkeys(chunk.ids for row in rows for chunk in row)
    found = {ids: cache.get((*key, ids)) for ids in wanted}
    missing = [ids for ids, value in found.items() if value is None]
    known = {ids: value for ids, value in found.items() if value is not None}
    for start in range(0, len(missing), CHUNKS_AT_ONCE):
        some = missing[start : start + CHUNKS_AT_ONCE]
        with torch.no_grad(), visiting(encoder, device):
            tokens, pooled = _run(spec, encoder, torch.tensor(some), clip_skip)
        for row, ids in enumerate(some):
            known[ids] = _Encoded(tokens[row], None if pooled is None else pooled[row])
            cache.put((*key, ids), known[ids])
    return known


def _run(
    spec: TextEncoderSpec, encoder: Any, ids: Tensor, clip_skip: int | None
) -> tuple[Tensor, Tensor | None]:
    """The hidden states [batch, length, width] that condition the UNet, and the pooled embedding.

    A family that takes the last layer takes it after the final layer norm, whichever is last then.
    """
    own = 1 if spec.layer is None else -spec.layer
    layer = max(own, clip_skip or own)
    plain = spec.layer is None and layer == own
    out = encoder(ids.to(encoder.device), output_hidden_states=not plain)
    pooled = out.text_embeds if spec.pooled else None
    if plain:
        return out[0], pooled
    tokens = out.hidden_states[-layer]
    if spec.layer is None:
        tokens = getattr(encoder, "text_model", encoder).final_layer_norm(tokens)
    return tokens, pooled


def _weighted(tokens: Tensor, chunk: Chunk) -> Tensor:
    """Hidden states [length, width] times their weights, with the mean of before."""
    if not chunk.weighted:
        return tokens
    weights = torch.tensor(chunk.weights, device=tokens.device)
    exact = tokens.float()
    scaled = exact * weights[:, None]
    before, after = exact.mean(), scaled.mean()
    # a mean that is nothing but rounding can't be brought back
    least = ROUNDING * exact.abs().mean()
    lost = (before.abs() <= least) | (after.abs() <= least)
    return (scaled * torch.where(lost, 1.0, before / after)).to(tokens.dtype)


def _last(found: Iterable[Tensor | None]) -> Tensor | None:
    kept = [one for one in found if one is not None]
    return kept[-1] if kept else None
