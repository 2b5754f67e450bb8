"""An Adapter to a file or folder, in the layout that another tool reads."""

import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tintype.errors import InputError
from tintype.models.adapters.adapter import TITLES, Adapter, LayerTensors, Part
from tintype.models.adapters.expressible import check_peft
from tintype.models.adapters.metadata import file_metadata, with_hashes
from tintype.models.adapters.read import DIFFUSERS_KEY, PARTS_KEY, PEFT_CONFIG, PEFT_WEIGHTS
from tintype.models.adapters.targets import Targets, check_fits, targets_of, wrapped
from tintype.models.families.family import Family
from tintype.models.model import Model
from tintype.models.store import cast, save_json, save_tensors

LAYOUTS = ("diffusers", "kohya", "comfyui", "peft", "tintype")
_ALPHA_DTYPE = torch.float32


def write_adapter(
    adapter: Adapter,
    path: str | Path,
    target: Model | Family,
    *,
    layout: str = "diffusers",
    dtype: str | torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an adapter for other tools, or for tintype itself.

    `layout` is one of:
    - "diffusers": one file that `load_lora_weights` reads (LoRA and DoRA), its alphas beside it;
    - "kohya": one file for A1111, Forge, ComfyUI, kohya's scripts (LoRA, DoRA, LoHa, LoKr);
    - "comfyui": one file that names layers as ComfyUI does (the same kinds);
    - "peft": a folder for each part of the model, of the part's name (every kind);
    - "tintype": one file, every kind; diffusers reads it too where it reads "diffusers".

    `target` says whose layers the names are of. `dtype` casts the tensors ("fp16", …); `metadata`
    is added to what the file says of itself. Raises InputError for a layout that can't hold this
    adapter, with those that can, and for an unknown layout or dtype; StorageError.
    """
    place, targets = Path(path).expanduser(), targets_of(target)
    if layout not in LAYOUTS:
        raise InputError("no such layout", field="layout", value=layout, choices=LAYOUTS)
    adapter = Adapter(
        parts=tuple(
            Part(component=p.component, config=p.config, state=cast(p.state, dtype))
            for p in adapter.parts
        ),
        metadata=adapter.metadata,
    )
    extra = dict(metadata or {})
    if layout != "tintype":
        check_fits(adapter, targets)
    if layout == "peft":
        _write_peft(adapter, place, targets)
    elif layout in ("kohya", "comfyui"):
        _write_flat(adapter, place, targets, extra, kohya=layout == "kohya")
    else:
        _write_nested(adapter, place, targets, extra, own=layout == "tintype")


def _write_flat(
    adapter: Adapter, path: Path, targets: Targets, extra: dict[str, str], *, kohya: bool
) -> None:
    """Layer by layer, with an alpha each."""
    state: dict[str, Tensor] = {}
    for part in adapter.parts:
        if part.kind == "oft":
            raise _cannot("OFT", part.component, "kohya" if kohya else "comfyui", "peft, tintype")
        for layer, own in part.layers.items():
            name = (targets.kohya_name if kohya else targets.comfy_name)(part.component, layer)
            for end, tensor in _flat_tensors(own, part.scale(layer), kohya=kohya).items():
                state[f"{name}.{end}"] = tensor
            state[f"{name}.alpha"] = torch.tensor(_alpha(part, layer), dtype=_ALPHA_DTYPE)
    values = file_metadata(adapter, targets, extra, path.stem, kohya=kohya)
    save_tensors(state, path, with_hashes(state, values) if kohya else values)


def _flat_tensors(own: LayerTensors, scale: float, *, kohya: bool) -> LayerTensors:
    """A layer's tensors by kohya's, or ComfyUI's, names for them."""
    names = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
    tensors = {names.get(n, n) if kohya else n: t for n, t in own.items()}
    if "lora_magnitude_vector" in tensors:
        magnitude = tensors.pop("lora_magnitude_vector")
        dims = own["lora_A.weight"].dim()
        tensors["dora_scale"] = magnitude.reshape(-1, *[1] * (dims - 1))
    if {"lokr_w1", "lokr_w2"} <= tensors.keys() and scale != 1:
        # other tools take no notice of alpha where both factors are whole
        tensors["lokr_w1"] = tensors["lokr_w1"] * scale
    return tensors


def _alpha(part: Part, layer: str) -> float:
    """The alpha by which alpha / rank is the layer's scale, for those that know no rsLoRA."""
    stabilized = getattr(part.config, "use_rslora", False)
    alpha = part.alphas[layer]
    return alpha * math.sqrt(part.ranks[layer]) if stabilized else alpha


def _write_nested(
    adapter: Adapter, path: Path, targets: Targets, extra: dict[str, str], *, own: bool
) -> None:
    """diffusers' names: component, layer, tensor; peft's configs as metadata."""
    components = [part.component for part in adapter.parts]
    single = len(set(components)) == len(components)
    for part in () if own else adapter.parts:
        if part.kind not in ("lora", "dora"):
            others = "kohya, comfyui, peft, tintype"
            raise _cannot(TITLES[part.kind], part.component, "diffusers", others)
        _check_single(part, components, "diffusers")
        check_peft(part, targets)
    state = {}
    for part in adapter.parts:
        for name, tensor in part.state.items():
            state[f"{part.component}.{_older_name(part.component, name)}"] = tensor
    values = file_metadata(adapter, targets, extra, path.stem)
    configs = [(part.component, config_values(part)) for part in adapter.parts]
    if single:
        stated = {f"{name}.{key}": v for name, config in configs for key, v in config.items()}
        values[DIFFUSERS_KEY] = json.dumps(stated, indent=2, sort_keys=True)
    if own:
        rows = [{"component": name, "config": config} for name, config in configs]
        values[PARTS_KEY] = json.dumps(rows, sort_keys=True)
    save_tensors(state, path, values)


def _older_name(component: str, name: str) -> str:
    # releases before transformers 5.6 know no other
    return name if component == "unet" else wrapped(name)


def _write_peft(adapter: Adapter, folder: Path, targets: Targets) -> None:
    components = [part.component for part in adapter.parts]
    for part in adapter.parts:
        _check_single(part, components, "peft")
        check_peft(part, targets)
    for part in adapter.parts:
        state = {f"base_model.model.{name}": tensor for name, tensor in part.state.items()}
        save_tensors(state, folder / part.component / PEFT_WEIGHTS[0], {"format": "pt"})
        values = {**config_values(part), "inference_mode": True}
        save_json(values, folder / part.component / PEFT_CONFIG)


def config_values(part: Part) -> dict[str, Any]:
    """A part's peft config in JSON's types."""
    values = {}
    for key, value in part.config.to_dict().items():
        if isinstance(value, set | frozenset):
            value = sorted(value)
        values[key] = value.value if isinstance(value, Enum) else value
    return values


def _check_single(part: Part, components: list[str], layout: str) -> None:
    if components.count(part.component) > 1:
        raise _cannot("two kinds at once", part.component, layout, "kohya, comfyui, tintype")


def _cannot(what: str, component: str, layout: str, others: str) -> InputError:
    return InputError(
        f"can't hold {what} ({component}): use {others}", field="layout", value=layout
    )
