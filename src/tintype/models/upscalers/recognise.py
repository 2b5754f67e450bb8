"""Which network a file of tensors is of, by their names, and its sizes, by their shapes."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tintype.models.upscalers.networks import CompactNet, RRDBNet

State = dict[str, Tensor]
_BLOCK = re.compile(r"(?:body|RRDB_trunk)\.(\d+)\.(?:rdb|RDB)(\d)\.conv(\d)\.(weight|bias)")
# ESRGAN's first names: a row of layers, the second of which is all blocks and a convolution
_OLD_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)")
_OLD_TRUNK = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")
_OLD_OTHER = re.compile(r"model\.(\d+)\.(weight|bias)")
_OTHER_NAMES = {"trunk_conv": "conv_body", "HRconv": "conv_hr"}
_UP = re.compile(r"(?:conv_up|upconv)(\d)\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A network to be made, and its tensors by our names of them; `channels` are a picture's."""

    title: str
    channels: int
    make: Callable[[], nn.Module]
    state: State


def recognise(state: State) -> Recognised | None:
    """The network of these tensors; None for one of another kind."""
    if "model.0.weight" in state and "model.1.sub.0.RDB1.conv1.0.weight" in state:
        return _rrdb(_from_old(state))
    if "conv_first.weight" in state and any(map(_BLOCK.fullmatch, state)):
        return _rrdb(_from_new(state))
    if "body.0.weight" in state and "body.1.weight" in state:
        return _compact(state)
    return None


def _rrdb(state: State) -> Recognised | None:
    first, last = state.get("conv_first.weight"), state.get("conv_last.weight")
    growth = state.get("body.0.rdb1.conv1.weight")
    if first is None or last is None or growth is None:
        return None
    width, inside = first.shape[:2]
    channels, doublings = last.shape[0], _count(state, "conv_up")
    unshuffle = next((side for side in (1, 2, 4) if channels * side**2 == inside), None)
    if unshuffle is None or unshuffle > 2**doublings:
        return None
    blocks = _count(state, "body")
    return Recognised(
        title=f"ESRGAN x{2**doublings // unshuffle}",
        channels=channels,
        make=lambda: RRDBNet(
            channels=channels,
            width=width,
            growth=growth.shape[0],
            blocks=blocks,
            doublings=doublings,
            unshuffle=unshuffle,
        ),
        state=state,
    )


def _compact(state: State) -> Recognised | None:
    """The layers take turns: a convolution, its rectifier, …, and a last convolution."""
    last = _count(state, "body") - 1
    first, end = state["body.0.weight"], state.get(f"body.{last}.weight")
    if first.ndim != 4 or end is None or end.ndim != 4 or last % 2:
        return None
    width, channels = first.shape[:2]
    scale = round((end.shape[0] / channels) ** 0.5)
    if end.shape[0] != channels * scale**2:
        return None
    convs = (last - 2) // 2
    return Recognised(
        title=f"Real-ESRGAN compact x{scale}",
        channels=channels,
        make=lambda: CompactNet(channels=channels, width=width, convs=convs, scale=scale),
        state=state,
    )


def _from_new(state: State) -> State:
    """Real-ESRGAN's names, or those of BSRGAN and RealSR, to ours; others stay as they are."""
    found: State = {}
    for name, tensor in state.items():
        if block := _BLOCK.fullmatch(name):
            name = "body.{}.rdb{}.conv{}.{}".format(*block.groups())
        elif up := _UP.fullmatch(name):
            name = f"conv_up.{int(up[1]) - 1}.{up[2]}"
        else:
            layer, _, kind = name.rpartition(".")
            name = f"{_OTHER_NAMES.get(layer, layer)}.{kind}"
        found[name] = tensor
    return found


def _from_old(state: State) -> State:
    """ESRGAN's first names to ours; others stay as they are."""
    numbers = sorted({int(m[1]) for name in state if (m := _OLD_OTHER.fullmatch(name))})
    *ups, sharp, last = numbers[1:]
    layers = {0: "conv_first", sharp: "conv_hr", last: "conv_last"}
    layers |= {number: f"conv_up.{place}" for place, number in enumerate(ups)}
    found: State = {}
    for name, tensor in state.items():
        if block := _OLD_BLOCK.fullmatch(name):
            name = "body.{}.rdb{}.conv{}.{}".format(*block.groups())
        elif trunk := _OLD_TRUNK.fullmatch(name):
            name = f"conv_body.{trunk[2]}"
        elif other := _OLD_OTHER.fullmatch(name):
            name = f"{layers[int(other[1])]}.{other[2]}"
        found[name] = tensor
    return found


def _count(state: State, name: str) -> int:
    """How many numbered parts `name` has."""
    pattern = re.compile(rf"{name}\.(\d+)\.")
    return 1 + max((int(m[1]) for key in state if (m := pattern.match(key))), default=-1)
