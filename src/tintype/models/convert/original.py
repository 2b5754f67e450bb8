"""A model as one file in the original layout, which A1111, ComfyUI and others load."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tintype.models.card import METADATA_KEY, portable
from tintype.models.convert.metadata import model_spec
from tintype.models.convert.names import clip_names, open_clip_name, unet_names, vae_names
from tintype.models.convert.precision import in_precision
from tintype.models.convert.stored import StoredModel
from tintype.models.convert.tensors import Lazy, Tensors, write_safetensors
from tintype.models.families.family import TextEncoderSpec
from tintype.models.loading.infer import (
    CONFIGS_KEY,
    EDM_MEAN,
    EDM_STD,
    EDM_VELOCITY,
    INDEX,
    VELOCITY,
    ZERO_SNR,
)
from tintype.models.loading.single_file import TOKENIZERS_KEY, tokenizer_of
from tintype.models.loading.vocabulary import pack_tokenizer, same_tokenizer
from tintype.models.model import Model

LAYER = re.compile(r"(.*transformer\.resblocks\.)(\d+)(\..*)")
QKV = re.compile(r"\.([qkv])_proj\.")


def write_single_file(
    source: StoredModel, path: Path, *, precision: str | None = None, pruned: bool = False
) -> None:
    """Write the model to `path`; `pruned` leaves out what no part of it is (EMA weights…).

    Its configs, its tokenizers where they aren't CLIP's, and its card travel in the metadata, so
    that `load` gives back the same model. Raises ModelError for a model that the layout has no
    names for, WeightsError for tensors that aren't finite, OSError.
    """
    tensors: dict[str, Lazy] = {} if pruned else dict(source.others)
    for part, entries in source.tensors.items():
        cast = in_precision(entries, precision, part=part, path=source.path)
        tensors |= _original(part, source.model, cast)
    tensors |= _markers(source.model)
    write_safetensors(path, tensors, file_metadata(source), hashed=True)


def file_metadata(source: StoredModel) -> dict[str, str]:
    """What the header says: ModelSpec, and what tintype needs to load the same model again."""
    model = source.model
    said = {
        CONFIGS_KEY: _configs(model),
        TOKENIZERS_KEY: _tokenizers(model),
        METADATA_KEY: portable(source.card),
    }
    own = {key: json.dumps(value, ensure_ascii=False) for key, value in said.items() if value}
    return {"format": "pt", **model_spec(source), **own}


def _original(part: str, model: Model, entries: Tensors) -> dict[str, Lazy]:
    """A part's tensors by their names in the original layout, and in its shapes."""
    if part == "unet":
        names = unet_names(entries.keys(), model.unet.config)
        return {names[name]: entry for name, entry in entries.items()}
    if part == "vae":
        names = vae_names(entries.keys(), model.vae.config)
        return {names[name]: _convolved(name, entry) for name, entry in entries.items()}
    spec = next(spec for spec in model.family.text_encoders if spec.folder == part)
    if spec.open_clip:
        return open_clip_tensors(spec, entries)
    names = clip_names(entries.keys(), spec.prefix)
    return {names[name]: entry for name, entry in entries.items()}


def _convolved(name: str, entry: Lazy) -> Lazy:
    """The VAE's attention is linear here, and a convolution of 1x1 there."""
    if ".attentions." not in name or len(entry.shape) != 2:
        return entry
    return Lazy(
        shape=(*entry.shape, 1, 1),
        dtype=entry.dtype,
        make=lambda: entry.make()[:, :, None, None],
    )


def open_clip_tensors(spec: TextEncoderSpec, entries: Tensors) -> dict[str, Lazy]:
    """A text encoder's tensors as OpenCLIP has them.

    It keeps queries, keys and values in one matrix, and its projection transposed.
    """
    found: dict[str, Lazy] = {}
    for name, entry in entries.items():
        old = open_clip_name(name, spec.prefix)
        letter = QKV.search(name)
        if name == "text_projection.weight":
            found[old] = _transposed(entry)
        elif letter is None:
            found[old] = entry
        elif letter[1] == "q":
            three = [entries[QKV.sub(f".{x}_proj.", name)] for x in "qkv"]
            found[QKV.sub(".in_proj_", old)] = _stacked(three)
    last = max(int(m[2]) for name in found if (m := LAYER.fullmatch(name)))
    for name, entry in list(found.items()):
        # other tools expect all layers, those that condition nothing too: the last one stands in
        if (m := LAYER.fullmatch(name)) and int(m[2]) == last:
            for extra in range(1, spec.unused_layers + 1):
                found[f"{m[1]}{last + extra}{m[3]}"] = entry
    return found


def _transposed(entry: Lazy) -> Lazy:
    return replace(entry, shape=entry.shape[::-1], make=lambda: entry.make().T)


def _stacked(entries: Sequence[Lazy]) -> Lazy:
    rows = sum(entry.shape[0] for entry in entries)
    return replace(
        entries[0],
        shape=(rows, *entries[0].shape[1:]),
        make=lambda: torch.cat([entry.make() for entry in entries]),
    )


def _markers(model: Model) -> dict[str, Lazy]:
    """Tensors that tell other tools by their names what the UNet predicts."""
    scheduler, vae = model.scheduler_config, model.vae.config
    found: dict[str, torch.Tensor] = {}
    if model.prediction_type == "edm" and vae.get("latents_mean"):
        for name, values in ((EDM_MEAN, vae["latents_mean"]), (EDM_STD, vae["latents_std"])):
            found[name] = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
    elif model.prediction_type == "edm":
        found[EDM_VELOCITY] = torch.tensor(float(scheduler["sigma_max"]))
        found[EDM_VELOCITY.replace("max", "min")] = torch.tensor(float(scheduler["sigma_min"]))
    elif model.prediction_type == "v_prediction":
        found[VELOCITY] = torch.zeros(0)
    if scheduler.get("rescale_betas_zero_snr"):
        found[ZERO_SNR] = torch.zeros(0)
    return {name: Lazy.of(tensor) for name, tensor in found.items()}


def _configs(model: Model) -> dict[str, Any]:
    configs: dict[str, Any] = {part: _plain(module.config) for part, module in model.parts.items()}
    options = {k: v for k, v in model.extra_config.items() if not isinstance(v, list)}
    return {**configs, "scheduler": model.scheduler_config, INDEX: _plain(options)}


def _plain(config: Any) -> dict[str, Any]:
    """A config as JSON has it, without the library's own notes."""
    values: Mapping[str, Any] = (
        json.loads(config.to_json_string()) if hasattr(config, "to_json_string") else dict(config)
    )
    return {key: value for key, value in values.items() if not key.startswith("_")}


def _tokenizers(model: Model) -> dict[str, Any]:
    """The tokenizers that a reader wouldn't make from the text encoders' sizes."""
    packed = {}
    for spec, encoder, own in zip(
        model.family.text_encoders, model.text_encoders, model.tokenizers, strict=True
    ):
        config = _plain(encoder.config)
        enough = config["vocab_size"] == len(own)
        if not (enough and same_tokenizer(own, tokenizer_of(spec, config, {}, model.card.path))):
            packed[spec.tokenizer] = pack_tokenizer(own)
    return packed
