"""The trained model as a diffusers folder that every tool loads."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTokenizer

from tintype.models.hashing import weights_sha256
from tintype.models.headers import read_header
from tintype.models.model import Model
from tintype.models.quiet import quiet
from tintype.training.files import whole_folder
from tintype.types import TrainConfig

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
CARD = "tintype.json"


def export_model(model: Model, config: TrainConfig, place: Path) -> str:
    """Write the model to the folder `place`, whole or not at all; the hash of its weights.

    Weights are stored as the base model stores its UNet: float16 where that has float16 (as
    pocket), so that the result is no larger than its base; else float32. The model is left in
    that precision, on the CPU. Raises StorageError.
    """
    with quiet(), whole_folder(place) as folder:
        model.to("cpu", stored_dtype(model.card.path))
        make_pipeline(model).save_pretrained(folder, safe_serialization=True)
        # the pipeline has its own ideas about steps_offset and clip_sample
        make_scheduler(model).save_pretrained(folder / "scheduler")
        for spec, tokenizer in zip(model.family.text_encoders, model.tokenizers, strict=True):
            save_vocabulary(tokenizer, folder / spec.tokenizer)
            load_in_float32(folder / spec.folder / "config.json")
        card = {
            "format": 1,
            "identifier": config.identifier,
            "class_noun": config.class_noun,
            "base_model": config.model,
            "instance_prompt": config.instance_prompt,
            "class_prompt": config.class_prompt,
            "steps": config.steps,
            "seed": config.seed,
            "resolution": config.resolution,
            "defaults": model.card.defaults,
        }
        text = json.dumps(card, indent=2, ensure_ascii=False)
        (folder / CARD).write_text(text + "\n", encoding="utf-8")
    return weights_sha256(place)


def load_in_float32(config: Path) -> None:
    """Have transformers load these weights in float32, as diffusers loads its own parts.

    It would otherwise take the precision of the file, and a pipeline can't mix the two.
    """
    values = json.loads(config.read_text(encoding="utf-8"))
    text = json.dumps({**values, "dtype": "float32"}, indent=2)
    config.write_text(text + "\n", encoding="utf-8")


def stored_dtype(path: Path) -> torch.dtype:
    """float16 or bfloat16 if all float weights of the UNet at `path` are, else float32."""
    files = [path] if path.is_file() else sorted(path.glob("unet/*.safetensors"))
    found = {
        tensor.dtype
        for file in files
        for tensor in read_header(file).tensors.values()
        if tensor.dtype.startswith(("F", "BF"))
    }
    return DTYPES.get(found.pop(), torch.float32) if len(found) == 1 else torch.float32


def make_scheduler(model: Model) -> diffusers.SchedulerMixin:
    """The base model's own scheduler, with its own settings."""
    scheduler_class = getattr(diffusers, model.scheduler_config.get("_class_name", "DDIMScheduler"))
    return scheduler_class.from_config(model.scheduler_config)


def make_pipeline(model: Model) -> diffusers.DiffusionPipeline:
    """diffusers' own pipeline around the model's parts."""
    parts: dict[str, Any] = {
        **model.parts,
        "scheduler": make_scheduler(model),
        **{
            spec.tokenizer: tokenizer
            for spec, tokenizer in zip(model.family.text_encoders, model.tokenizers, strict=True)
        },
    }
    options = {
        name: model.extra_config[name]
        for name in ("force_zeros_for_empty_prompt",)
        if name in model.extra_config
    }
    pipeline_class = getattr(diffusers, model.family.pipeline)
    if "safety_checker" in pipeline_class._optional_components:
        options |= {"safety_checker": None, "requires_safety_checker": False}
        parts |= {"feature_extractor": None}
    return pipeline_class(**parts, **options)


def save_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """vocab.json and merges.txt, which older tools read, beside tokenizer.json."""
    table = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocab = json.dumps(table["vocab"], ensure_ascii=False)
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in table["merges"]]
    text = "\n".join(["#version: 0.2", *merges])
    (folder / "merges.txt").write_text(text + "\n", encoding="utf-8")
