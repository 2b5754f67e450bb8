"""Files of embeddings: diffusers', A1111's, and SDXL's with both of its text encoders.

diffusers: {token: [n, width]}; A1111: {"emb_params": …} or a pickle with {"string_to_param":
{"*": …}}; SDXL in both: {"clip_l": …, "clip_g": …}.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tintype.errors import InputError, ModelError, StorageError, WeightsError
from tintype.models.adapters.metadata import modelspec
from tintype.models.adapters.targets import targets_of
from tintype.models.embeddings.embedding import Embedding
from tintype.models.families.family import Family
from tintype.models.loading.check import check_finite, unpickle
from tintype.models.loading.headers import PICKLE_SUFFIXES, SAFE_SUFFIX, read_header, refuse_pickle
from tintype.models.model import Model
from tintype.models.store import cast, save_tensors

LAYOUTS = ("diffusers", "a1111")
TOKEN_KEY = "tintype.token"
_FIELD = "embedding"
_CLIPS = {"clip_l": "text_encoder", "clip_h": "text_encoder", "clip_g": "text_encoder_2"}
# the widths of CLIP ViT-L, OpenCLIP ViT-H, OpenCLIP ViT-bigG
_WIDTHS = {768: "text_encoder", 1024: "text_encoder", 1280: "text_encoder_2"}


def read_embedding(
    path: str | Path,
    *,
    token: str | None = None,
    model: Model | None = None,
    allow_pickle: bool = False,
) -> Embedding:
    """Read an embedding of diffusers or A1111; of a file with several, the one of that `token`.

    Its word is `token`, else that of the file (diffusers), else the file's name (A1111). `model`
    tells which text encoder a tensor is for by its width; else the widths of the families do.
    Raises WeightsError for a file that is damaged, unsafe or no embedding; ModelError for one
    that isn't there; InputError for one that holds several, none of them `token`.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ModelError(
            f"there is no such file: {place.absolute()}", field=_FIELD, value=str(path)
        )
    tensors, metadata = _read(place, allow_pickle)
    word, vectors = _recognise(tensors, place, token)
    by_encoder = {}
    for name, tensor in vectors.items():
        if not tensor.is_floating_point() or tensor.dim() not in (1, 2) or not tensor.numel():
            raise _no_embedding(tensors, place)
        check_finite(name, tensor, tensor, part=_FIELD, path=place)
        rows = tensor.detach().reshape(-1, tensor.shape[-1])
        by_encoder[_CLIPS.get(name) or _encoder(rows.shape[1], model)] = rows
    word = token or metadata.get(TOKEN_KEY) or word
    return Embedding(token=word, vectors=by_encoder, metadata=metadata)


def write_embedding(
    embedding: Embedding,
    path: str | Path,
    *,
    layout: str = "diffusers",
    dtype: str | torch.dtype | None = None,
    target: Model | Family | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an embedding: `layout` "diffusers" ({token: vectors}) or "a1111" (emb_params).

    With vectors for two text encoders both layouts are {"clip_l", "clip_g"}. A1111's is a pickle
    where the path ends in .pt. The file tells of the family of `target`, where one is given, as
    ModelSpec would have it. Raises InputError for an unknown layout, StorageError.
    """
    place = Path(path).expanduser()
    if layout not in LAYOUTS:
        raise InputError("no such layout", field="layout", value=layout, choices=LAYOUTS)
    vectors = cast(embedding.vectors, dtype)
    state: dict[str, Any]
    if len(vectors) > 1:
        clips = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
        state = {clips[folder]: tensor for folder, tensor in vectors.items()}
    else:
        name = embedding.token if layout == "diffusers" else "emb_params"
        state = {name: next(iter(vectors.values()))}
    if place.suffix.lower() in PICKLE_SUFFIXES:
        _write_pickle(embedding.token, state, place)
        return
    spec = {}
    if target is not None:
        spec = modelspec(targets_of(target), embedding.token, "textual-inversion")
    values = {**spec, **embedding.metadata, TOKEN_KEY: embedding.token, **(metadata or {})}
    save_tensors(state, place, values)


def _read(path: Path, allow_pickle: bool) -> tuple[dict[str, Any], dict[str, str]]:
    if path.suffix.lower() == SAFE_SUFFIX:
        metadata = read_header(path).metadata
        try:
            return load_file(path), metadata
        except SafetensorError as error:
            raise WeightsError(f"is damaged: {error}", field=_FIELD, value=str(path)) from None
    refuse_pickle(path, allowed=allow_pickle)
    # the original code of textual inversion keeps its vectors in one of these
    with torch.serialization.safe_globals([torch.nn.ParameterDict]):
        loaded = unpickle(path)
    if isinstance(loaded, Tensor):
        return {"emb_params": loaded}, {}
    if not isinstance(loaded, dict):
        raise _no_embedding({}, path)
    return loaded, {}


def _recognise(
    tensors: Mapping[str, Any], path: Path, token: str | None
) -> tuple[str, dict[str, Tensor]]:
    """The word that a file suggests, and its tensors by what they are for ("*" where unsaid)."""
    if "string_to_param" in tensors:
        inner = dict(tensors["string_to_param"].items())
        if len(inner) != 1:
            raise _no_embedding(tensors, path)
        return path.stem, {"*": next(iter(inner.values()))}
    named = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    clips = {name: tensor for name, tensor in named.items() if name in _CLIPS}
    if clips and len(clips) == len(named):
        return path.stem, clips
    if list(named) == ["emb_params"]:
        return path.stem, {"*": named["emb_params"]}
    several = any("." in name for name in named) and len(named) > 1
    if not named or several or any(tensor.dim() > 2 for tensor in named.values()):
        raise _no_embedding(tensors, path)
    word = next(iter(named)) if len(named) == 1 else token
    if word is None or word not in named:
        raise InputError(
            "holds several embeddings: name one of them", field="token", value=token, choices=named
        )
    return word, {"*": named[word]}


def _encoder(width: int, model: Model | None) -> str:
    if model is None:
        return _WIDTHS.get(width, "text_encoder")
    specs = [spec.folder for spec in model.family.text_encoders]
    for folder, encoder in zip(specs, model.text_encoders, strict=True):
        if encoder.config.hidden_size == width:
            return folder
    return specs[0]


def _no_embedding(tensors: Mapping[str, Any], path: Path) -> WeightsError:
    found = ", ".join(str(name) for name in list(tensors)[:3]) or "no tensors by name"
    return WeightsError(
        f"is no textual inversion embedding: found {found}", field=_FIELD, value=str(path)
    )


def _write_pickle(token: str, state: dict[str, Tensor], path: Path) -> None:
    """A1111's own form, which the original code of textual inversion began."""
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    values: dict[str, Any] = dict(tensors)
    if "emb_params" in tensors:
        values = {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": tensors["emb_params"]},
            "name": token,
            "step": 0,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
        }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(values, path)
    except OSError as error:
        raise StorageError(f"can't write {path}: {error.strerror or error}") from error
