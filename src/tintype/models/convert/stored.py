"""A model as its files hold it: each tensor as it is stored, read when it is needed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tintype.models.adapters.read import read_adapter, read_tensors
from tintype.models.card import SIDECAR, card_of_metadata, card_values, read_card, read_json
from tintype.models.convert.bake import bake, overlay, speak
from tintype.models.convert.tensors import Lazy, lazy
from tintype.models.embeddings.embeddings import read_embedding
from tintype.models.families.registry import family
from tintype.models.load import read_tokenizer
from tintype.models.loading.assemble import (
    current_names,
    empty_text_encoder,
    empty_unet,
    empty_vae,
    fill,
)
from tintype.models.loading.check import State, check_shapes, read_pickle
from tintype.models.loading.find import find
from tintype.models.loading.folder import PARTS_OF, Folder, read_folder, weights_files
from tintype.models.loading.headers import SAFE_SUFFIX, read_header, refuse_pickle
from tintype.models.loading.infer import stated_prediction
from tintype.models.loading.locate import Location
from tintype.models.loading.prefixes import UNET, VAE
from tintype.models.loading.probe import predicts_velocity
from tintype.models.loading.quiet import quiet
from tintype.models.loading.recognise import recognise_keys
from tintype.models.loading.single_file import convert_part, read_configs, tokenizer_of
from tintype.models.model import Model
from tintype.models.personal.card import (
    ADAPTER,
    ADDS,
    EMBEDDINGS,
    WEIGHTS,
    PersonalCard,
    base_of,
    personal_card,
)
from tintype.models.sharing.readme import licence_of
from tintype.types import Event

PERSONAL = (ADAPTER, EMBEDDINGS, WEIGHTS, ADDS)
MARKERS = ("v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.")


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model that isn't loaded.

    `model`'s parts have no storage; `tensors` are theirs, by part and by the installed libraries'
    names. `card` is the whole of tintype.json, `others` what a single file holds beside the
    parts (EMA weights, the noise schedule), `metadata` what its header said.
    """

    model: Model
    tensors: Mapping[str, Mapping[str, Lazy]]
    card: dict[str, Any] = field(default_factory=dict)
    others: Mapping[str, Lazy] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def licence(self) -> str | None:
        """As its card states it, or its metadata, or the preset that it is."""
        preset = self.model.card.preset
        stated = self.card.get("licence") or self.metadata.get("modelspec.license")
        return stated or licence_of(self.path) or (preset.licence if preset else None)

    @property
    def path(self) -> Path:
        return self.model.card.path


