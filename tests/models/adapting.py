"""Helpers of the adapters' tests: small models with peft's adapters in them, and what they give."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler
from peft import PeftConfig, inject_adapter_in_model

from tintype.models.adapters import Adapter, Part, part_of
from tintype.models.load import load
from tintype.models.model import Model

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYTHING = [
    *ATTENTION,
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj", "proj_in", "proj_out", "conv"),
    *("ff.net.0.proj", "ff.net.2", "conv_in", "conv_out", "linear_1", "linear_2"),
]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def with_peft(folder: Path, configs: dict[str, PeftConfig], seed: int = 0) -> tuple[Model, Adapter]:
    """A model into which peft injected these adapters, by component, and the adapters."""
    torch.manual_seed(seed)
    model = load(folder, device="cpu")
    for component, config in configs.items():
        inject_adapter_in_model(config, model.parts[component])
    return model, Adapter(parts=tuple(part_of(model.parts[name], name) for name in configs))


@torch.no_grad()
def outputs(parts: Any, text_encoders: list[torch.nn.Module]) -> list[torch.Tensor]:
    """The UNet's prediction, and each text encoder's hidden states, for fixed inputs."""
    rng = torch.Generator().manual_seed(7)
    unet = parts
    rows, width = 2, unet.config.cross_attention_dim
    added = None
    if unet.config.addition_embed_type:
        pooled = torch.randn(rows, 32, generator=rng)
        added = {"text_embeds": pooled, "time_ids": torch.rand(rows, 6, generator=rng) * 64}
    found = [
        unet(
            torch.randn(rows, 4, 8, 8, generator=rng).to(unet.dtype),
            torch.tensor([20, 700]),
            torch.randn(rows, 24, width, generator=rng).to(unet.dtype),
            added_cond_kwargs=added,
        )[0]
    ]
    ids = torch.randint(0, 500, (rows, 24), generator=rng)
    ids[:, -1] = 519
    return [*found, *(encoder(ids)[0] for encoder in text_encoders)]


def given(model: Model) -> list[torch.Tensor]:
    return outputs(model.unet, list(model.text_encoders))


def difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """The largest, over all that a model gives."""
    pairs = zip(first, second, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def pipeline(folder: Path) -> Any:
    """diffusers' own pipeline around a fresh copy of the model."""
    model = load(folder, device="cpu")
    names = {
        spec.tokenizer: tokenizer
        for spec, tokenizer in zip(model.family.text_encoders, model.tokenizers, strict=True)
    }
    parts = {**model.parts, **names, "scheduler": DDIMScheduler()}
    if model.family.name == "sd1":
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts |= {"requires_safety_checker": False}
    return getattr(diffusers, model.family.pipeline)(**parts)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, part in model.parts.items()
        for key, tensor in part.state_dict().items()
    }


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    keys = first.keys() == second.keys()
    return keys and all(torch.equal(first[name], second[name]) for name in first)


def state(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {f"{part.component}.{n}": t for part in adapter.parts for n, t in part.state.items()}


def scales(adapter: Adapter) -> dict[str, float]:
    return {
        f"{part.component}.{layer}": part.scale(layer)
        for part in adapter.parts
        for layer in part.layers
    }


def part(adapter: Adapter, component: str) -> Part:
    return next(part for part in adapter.parts if part.component == component)
