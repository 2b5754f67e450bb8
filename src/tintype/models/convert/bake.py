"""Adapters, trained tensors and words made part of a stored model, tensor by tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tintype.errors import WeightsError
from tintype.models.adapters.adapter import Part
from tintype.models.adapters.apply import Weighted, weight_for
from tintype.models.adapters.delta import change
from tintype.models.adapters.targets import check_fits, targets_of
from tintype.models.convert.tensors import Lazy
from tintype.models.embeddings.embeddings import Embedding, embed

if TYPE_CHECKING:
    from tintype.models.convert.stored import StoredModel

Tensors = dict[str, dict[str, Lazy]]
TOKENS = "embeddings.token_embedding.weight"


def bake(
    source: "StoredModel", adapters: Sequence[Weighted], *, wide: bool = False
) -> "StoredModel":
    """The model with these adapters merged in, each with its weight, as `adapters.apply` would.

    All are computed from the weights before any, in float32, and the sum is rounded once, to
    what the tensor is stored in, or with `wide` not at all. Raises WeightsError for an adapter
    that doesn't fit the model; making a tensor raises it for weights that aren't finite.
    """
    targets = targets_of(source.model)
    shares: dict[tuple[str, str], list[tuple[Part, float]]] = {}
    for adapter, weight in adapters:
        check_fits(adapter, targets)
        for part in adapter.parts:
            strength = weight_for(weight, part.component)
            for layer in part.layers if strength else ():
                shares.setdefault((part.component, layer), []).append((part, strength))
    tensors = _copied(source)
    for (component, layer), own in shares.items():
        entry = tensors[component][f"{layer}.weight"]
        tensors[component][f"{layer}.weight"] = _changed(entry, layer, own, wide)
    return replace(source, tensors=tensors)


def overlay(source: "StoredModel", state: Mapping[str, Tensor], path: Path) -> "StoredModel":
    """The model with whole tensors ("unet.conv_in.weight") in the place of its own.

    They are stored as those before them were. Raises WeightsError for one that it doesn't have.
    """
    tensors = _copied(source)
    for name, tensor in state.items():
        component, _, own = name.partition(".")
        before = tensors.get(component, {}).get(own)
        if before is None or before.shape != tuple(tensor.shape):
            raise WeightsError(
                f"tensor {name} of shape {list(tensor.shape)} isn't of this base model, "
                f"{source.model.card.id}",
                field="weights",
                value=str(path),
            )
        tensors[component][own] = Lazy.of(tensor.to(before.dtype))
    return replace(source, tensors=tensors)


def speak(source: "StoredModel", embeddings: Sequence[Embedding]) -> "StoredModel":
    """The model with these words in its tokenizers and text encoders.

    Changes the parts without storage of `source.model`. Raises as `embeddings.embed`.
    """
    added = embed(source.model, embeddings)
    tensors = _copied(source)
    specs = source.model.family.text_encoders
    for spec, encoder in zip(specs, source.model.text_encoders, strict=True):
        name = next(name for name in tensors[spec.folder] if name.endswith(TOKENS))
        rows = {
            number: vector
            for word in embeddings
            for number, vector in zip(
                added.ids[word.token][spec.folder], word.vectors[spec.folder], strict=True
            )
        }
        size = encoder.config.vocab_size
        tensors[spec.folder][name] = _longer(tensors[spec.folder][name], size, rows)
    return replace(source, tensors=tensors)


def _copied(source: "StoredModel") -> Tensors:
    return {part: dict(entries) for part, entries in source.tensors.items()}


def _changed(entry: Lazy, layer: str, shares: Sequence[tuple[Part, float]], wide: bool) -> Lazy:
    dtype = torch.float32 if wide else entry.dtype

    def make() -> Tensor:
        weight = entry.make().to(torch.float32)
        merged = weight.clone()
        for part, strength in shares:
            try:
                merged += strength * change(part, layer, weight)
            except RuntimeError as error:
                raise WeightsError(
                    f"doesn't fit the model, whose weight is {list(weight.shape)}: {error}",
                    field="adapter layer",
                    value=f"{part.component}.{layer}",
                ) from None
        return merged.to(dtype)

    return replace(entry, dtype=dtype, make=make)


def _longer(entry: Lazy, size: int, rows: Mapping[int, Tensor]) -> Lazy:
    """Token vectors [size, width]: those of `entry`, and `rows` by their numbers."""

    def make() -> Tensor:
        old = entry.make()
        new = old.new_zeros(size, entry.shape[1])
        new[: len(old)] = old
        for number, vector in rows.items():
            new[number] = vector.to(new.dtype)
        return new

    return replace(entry, shape=(size, entry.shape[1]), make=make)
