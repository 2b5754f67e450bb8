"""Personal models: what training adds, in a folder that names the base model it belongs on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tintype.errors import WeightsError
from tintype.models.adapters.adapter import Adapter
from tintype.models.adapters.apply import merge
from tintype.models.adapters.read import read_adapter, read_tensors
from tintype.models.adapters.write import write_adapter
from tintype.models.card import SIDECAR, read_card
from tintype.models.embeddings.embedding import Embedding
from tintype.models.embeddings.embeddings import embed
from tintype.models.embeddings.files import read_embedding, write_embedding
from tintype.models.model import Model
from tintype.models.personal.card import ADAPTER, ADDS, BASE, EMBEDDINGS, WEIGHTS, PersonalCard
from tintype.models.store import save_json, save_tensors

ADAPTER_FILE, WEIGHTS_FILE = "adapter.safetensors", "delta.safetensors"


def write_personal(
    folder: Path,
    card: Mapping[str, Any],
    *,
    model: Model,
    base_model: str,
    adapter: Adapter | None = None,
    embeddings: Sequence[Embedding] = (),
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Fill `folder`, which is made if need be, with what `load` puts on the base model again.

    `card` holds identifier, class_noun and the like; `model` says whose layers the adapter is for
    (what it holds isn't written); `base_model` is what `load` takes, a path of which is made
    absolute. `weights` are whole tensors of the base by name
    ("unet.down_blocks.1.….attn2.to_k.weight"), not differences. Raises StorageError.
    """
    adds: list[str] = []
    values: dict[str, Any] = {**card, BASE: absolute(base_model)}
    if adapter is not None:
        write_adapter(adapter, folder / ADAPTER_FILE, model, layout="tintype")
        values[ADAPTER] = ADAPTER_FILE
        adds.append(adapter.title)
    if embeddings:
        values[EMBEDDINGS] = []
        for number, embedding in enumerate(embeddings):
            name = f"embedding-{number}.safetensors"
            write_embedding(embedding, folder / name, target=model)
            values[EMBEDDINGS].append(name)
            count = len(next(iter(embedding.vectors.values())))
            adds.append(f"the word {embedding.token} ({count} vector{'s' if count > 1 else ''})")
    if weights:
        save_tensors(weights, folder / WEIGHTS_FILE, {"format": "pt"})
        values[WEIGHTS] = WEIGHTS_FILE
        adds.append(f"{len(weights)} trained tensors")
    values[ADDS] = ", ".join(adds)
    save_json(values, folder / SIDECAR)


def absolute(base_model: str) -> str:
    """A path made absolute; any other name of a model as it is."""
    path = Path(base_model).expanduser()
    return str(path.absolute()) if path.exists() else base_model


def put_on(base: Model, own: PersonalCard, model_id: str) -> Model:
    """`base`, changed in place into the personal model: its weights, adapter and words, its card.

    Raises WeightsError for files that are damaged or don't fit the base.
    """
    if own.weights is not None:
        _replace(base, own.weights)
    if own.adapter is not None:
        merge(base, [(read_adapter(own.adapter, base), 1.0)])
    if own.embeddings:
        embed(base, [read_embedding(file, model=base) for file in own.embeddings])
    base.scheduler_config = {**base.scheduler_config, **own.scheduler}
    card = read_card(own.folder, model_id)
    defaults = {**base.card.defaults, **card.defaults}
    base.card = replace(card, defaults=defaults, preset=base.card.preset)
    return base


def _replace(model: Model, file: Path) -> None:
    """Put trained tensors in the place of the model's own."""
    tensors, _ = read_tensors(file)
    parts = model.parts
    for name, tensor in tensors.items():
        component, _, own = name.partition(".")
        place = dict(parts[component].named_parameters()) if component in parts else {}
        if own not in place or place[own].shape != tensor.shape:
            expected = list(place[own].shape) if own in place else "no such tensor"
            raise WeightsError(
                f"tensor {name} of shape {list(tensor.shape)} isn't of this base model "
                f"({expected}): {model.family.title}, {model.card.id}",
                field=WEIGHTS,
                value=str(file),
            )
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"tensor {name} isn't finite", field=WEIGHTS, value=str(file))
        with torch.no_grad():
            place[own].copy_(tensor)
