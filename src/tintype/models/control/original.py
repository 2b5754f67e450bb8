"""ControlNets and T2I-Adapters by the tensor names of their authors, to diffusers' names."""

import re
from collections.abc import Mapping
from typing import Any

from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from tintype.models.loading.check import State

CONTROL = "control_model."
HINT = "input_hint_block.0.weight"
ADDED = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
ADAPTER = "adapter."
RESNETS = 2  # of a block of T2I-Adapters
_FULL = re.compile(r"body\.(\d+)\.(in_conv|block1|block2)\.(weight|bias)")
_LIGHT = re.compile(r"body\.(\d+)\.body\.(\d+)\.(block1|block2)\.(weight|bias)")
# what looks like a ControlNet and is something else: a name that tells it -> what it is
REFUSED = {
    "lora_controlnet": "a control-LoRA, which changes a UNet into a ControlNet",
    "lllite_": "a ControlLLLite",
    "difference": "the difference of a ControlNet and a UNet",
}


def is_original_controlnet(names: Mapping[str, Any]) -> bool:
    """Whether the tensors are a ControlNet's in the layout of its paper's repository."""
    return HINT in names or CONTROL + HINT in names


def is_t2i_adapter(names: Mapping[str, Any]) -> bool:
    """Whether the tensors are a T2I-Adapter's, by diffusers' names or those of its paper."""
    plain = {name.removeprefix(ADAPTER) for name in names}
    first = (
        "body.0.block1.weight",
        "body.0.resnets.0.block1.weight",
        "body.0.body.0.block1.weight",
    )
    return any(name in plain for name in first)


def refused(names: Mapping[str, Any]) -> str | None:
    """What a file is that can't be used though it is meant to lead a drawing, or None."""
    for mark, kind in REFUSED.items():
        if any(name.startswith(mark) for name in names):
            return kind
    return None


def controlnet_to_diffusers(state: State, layers_per_block: int) -> State:
    """A ControlNet's tensors by diffusers' names; whatever else a checkpoint holds is left."""
    own = {n.removeprefix(CONTROL): t for n, t in state.items() if n.startswith(CONTROL)} or state
    converted: State = convert_controlnet_checkpoint(own, {"layers_per_block": layers_per_block})
    for old, new in ADDED.items():
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in own:
                converted[f"{new}.{kind}"] = own[f"{old}.{kind}"]
    return {name: tensor for name, tensor in converted.items() if tensor is not None}


def t2i_to_diffusers(state: State) -> State:
    """A T2I-Adapter's tensors by diffusers' names."""
    plain = {name.removeprefix(ADAPTER): tensor for name, tensor in state.items()}
    if any(".resnets." in name for name in plain):
        return {ADAPTER + name: tensor for name, tensor in plain.items()}
    light = any(_LIGHT.fullmatch(name) for name in plain)
    return {ADAPTER + _t2i_name(name, light): tensor for name, tensor in plain.items()}


def _t2i_name(name: str, light: bool) -> str:
    inner = _LIGHT.fullmatch(name)
    if inner is not None:
        return "body.{}.resnets.{}.{}.{}".format(*inner.groups())
    block = _FULL.fullmatch(name)
    if light or block is None:
        return name
    # the authors number the residual blocks through
    place, inside = divmod(int(block[1]), RESNETS)
    if block[2] == "in_conv":
        return f"body.{place}.in_conv.{block[3]}"
    return f"body.{place}.resnets.{inside}.{block[2]}.{block[3]}"
