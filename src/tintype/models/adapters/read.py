"""Files and folders of adapters, in whatever layout, to an Adapter."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tintype.errors import ModelError, WeightsError
from tintype.models.adapters.adapter import Adapter
from tintype.models.adapters.build import build_parts, shaped
from tintype.models.adapters.guess import guess_family, what_it_is
from tintype.models.adapters.parse import Parsed, parse
from tintype.models.adapters.targets import Targets, targets_of
from tintype.models.card import read_json
from tintype.models.families.family import Family
from tintype.models.families.registry import family
from tintype.models.loading.check import check_finite, read_pickle
from tintype.models.loading.headers import SAFE_SUFFIX, read_header, refuse_pickle
from tintype.models.model import Model

DIFFUSERS_KEY = "lora_adapter_metadata"
PARTS_KEY = "tintype.adapter"
PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_KINDS = ("LORA", "LOHA", "LOKR", "OFT")
_FIELD = "adapter"

State = Mapping[str, Tensor]
Configs = dict[str, list[PeftConfig]]


def read_adapter(
    path: str | Path, target: Model | Family | None = None, *, allow_pickle: bool = False
) -> Adapter:
    """Read an adapter: a file in diffusers', kohya's, A1111's or ComfyUI's names, a peft folder,
    or a folder of peft folders named after the parts of a model.

    The layout is told by the tensors' names, never the file's. `target` is the model that it is
    for, or its family; None takes the family that the file itself tells of. Every tensor is used
    or named: in `notes` for what is stored beside a low-rank adapter (norms, biases), in an error
    for anything else.

    Raises WeightsError for a file that is damaged, unsafe, no adapter, or of another family
    (naming both), ModelError for one whose family can't be told.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ModelError(
            f"there is no such file: {place.absolute()}", field=_FIELD, value=str(path)
        )
    if place.is_dir():
        return _read_folder(place, target, allow_pickle)
    state, metadata = read_tensors(place, allow_pickle=allow_pickle)
    targets = _targets(target, state, metadata, place)
    return _assemble(state, metadata, _configs(metadata, place), targets, place)


def read_tensors(path: Path, *, allow_pickle: bool = False) -> tuple[State, dict[str, str]]:
    """A file's tensors and metadata; raises WeightsError for a damaged or unsafe file."""
    if path.suffix.lower() != SAFE_SUFFIX:
        refuse_pickle(path, allowed=allow_pickle)
        return read_pickle(path), {}
    metadata = read_header(path).metadata
    try:
        return load_file(path), metadata
    except SafetensorError as error:
        raise WeightsError(f"is damaged: {error}", field=_FIELD, value=str(path)) from None


def _read_folder(folder: Path, target: Model | Family | None, allow_pickle: bool) -> Adapter:
    folders = [folder] if (folder / PEFT_CONFIG).is_file() else []
    folders += sorted(p.parent for p in folder.glob(f"*/{PEFT_CONFIG}"))
    if not folders:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() == SAFE_SUFFIX)
        if len(files) == 1:
            return read_adapter(files[0], target)
        raise WeightsError(
            f"holds no adapter: expected {PEFT_CONFIG}, there or in unet/ and the like, "
            f"or one {SAFE_SUFFIX} file",
            field=_FIELD,
            value=str(folder),
        )
    read = []
    for place in folders:
        file = next((place / name for name in PEFT_WEIGHTS if (place / name).is_file()), None)
        if file is None:
            raise WeightsError(f"lacks {PEFT_WEIGHTS[0]}", field=_FIELD, value=str(place))
        state, metadata = read_tensors(file, allow_pickle=allow_pickle)
        read.append((place, state, metadata))
    everything = {f"{place.name}.{n}": t for place, state, _ in read for n, t in state.items()}
    targets = _targets(target, everything, {}, folder)
    adapters = [_read_peft(place, state, metadata, targets) for place, state, metadata in read]
    return Adapter(
        parts=tuple(part for adapter in adapters for part in adapter.parts),
        metadata=adapters[0].metadata,
        notes=tuple(note for adapter in adapters for note in adapter.notes),
    )


