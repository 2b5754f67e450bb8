"""ControlNets and T2I-Adapters, checked against the model that they are to lead."""

from pathlib import Path
from typing import Any, TypeAlias

from accelerate import init_empty_weights
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter

from tintype.errors import ModelError, WeightsError
from tintype.models.card import read_json
from tintype.models.control.ip import IPAdapter, load_ip_adapter
from tintype.models.loading.assemble import fill, read_state
from tintype.models.loading.check import State
from tintype.models.loading.headers import SAFE_SUFFIX, read_header
from tintype.models.loading.quiet import quiet
from tintype.models.model import Model

FIELD = "control.model"
Net: TypeAlias = ControlNetModel | ControlNetUnionModel | T2IAdapter
CLASSES: dict[str, Any] = {
    "ControlNetModel": ControlNetModel,
    "ControlNetUnionModel": ControlNetUnionModel,
    # as its authors call it
    "ControlNetModel_Union": ControlNetUnionModel,
    "T2IAdapter": T2IAdapter,
}


def load_control(path: Path, model: Model, *, encoder: str | None = None) -> Net | IPAdapter:
    """What lies at `path`, on the model's device and in its precision.

    A folder in diffusers' layout, or one .safetensors file: a ControlNet in diffusers' names, or
    an IP-Adapter, whose image encoder is the folder `encoder` or lies beside it.
    Raises ModelError for what is none of these, and for one of another family; WeightsError for
    damaged weights.
    """
    if path.is_file():
        return _from_file(path, model, encoder)
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


def _from_file(path: Path, model: Model, encoder: str | None) -> Net | IPAdapter:
    names = read_header(path).shapes if path.suffix.lower() == SAFE_SUFFIX else {}
    if any(name.startswith("ip_adapter.") for name in names):
        return load_ip_adapter(path, model, encoder=encoder)
    if "controlnet_cond_embedding.conv_in.weight" not in names:
        raise ModelError(
            f"is neither a ControlNet in diffusers' names nor an IP-Adapter, in a {SAFE_SUFFIX} "
            "file",
            field=FIELD,
            value=str(path),
        )
    state = read_state([path], device=model.device, dtype=model.dtype)
    kind = ControlNetUnionModel if "task_embedding" in state else ControlNetModel
    config = {**model.unet.config, **_shapes(state)}
    with quiet(), init_empty_weights():
        net = kind.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    filled: Net = fill(
        net, state, part="ControlNet", path=path, device=model.device, dtype=model.dtype
    )
    return filled.requires_grad_(False)


def _shapes(state: State) -> dict[str, Any]:
    """The part of a ControlNet's config that its tensors tell and the UNet's config doesn't."""
    prefix = "controlnet_cond_embedding"
    first = state[f"{prefix}.conv_in.weight"]
    blocks = sum(1 for name in state if name.startswith(prefix) and name.endswith("weight")) - 2
    wider = [state[f"{prefix}.blocks.{i}.weight"].shape[0] for i in range(1, blocks, 2)]
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
    # a block without attention takes them after it has halved the picture
    attentive = getattr(model.unet.down_blocks[0], "has_cross_attention", False)
    factor = model.latent_factor * (1 if attentive or len(wanted) == 1 else 2)
    if config.get("downscale_factor") != factor:
        found = f"its downscale_factor is {config.get('downscale_factor')}"
        raise _other_family(model, name, found, str(factor))


def _other_family(model: Model, name: str, found: str, wanted: str) -> ModelError:
    return ModelError(
        f"is for another family than {model.family.title}: {found}, and {model.card.id!r} "
        f"has {wanted}",
        field=FIELD,
        value=name,
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
