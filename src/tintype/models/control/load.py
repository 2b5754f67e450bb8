"""ControlNets and T2I-Adapters, checked against the model that they are to lead."""

from pathlib import Path
from typing import Any, TypeAlias

from accelerate import init_empty_weights
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter

from tintype.errors import ModelError, WeightsError
from tintype.models.card import read_json
from tintype.models.control.find import FIELD, IP_TENSORS
from tintype.models.control.ip import IPAdapter, load_ip_adapter
from tintype.models.control.original import (
    controlnet_to_diffusers,
    is_original_controlnet,
    is_t2i_adapter,
    refused,
    t2i_to_diffusers,
)
from tintype.models.loading.assemble import fill, read_state
from tintype.models.loading.check import State, unpickle
from tintype.models.loading.headers import (
    PICKLE_SUFFIXES,
    SAFE_SUFFIX,
    read_header,
    refuse_pickle,
)
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model

Net: TypeAlias = ControlNetModel | ControlNetUnionModel | T2IAdapter
EMBEDDING = "controlnet_cond_embedding"
CLASSES: dict[str, Any] = {
    "ControlNetModel": ControlNetModel,
    "ControlNetUnionModel": ControlNetUnionModel,
    # as its authors call it
    "ControlNetModel_Union": ControlNetUnionModel,
    "T2IAdapter": T2IAdapter,
}


def load_control(
    path: Path, model: Model, *, encoder: str | None = None, allow_pickle: bool = False
) -> Net | IPAdapter:
    """What lies at `path`, on the model's device and in its precision.

    A folder in diffusers' layout, or one file: a ControlNet or a T2I-Adapter by diffusers' names
    or by those of its authors, or an IP-Adapter, whose image encoder is the folder `encoder` or
    lies beside it. Raises ModelError for what is none of these, and for one of another family;
    WeightsError for weights that are damaged, or pickled without `allow_pickle`.
    """
    if path.is_file():
        return _from_file(path, model, encoder, allow_pickle)
    config = read_json(path / "config.json") or {}
    kind = CLASSES.get(str(config.get("_class_name")))
    if kind is None:
        raise ModelError(
            "is no ControlNet, T2I-Adapter or IP-Adapter: expected a diffusers folder whose "
            f"config.json names one of {', '.join(CLASSES)}, or a {SAFE_SUFFIX} file",
            field=FIELD,
            value=str(path),
        )
    check = _check_adapter if kind is T2IAdapter else _check_family
    check(config, model, str(path))
    try:
        with quiet():
            net: Net = kind.from_pretrained(
                path, use_safetensors=True, local_files_only=True, torch_dtype=model.dtype
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"can't be read: {reason}", field=FIELD, value=str(path)) from None
    return net.to(model.device).eval().requires_grad_(False)


def _from_file(
    path: Path, model: Model, encoder: str | None, allow_pickle: bool
) -> Net | IPAdapter:
    state = _read(path, model, allow_pickle)
    found = refused(state)
    if found is not None:
        raise ModelError(f"is {found}; that isn't supported", field=FIELD, value=str(path))
    if any(name.startswith(IP_TENSORS) for name in state):
        return load_ip_adapter(path, state, model, encoder=encoder)
    if is_t2i_adapter(state):
        return _t2i_of(t2i_to_diffusers(state), model, path)
    if is_original_controlnet(state):
        state = controlnet_to_diffusers(state, model.unet.config.layers_per_block)
    if f"{EMBEDDING}.conv_in.weight" not in state:
        raise ModelError(
            f"is neither a ControlNet nor a T2I-Adapter nor an IP-Adapter, in a {SAFE_SUFFIX} file",
            field=FIELD,
            value=str(path),
        )
    _check_tensors(state, model, str(path))
    kind = ControlNetUnionModel if "task_embedding" in state else ControlNetModel
    config = {**model.unet.config, **_shapes(state)}
    return _filled(kind, config, state, model, path, "ControlNet")


def _t2i_of(state: State, model: Model, path: Path) -> Net:
    """The T2I-Adapter of these tensors; which of the full ones it is follows from the model."""
    light = "adapter.body.0.out_conv.weight" in state
    blocks = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("adapter.body."))
    outer = "out_conv.weight" if light else "resnets.0.block1.weight"
    channels = [state[f"adapter.body.{i}.{outer}"].shape[0] for i in range(blocks)]
    first = state["adapter.body.0.in_conv.weight" if light else "adapter.conv_in.weight"].shape[1]
    # of a grey or an RGB picture
    factor = next((f for f in (8, 16, 32) if first in (f**2, 3 * f**2)), 0)
    full = "full_adapter" if _factor(model) == model.latent_factor else "full_adapter_xl"
    config = {
        "channels": channels[:-1] if light else channels,
        "num_res_blocks": _resnets(state),
        "downscale_factor": factor,
        "adapter_type": "light_adapter" if light else full,
    }
    _check_adapter(config, model, str(path))
    config["in_channels"] = first // factor**2
    return _filled(T2IAdapter, config, state, model, path, "T2I-Adapter")


