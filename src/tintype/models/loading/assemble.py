"""Configs and tensors to modules: one way for folders, shards and single files.

A module is built without storage, so that nothing is initialised in vain; each tensor comes once
from its file to its dtype and device, and is checked on the way. No weight stays mapped to a
file, which may be written anew while the model lives.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file
from transformers import CLIPTextConfig, PreTrainedModel

from tintype.errors import WeightsError
from tintype.models.loading.check import State, check_finite, check_shapes, read_pickle
from tintype.models.loading.headers import SAFE_SUFFIX, read_header, refuse_pickle

Module = TypeVar("Module", bound=torch.nn.Module)
UNUSED_BY_TEXT_ENCODERS = ("position_ids", "text_projection.weight", "logit_scale")


def read_state(
    files: list[Path],
    *,
    device: torch.device,
    dtype: torch.dtype,
    allow_pickle: bool = False,
    prefixes: tuple[str, ...] = ("",),
) -> State:
    """The tensors whose names start with one of `prefixes`, for `fill` to the same device, dtype.

    Tensors that are to be cast or moved are memory-mapped; those that aren't are read, which is
    several times faster than to map and copy them. Raises WeightsError for a damaged file, and
    for a pickle that isn't allowed.
    """
    state: State = {}
    for file in files:
        if file.suffix.lower() == SAFE_SUFFIX:
            read_header(file)
            tensors = load_file(file)
        else:
            refuse_pickle(file, allowed=allow_pickle)
            tensors = read_pickle(file)
        tensors = {name: t for name, t in tensors.items() if name.startswith(prefixes)}
        if device.type == "cpu" and file.suffix.lower() == SAFE_SUFFIX:
            kept = [n for n, t in tensors.items() if t.dtype == dtype or not t.is_floating_point()]
            tensors |= _read({name: tensors[name] for name in kept}, file)
        state |= tensors
    return state


def _read(mapped: State, file: Path) -> State:
    """Copies of memory-mapped tensors, read from the file straight into their own memory."""
    infos = read_header(file).tensors
    copies: State = {}
    with file.open("rb", buffering=0) as raw:
        for name, tensor in sorted(mapped.items(), key=lambda item: infos[item[0]].start):
            copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            target = copies[name].reshape(-1).view(torch.uint8).numpy().data
            raw.seek(infos[name].start)
            while target:
                count = raw.readinto(target)
                if not count:
                    raise WeightsError("changed while it was read", value=str(file))
                target = target[count:]
    return copies


def empty_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    with init_empty_weights():
        return UNet2DConditionModel.from_config(config)


def empty_vae(config: dict[str, Any]) -> AutoencoderKL:
    with init_empty_weights():
        return AutoencoderKL.from_config(config)


def empty_text_encoder(class_name: str, config: dict[str, Any]) -> PreTrainedModel:
    """`class_name` is a text model of transformers, such as CLIPTextModel."""
    with init_empty_weights():
        return getattr(transformers, class_name)(CLIPTextConfig.from_dict(config))


def fill(
    module: Module,
    state: State,
    *,
    part: str,
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
) -> Module:
    """Give an empty module its weights from `read_state`, and return it in evaluation mode.

    Raises WeightsError for a tensor that is missing, of another shape, or not finite.
    """
    state = current_names(module, state)
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    check_shapes(expected, state, part=part, path=path)
    placed = {}
    for name, tensor in state.items():
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        placed[name] = tensor.to(device=device, dtype=kind)
        check_finite(name, placed[name], tensor, part=part, path=path)
    module.load_state_dict(placed, assign=True)
    return module.to(device).eval()


def current_names(module: torch.nn.Module, state: State) -> State:
    """Names of older files to those that the installed libraries use."""
    if isinstance(module, PreTrainedModel):
        return _current_text_names(module, state)
    if not isinstance(module, ModelMixin):
        return state
    # Files from before diffusers 0.12 name the VAE's attention query, key, value, proj_attn.
    state = dict(state)
    module._fix_state_dict_keys_on_load(state)
    return state


def _current_text_names(module: PreTrainedModel, state: State) -> State:
    """transformers 5.6 dropped `text_model.` from CLIPTextModel; older files store more."""
    prefix = "text_model."
    expected = {name for name, _ in module.named_parameters()}
    wrapped = any(name.startswith(prefix) for name in expected)
    renamed = {}
    for name, tensor in state.items():
        bare = name.removeprefix(prefix)
        inside = wrapped and not bare.startswith("text_projection")
        current = prefix + bare if inside else bare
        if current in expected or not bare.endswith(UNUSED_BY_TEXT_ENCODERS):
            renamed[current] = tensor
    return renamed