def open_model(
    source: str | Path,
    *,
    allow_pickle: bool = False,
    offline: bool = False,
    cache_dir: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> StoredModel:
    """Open what `load` would load; raises as it does, but for what is in the tensors' values."""
    options: dict[str, Any] = {
        "allow_pickle": allow_pickle,
        "offline": offline,
        "cache_dir": cache_dir,
        "on_event": on_event,
    }
    found = find(source, **options)
    own = None if found.is_file else personal_card(found.path)
    if own is not None:
        return _personal(open_model(base_of(own), **options), own, found.id)
    with quiet():
        if found.is_file:
            opened = _open_file(found, allow_pickle)
        else:
            opened = _open_folder(read_folder(found.path), found.id, allow_pickle)
    row = found.preset
    if row is None:
        return opened
    opened.model.card = opened.model.card.with_preset(row)
    if row.adapter is None or found.adapter is None:
        return opened
    return bake(opened, [(read_adapter(found.adapter, opened.model), row.adapter.weight)])


def _personal(base: "StoredModel", own: PersonalCard, model_id: str) -> "StoredModel":
    """A base, and what a personal model's folder puts on it."""
    if own.weights is not None:
        base = overlay(base, read_tensors(own.weights)[0], own.weights)
    if own.adapter is not None:
        base = bake(base, [(read_adapter(own.adapter, base.model), 1.0)])
    if own.embeddings:
        base = speak(base, [read_embedding(file, model=base.model) for file in own.embeddings])
    values = read_json(own.folder / SIDECAR) or {}
    kept = {key: value for key, value in values.items() if key not in PERSONAL}
    defaults = {**base.model.card.defaults, **kept.get("defaults", {})}
    card = replace(read_card(own.folder, model_id), defaults=defaults)
    base.model.card = card
    return replace(base, card={**kept, "defaults": defaults})


def stored(model: Model, card: dict[str, Any]) -> StoredModel:
    """A loaded model, its weights as they are now; `card` is what tintype.json will say."""
    tensors = {part: lazy(module.state_dict()) for part, module in model.parts.items()}
    return StoredModel(model=model, tensors=tensors, card=card)


def _open_folder(folder: Folder, model_id: str, allow_pickle: bool) -> StoredModel:
    encoders = {spec.folder: spec.transformers_class for spec in folder.family.text_encoders}
    modules: dict[str, Any] = {}
    tensors = {}
    for part in folder.parts:
        config, path = folder.configs[part], folder.place(part)
        if part in encoders:
            modules[part] = empty_text_encoder(encoders[part], config)
        else:
            modules[part] = {"unet": empty_unet, "vae": empty_vae}[part](config)
        state: State = {}
        for file in weights_files(path, allow_pickle=allow_pickle):
            state |= _mapped(file, allow_pickle)
        tensors[part] = _tensors(modules[part], state, part, path)
    model = Model(
        family=folder.family,
        card=read_card(folder.path, model_id),
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=tuple(modules[name] for name in encoders),
        tokenizers=tuple(
            read_tokenizer(folder.place(spec.tokenizer)) for spec in folder.family.text_encoders
        ),
        scheduler_config=folder.configs["scheduler"],
        extra_config=folder.index,
    )
    card = read_json(folder.path / SIDECAR) or {}
    card.pop(PARTS_OF, None)
    return StoredModel(model=model, tensors=tensors, card=card)


def _open_file(found: Location, allow_pickle: bool) -> StoredModel:
    path = found.path
    state = _mapped(path, allow_pickle)
    safe = path.suffix.lower() == SAFE_SUFFIX
    metadata = read_header(path).metadata if safe else {}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    row = family(recognise_keys(shapes, path))
    configs = read_configs(row, shapes, metadata, state, path)
    modules: dict[str, Any] = {}
    tensors = {}
    for part in ("unet", "vae", *(spec.folder for spec in row.text_encoders)):
        modules[part], converted = convert_part(part, row, configs[part], state)
        tensors[part] = _tensors(modules[part], converted, part, path)
    if row.single_file.guess_prediction and not stated_prediction(shapes, metadata):
        velocity = _guess(configs, tensors["unet"], path)
        configs["scheduler"]["prediction_type"] = "v_prediction" if velocity else "epsilon"
    model = Model(
        family=row,
        card=card_of_metadata(path, found.id, metadata),
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=tuple(modules[spec.folder] for spec in row.text_encoders),
        tokenizers=tuple(
            tokenizer_of(spec, configs[spec.folder], metadata, path) for spec in row.text_encoders
        ),
        scheduler_config=configs["scheduler"],
        extra_config=configs["model_index"],
    )
    known = (UNET, VAE, *MARKERS, *(spec.prefix for spec in row.text_encoders))
    others = lazy({name: t for name, t in state.items() if not name.startswith(known)})
    return StoredModel(
        model=model,
        tensors=tensors,
        card=card_values(path, metadata),
        others=others,
        metadata=metadata,
    )


def _guess(configs: dict[str, dict[str, Any]], tensors: Mapping[str, Lazy], path: Path) -> bool:
    """Whether a UNet that doesn't say so predicts velocity; it is loaded for this."""
    unet = fill(
        empty_unet(configs["unet"]),
        {name: entry.make() for name, entry in tensors.items()},
        part="unet",
        path=path,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return predicts_velocity(unet, configs["scheduler"])


def _mapped(file: Path, allow_pickle: bool) -> State:
    """The tensors of a file, left on the disk until they are read, but for those of a pickle."""
    if file.suffix.lower() == SAFE_SUFFIX:
        read_header(file)
        return load_file(file)
    refuse_pickle(file, allowed=allow_pickle)
    return read_pickle(file)


def _tensors(module: torch.nn.Module, state: State, part: str, path: Path) -> dict[str, Lazy]:
    """The tensors by today's names, in the module's order; raises WeightsError if they misfit."""
    state = current_names(module, state)
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    check_shapes(expected, state, part=part, path=path)
    return lazy({name: state[name] for name in expected})