def _resnets(state: State) -> int:
    """How many residual blocks each block of a T2I-Adapter has."""
    start = "adapter.body.0.resnets."
    return len({key.split(".")[4] for key in state if key.startswith(start)})


def _filled(
    kind: Any, config: dict[str, Any], state: State, model: Model, path: Path, part: str
) -> Net:
    """A net of that class with these tensors, ready to lead the model."""
    with quiet(), init_empty_weights():
        net = kind.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    filled: Net = fill(net, state, part=part, path=path, device=model.device, dtype=model.dtype)
    return filled.requires_grad_(False)


def _read(path: Path, model: Model, allow_pickle: bool) -> State:
    """The tensors of a file; groups of tensors in a pickle get names of two parts."""
    if path.suffix.lower() == SAFE_SUFFIX:
        read_header(path)
        return read_state([path], device=model.device, dtype=model.dtype)
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        return {}
    refuse_pickle(path, allowed=allow_pickle)
    loaded = unpickle(path)
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    state: State = {}
    for name, value in loaded.items():
        if hasattr(value, "dtype"):
            state[str(name)] = value
        elif isinstance(value, dict):
            state |= {f"{name}.{key}": t for key, t in value.items() if hasattr(t, "dtype")}
    return state


def _shapes(state: State) -> dict[str, Any]:
    """The part of a ControlNet's config that its tensors tell and the UNet's config doesn't."""
    first = state[f"{EMBEDDING}.conv_in.weight"]
    blocks = sum(1 for name in state if name.startswith(EMBEDDING) and name.endswith("weight")) - 2
    wider = [state[f"{EMBEDDING}.blocks.{i}.weight"].shape[0] for i in range(1, blocks, 2)]
    config = {
        "in_channels": state["conv_in.weight"].shape[1],
        "conditioning_channels": first.shape[1],
        "conditioning_embedding_out_channels": (first.shape[0], *wider),
    }
    if "task_embedding" in state:
        tasks, width = state["task_embedding"].shape
        layers = {name.split(".")[1] for name in state if name.startswith("transformer_layes.")}
        config |= {
            "num_control_type": tasks,
            "num_trans_channel": width,
            "num_trans_layer": len(layers),
            "num_proj_channel": state["spatial_ch_projs.weight"].shape[0],
        }
    return config


def _check_tensors(state: State, model: Model, name: str) -> None:
    """Raises ModelError unless a ControlNet's tensors are for prompts of the model's width."""
    ours = model.unet.config
    widths = {t.shape[1] for key, t in state.items() if key.endswith(".attn2.to_k.weight")}
    if widths and widths != {ours.cross_attention_dim}:
        found = f"its cross_attention_dim is {min(widths)}"
        raise _other_family(model, name, found, str(ours.cross_attention_dim))
    added = "add_embedding.linear_1.weight" in state
    if added != (ours.addition_embed_type is not None):
        found = f"it {'takes' if added else 'lacks'} SDXL's size conditions"
        raise _other_family(model, name, found, "none" if added else "them")


def _check_family(config: dict[str, Any], model: Model, name: str) -> None:
    """Raises ModelError unless it takes the same prompts and gives the same residuals."""
    ours = model.unet.config
    for key in ("cross_attention_dim", "block_out_channels", "addition_embed_type"):
        theirs, wanted = config.get(key), ours.get(key)
        if _plain(theirs) != _plain(wanted):
            raise _other_family(model, name, f"its {key} is {theirs}", str(wanted))


def _check_adapter(config: dict[str, Any], model: Model, name: str) -> None:
    """Raises ModelError unless a T2I-Adapter's features fit the UNet's blocks."""
    channels = list(config.get("channels", ()))
    if config.get("adapter_type") == "light_adapter":
        channels += channels[-1:]
    wanted = list(model.unet.config.block_out_channels)
    if channels[: len(wanted)] != wanted:
        raise _other_family(model, name, f"its channels are {channels}", str(wanted))
    factor = _factor(model)
    if config.get("downscale_factor") != factor:
        found = f"its downscale_factor is {config.get('downscale_factor')}"
        raise _other_family(model, name, found, str(factor))


def _factor(model: Model) -> int:
    """Pixels to one feature of a T2I-Adapter that fits."""
    blocks = model.unet.down_blocks
    # a block without attention takes them after it has halved the picture
    attentive = getattr(blocks[0], "has_cross_attention", False)
    return model.latent_factor * (1 if attentive or len(blocks) == 1 else 2)


def _other_family(model: Model, name: str, found: str, wanted: str) -> ModelError:
    return ModelError(
        f"is for another family than {model.family.title}: {found}, and {model.card.id!r} "
        f"has {wanted}",
        field=FIELD,
        value=name,
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