def _read_peft(place: Path, state: State, metadata: dict[str, str], targets: Targets) -> Adapter:
    """One of peft's folders; whichever component has all of its layers is meant."""
    config = _config(read_json(place / PEFT_CONFIG) or {}, place)
    named = place.name.partition("-")[0]
    names = sorted(targets.layers, key=lambda name: name != named)
    error: WeightsError | None = None
    for component in names:
        prefixed = {f"{component}.{name}": tensor for name, tensor in state.items()}
        try:
            return _assemble(prefixed, metadata, {component: [config]}, targets, place)
        except WeightsError as problem:
            error = error or problem
    assert error is not None, "a model has components"
    raise error


def _assemble(
    state: State, metadata: dict[str, str], configs: Configs, targets: Targets, path: Path
) -> Adapter:
    for name, tensor in state.items():
        # torch has no minimum of 8-bit floats
        wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor
        check_finite(name, wide, wide, part=_FIELD, path=path)
    try:
        parsed = parse(state, targets.names)
        _refuse_unknown(parsed, state, metadata, targets, path)
        shapes = targets.layers
        layers = {
            (component, layer): shaped(own, shapes[component][layer], f"{component}.{layer}")
            for (component, layer), own in parsed.layers.items()
        }
        parts = build_parts(layers, shapes, parsed.alphas, configs)
    except WeightsError as error:
        found = what_it_is(state, metadata)
        title = targets.family.title
        other = "" if found is None or found == title else f"; it is for {found}, not for {title}"
        raise WeightsError(f"{error}{other}", field=_FIELD, value=str(path)) from None
    notes = tuple(
        f"{path.name}: left out {len(names)} tensors of {what}, {names[0]} for one"
        for what, names in parsed.beside.items()
    )
    return Adapter(parts=parts, metadata=metadata, notes=notes)


def _refuse_unknown(
    parsed: Parsed, state: State, metadata: dict[str, str], targets: Targets, path: Path
) -> None:
    title = targets.family.title
    if not parsed.layers:
        found = what_it_is(state, metadata) or "no adapter"
        raise WeightsError(
            f"holds nothing that changes {title}: found {found} "
            f"({', '.join(list(state)[:2]) or 'no tensors'})"
        )
    if parsed.unknown:
        raise WeightsError(
            f"{len(parsed.unknown)} of its {len(state)} tensors belong to no layer of this "
            f"{title}, {parsed.unknown[0]} for one"
        )


def _targets(
    target: Model | Family | None, state: State, metadata: dict[str, str], path: Path
) -> Targets:
    if target is not None:
        return targets_of(target)
    name = guess_family(state, metadata)
    if name is None:
        found = what_it_is(state, metadata)
        raise ModelError(
            "its family can't be told from it: name the model that it is for"
            if found is None
            else f"it is for {found}, which is no family here",
            field=_FIELD,
            value=str(path),
        )
    return targets_of(family(name))


def _configs(metadata: Mapping[str, str], path: Path) -> Configs:
    """peft's configs by component, from our own metadata or from diffusers'."""
    try:
        if PARTS_KEY in metadata:
            configs: Configs = {}
            for row in json.loads(metadata[PARTS_KEY]):
                configs.setdefault(row["component"], []).append(_config(row["config"], path))
            return configs
        stated: dict[str, Any] = json.loads(metadata.get(DIFFUSERS_KEY, "{}"))
        by_component: dict[str, dict[str, Any]] = {}
        for name, value in stated.items():
            component, _, key = name.partition(".")
            by_component.setdefault(component, {})[key] = value
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WeightsError(
            "its metadata isn't peft's config in JSON", field=_FIELD, value=str(path)
        ) from None
    return {name: [_config(values, path)] for name, values in by_component.items()}


def _config(values: Mapping[str, Any], path: Path) -> PeftConfig:
    """peft's config of these values; those that this release of peft doesn't know are left."""
    kind = str(values.get("peft_type", "LORA")).rpartition(".")[2]
    if kind not in _KINDS:
        raise WeightsError(
            f"holds an adapter of kind {kind}; expected {', '.join(_KINDS)}",
            field=_FIELD,
            value=str(path),
        )
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    known = {field.name for field in dataclasses.fields(config_class) if field.init}
    try:
        return config_class(**{key: value for key, value in values.items() if key in known})
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"its config isn't one of peft's: {error}", field=_FIELD, value=str(path)
        ) from None
