"""A single file in the original LDM layout to a Model, offline: diffusers' own key conversions."""

import json
from collections.abc import Callable, Mapping
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
from tintype.models.card import card_of_metadata
from tintype.models.families.family import Family, TextEncoderSpec
from tintype.models.families.registry import family
from tintype.models.loading.assemble import (
    empty_text_encoder,
    empty_unet,
    empty_vae,
    fill,
    read_state,
)
from tintype.models.loading.check import State
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header, refuse_pickle
from tintype.models.loading.infer import EDM_MEAN, EDM_STD, INDEX, infer_configs, stated_prediction
from tintype.models.loading.prefixes import UNET, VAE
from tintype.models.loading.probe import predicts_velocity
from tintype.models.loading.recognise import Shapes, recognise_keys
from tintype.models.loading.vocabulary import END, clip_tokenizer, unpack_tokenizer
from tintype.models.model import Model
from tintype.types import Event, Progress

OPEN_CLIP_PAD = "!"
TOKENIZERS_KEY = "tintype.tokenizers"


def load_single_file(
    path: Path,
    model_id: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    allow_pickle: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> Model:
    """Load a checkpoint of any family, sizes inferred from its shapes and metadata.

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
        texts = family(recognise_keys(shapes, path)).text_encoders
        # many files carry EMA weights too, which needn't be read
        prefixes = (UNET, VAE, EDM_MEAN, EDM_STD, *(spec.prefix for spec in texts))
    state = read_state(
        [path], device=device, dtype=dtype, allow_pickle=allow_pickle, prefixes=prefixes
    )
    shapes = shapes or {name: tuple(tensor.shape) for name, tensor in state.items()}
    row = family(recognise_keys(shapes, path))
    configs = read_configs(row, shapes, metadata, state, path)
    parts = ("unet", "vae", *(spec.folder for spec in row.text_encoders))
    modules: dict[str, Any] = {}
    for step, part in enumerate(parts, start=1):
        empty, weights = convert_part(part, row, configs[part], state)
        modules[part] = fill(empty, weights, part=part, path=path, device=device, dtype=dtype)
        if on_event:
            on_event(Progress(phase="load", step=step, total=len(parts), message=part))
    if row.single_file.guess_prediction and not stated_prediction(shapes, metadata):
        velocity = predicts_velocity(modules["unet"], configs["scheduler"])
        configs["scheduler"]["prediction_type"] = "v_prediction" if velocity else "epsilon"
    return Model(
        family=row,
        card=card_of_metadata(path, model_id, metadata),
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=tuple(modules[spec.folder] for spec in row.text_encoders),
        tokenizers=tuple(
            tokenizer_of(spec, configs[spec.folder], metadata, path) for spec in row.text_encoders
        ),
        scheduler_config=configs["scheduler"],
        extra_config=configs[INDEX],
    )


def read_configs(
    row: Family, shapes: Shapes, metadata: Mapping[str, str], state: State, path: Path
) -> dict[str, dict[str, Any]]:
    """What `infer_configs` infers, and what tensors of their own state."""
    configs = infer_configs(row.name, shapes, metadata, path)
    for key, name in ((EDM_MEAN, "latents_mean"), (EDM_STD, "latents_std")):
        if key in state and configs["vae"].get(name) is None:
            configs["vae"][name] = state[key].float().flatten().tolist()
    return configs


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
    weights = {name: state[name] for name in state if name.startswith(spec.prefix)}
    if not spec.open_clip:
        return encoder, convert_ldm_clip_checkpoint(weights)
    layers = f"{spec.prefix}transformer.resblocks."
    first_unused = config["num_hidden_layers"]
    weights = {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith(layers)
        or int(name.removeprefix(layers).partition(".")[0]) < first_unused
    }
    return encoder, convert_open_clip_checkpoint(encoder, weights, prefix=spec.prefix)


def tokenizer_of(
    spec: TextEncoderSpec, config: Mapping[str, Any], metadata: Mapping[str, str], path: Path
) -> CLIPTokenizer:
    """The tokenizer in a file's metadata, under `tintype.tokenizers`, else CLIP's own.

    Raises WeightsError for a text encoder with fewer tokens than CLIP's vocabulary can have, and
    for metadata that don't make a tokenizer.
    """
    try:
        packed = json.loads(metadata.get(TOKENIZERS_KEY, "{}")).get(spec.tokenizer)
        if packed is not None:
            return unpack_tokenizer(packed)
        length = config["max_position_embeddings"]
        pad = OPEN_CLIP_PAD if spec.open_clip else END
        return clip_tokenizer(config["vocab_size"], length, pad=pad)
    except WeightsError as error:
        raise WeightsError(error.problem, field="weights", value=str(path)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"its metadata {TOKENIZERS_KEY} don't make a tokenizer: {str(error).splitlines()[0]}",
            field="weights",
            value=str(path),
        ) from None
