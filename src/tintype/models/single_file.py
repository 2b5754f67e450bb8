"""A single file in the original LDM layout to a Model, offline: diffusers' own key conversions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTokenizer

from tintype.errors import WeightsError
from tintype.models.assemble import empty_text_encoder, empty_unet, empty_vae, fill, read_state
from tintype.models.card import card_of_metadata
from tintype.models.check import State
from tintype.models.family import Family, TextEncoderSpec
from tintype.models.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header, refuse_pickle
from tintype.models.infer import infer_configs
from tintype.models.model import Model
from tintype.models.recognise import (
    TEXT_SD1,
    TEXT_XL_1,
    TEXT_XL_2,
    UNET,
    VAE,
    Shapes,
    recognise_keys,
)
from tintype.models.registry import family
from tintype.models.vocabulary import clip_tokenizer
from tintype.types import Event, Progress

OPEN_CLIP_PAD = "!"
PREFIXES = (UNET, VAE, TEXT_SD1, TEXT_XL_1, TEXT_XL_2)


def load_single_file(
    path: Path,
    model_id: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    allow_pickle: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Model:
    """Load a checkpoint of SD 1.x or SDXL, sizes inferred from its shapes and metadata.

    Raises WeightsError for a pickle that isn't allowed, a damaged file, another family, a part
    of a model, and tensors that no config of the family fits.
    """
    if path.suffix.lower() not in (SAFE_SUFFIX, *PICKLE_SUFFIXES):
        raise WeightsError(
            f"is no weights file: expected {SAFE_SUFFIX}", field="model", value=str(path)
        )
    refuse_pickle(path, allowed=allow_pickle)
    metadata: dict[str, str] = {}
    shapes: Shapes = {}
    prefixes: tuple[str, ...] = ("",)
    if path.suffix.lower() == SAFE_SUFFIX:
        header = read_header(path)
        shapes, metadata = header.shapes, header.metadata
        recognise_keys(shapes, path)
        # many files carry EMA weights too, which needn't be read
        prefixes = PREFIXES
    state = read_state(
        [path], device=device, dtype=dtype, allow_pickle=allow_pickle, prefixes=prefixes
    )
    shapes = shapes or {name: tuple(tensor.shape) for name, tensor in state.items()}
    row = family(recognise_keys(shapes, path))
    configs = infer_configs(row.name, shapes, metadata, path)
    parts = ("unet", "vae", *(spec.folder for spec in row.text_encoders))
    modules: dict[str, Any] = {}
    for step, part in enumerate(parts, start=1):
        empty, weights = convert_part(part, row, configs[part], state)
        modules[part] = fill(empty, weights, part=part, path=path, device=device, dtype=dtype)
        if on_event:
            on_event(Progress(phase="load", step=step, total=len(parts), message=part))
    return Model(
        family=row,
        card=card_of_metadata(path, model_id, metadata),
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=tuple(modules[spec.folder] for spec in row.text_encoders),
        tokenizers=tuple(
            _tokenizer(spec, configs[spec.folder], path) for spec in row.text_encoders
        ),
        scheduler_config=configs["scheduler"],
        extra_config={"force_zeros_for_empty_prompt": row.zeros_for_empty_negative},
    )


def convert_part(
    part: str, row: Family, config: dict[str, Any], state: State
) -> tuple[torch.nn.Module, State]:
    """The empty module of a part, and its tensors by diffusers' and transformers' names."""
    if part == "unet":
        weights = {name: state[name] for name in state if name.startswith(UNET)}
        unet = empty_unet(config)
        return unet, convert_ldm_unet_checkpoint(weights, dict(unet.config))
    if part == "vae":
        weights = {name: state[name] for name in state if name.startswith(VAE)}
        return empty_vae(config), convert_ldm_vae_checkpoint(weights, config)
    spec = next(spec for spec in row.text_encoders if spec.folder == part)
    encoder = empty_text_encoder(spec.transformers_class, config)
    if spec.pooled:
        return encoder, convert_open_clip_checkpoint(encoder, state, prefix=TEXT_XL_2)
    return encoder, convert_ldm_clip_checkpoint(state)


def _tokenizer(spec: TextEncoderSpec, config: dict[str, Any], path: Path) -> CLIPTokenizer:
    length = config["max_position_embeddings"]
    try:
        if spec.pooled:
            return clip_tokenizer(config["vocab_size"], length, pad=OPEN_CLIP_PAD)
        return clip_tokenizer(config["vocab_size"], length)
    except WeightsError as error:
        raise WeightsError(error.problem, field="weights", value=str(path)) from None
