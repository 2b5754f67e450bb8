"""A model as a diffusers folder, which every tool of diffusers' world loads."""

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.modeling_utils import ModelMixin
from transformers import CLIPTokenizer, PreTrainedModel

from tintype.models.adapters.targets import WRAPPED
from tintype.models.card import SIDECAR
from tintype.models.convert.precision import in_precision
from tintype.models.convert.stored import StoredModel
from tintype.models.convert.tensors import Tensors, write_safetensors
from tintype.models.loading.folder import DIFFUSERS_STEM, TRANSFORMERS_STEM
from tintype.models.loading.headers import SAFE_SUFFIX
from tintype.models.loading.quiet import quiet
from tintype.models.loading.vocabulary import vocabulary
from tintype.models.model import Model

METADATA = {"format": "pt"}  # without which transformers refuses a file


def write_folder(source: StoredModel, folder: Path, *, precision: str | None = None) -> None:
    """Fill an existing folder with a model, as diffusers' `save_pretrained` would.

    Raises WeightsError for tensors that aren't finite, OSError.
    """
    model = source.model
    with quiet():
        make_pipeline(model).save_config(folder)
        # the pipeline has its own ideas about steps_offset and clip_sample
        make_scheduler(model).save_pretrained(folder / "scheduler")
        for part, module in model.parts.items():
            _write_config(module, folder / part)
        for spec, tokenizer in zip(model.family.text_encoders, model.tokenizers, strict=True):
            tokenizer.save_pretrained(folder / spec.tokenizer)
            save_vocabulary(tokenizer, folder / spec.tokenizer)
    for part, entries in source.tensors.items():
        cast = in_precision(entries, precision, part=part, path=source.path)
        stem = DIFFUSERS_STEM
        if isinstance(model.parts[part], PreTrainedModel):
            stem, cast = TRANSFORMERS_STEM, _older_names(cast)
        write_safetensors(folder / part / f"{stem}{SAFE_SUFFIX}", cast, METADATA)
    if source.card:
        text = json.dumps(source.card, indent=2, ensure_ascii=False)
        (folder / SIDECAR).write_text(text + "\n", encoding="utf-8")


def make_scheduler(model: Model) -> diffusers.SchedulerMixin:
    """The model's own scheduler, with its own settings."""
    scheduler_class = getattr(diffusers, model.scheduler_config.get("_class_name", "DDIMScheduler"))
    return scheduler_class.from_config(model.scheduler_config)


def make_pipeline(model: Model) -> diffusers.DiffusionPipeline:
    """diffusers' own pipeline around the model's parts."""
    name = model.family.inpaint_pipeline if model.extra_channels else None
    pipeline_class = getattr(diffusers, name or model.family.pipeline)
    parts: dict[str, Any] = {
        **model.parts,
        "scheduler": make_scheduler(model),
        **{
            spec.tokenizer: tokenizer
            for spec, tokenizer in zip(model.family.text_encoders, model.tokenizers, strict=True)
        },
    }
    wanted = inspect.signature(pipeline_class).parameters
    options = {key: value for key, value in model.extra_config.items() if key in wanted}
    options = {key: value for key, value in options.items() if not isinstance(value, list)}
    if "requires_safety_checker" in wanted:
        options["requires_safety_checker"] = False
    absent = {
        key: None
        for key, parameter in wanted.items()
        if parameter.default is inspect.Parameter.empty and key not in parts
    }
    return pipeline_class(**absent, **parts, **options)


def save_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """vocab.json and merges.txt, which older tools read, beside tokenizer.json."""
    vocab, merges = vocabulary(tokenizer)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    text = "\n".join(["#version: 0.2", *merges])
    (folder / "merges.txt").write_text(text + "\n", encoding="utf-8")


def _older_names(entries: Tensors) -> Tensors:
    """A text encoder's tensors by names that releases before transformers 5.6 know as well."""
    if any(name.startswith(WRAPPED) for name in entries):
        return entries
    return {f"{WRAPPED}{name}": entry for name, entry in entries.items()}


def _write_config(module: torch.nn.Module, folder: Path) -> None:
    if isinstance(module, ModelMixin):
        module.save_config(folder)
        return
    assert isinstance(module, PreTrainedModel), "a text encoder"
    config = module.config
    config.architectures = [type(module).__name__]
    config.save_pretrained(folder)
    _load_in_float32(folder / "config.json")


def _load_in_float32(config: Path) -> None:
    """Have transformers load these weights in float32, as diffusers loads its own parts.

    It would otherwise take the precision of the file, and a pipeline can't mix the two.
    """
    values = json.loads(config.read_text(encoding="utf-8"))
    text = json.dumps({**values, "dtype": "float32"}, indent=2)
    config.write_text(text + "\n", encoding="utf-8")
