"""Things that training would make, with random numbers in them."""

from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model

from tintype.models.adapters import Adapter, part_of
from tintype.models.embeddings.embeddings import Embedding
from tintype.models.load import load
from tintype.models.model import Model
from tintype.models.personal.personal import write_personal


def lora(model: Model, seed: int, rank: int = 4) -> Adapter:
    """A LoRA on the attention of the UNet and of the text encoder."""
    torch.manual_seed(seed)
    parts = []
    modules = load(model.card.path, device="cpu").parts
    for name, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj"])):
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=targets, init_lora_weights=False
        )
        inject_adapter_in_model(config, modules[name])
        parts.append(part_of(modules[name], name))
    return Adapter(parts=tuple(parts))


def personal(run: Path, base: Model, *, words: bool) -> Path:
    """What a run leaves: a LoRA, and a word of two vectors if wished."""
    embedding = Embedding(token="<rex>", vectors={"text_encoder": torch.randn(2, 16)})
    write_personal(
        run / "model",
        {"identifier": "<rex>" if words else "sks", "class_noun": "dog"},
        model=base,
        base_model=str(base.card.path),
        adapter=lora(base, 4),
        embeddings=[embedding] if words else [],
    )
    return run
