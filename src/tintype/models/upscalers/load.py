"""Upscaler files: read, recognised, and made ready to enlarge pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tintype.errors import ModelError, WeightsError
from tintype.models.loading.assemble import fill
from tintype.models.loading.check import unpickle
from tintype.models.loading.headers import (
    PICKLE_SUFFIXES,
    SAFE_SUFFIX,
    read_header,
    refuse_pickle,
)
from tintype.models.upscalers.recognise import State, recognise
from tintype.models.upscalers.tiles import by_tiles

FIELD = "upscaler"
WRAPPERS = ("params_ema", "params", "state_dict")
EXTRA = "pip install 'tintype[upscale]'"


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """A network that makes RGB pictures `scale` times as large."""

    title: str
    scale: int
    network: Any
    device: torch.device

    @torch.no_grad()
    def enlarged(self, picture: Image.Image) -> Image.Image:
        """The RGB picture `scale` times as large; a large one by tiles."""
        raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        pixels = raw.reshape(1, picture.height, picture.width, 3).permute(0, 3, 1, 2) / 255
        larger = by_tiles(lambda tile: self.network(tile.to(self.device)), pixels, self.scale)
        whole = (larger[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
        return Image.fromarray(whole.contiguous().numpy())

    def to_size(self, picture: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The picture at `size` (px): enlarged until it is that large, then resized (Lanczos)."""
        found = self.enlarged(picture)
        while self.scale > 1 and (found.width < size[0] or found.height < size[1]):
            found = self.enlarged(found)
        return found if found.size == size else found.resize(size, Image.Resampling.LANCZOS)


def load_upscaler(
    path: Path, *, device: torch.device | str = "cpu", allow_pickle: bool = False
) -> Upscaler:
    """The upscaler in a .safetensors or .pth file: ESRGAN's and Real-ESRGAN's networks, and with
    spandrel installed whatever that knows. Computed in fp32.

    Raises WeightsError for a file that is damaged or unsafe, ModelError for one of a kind that
    isn't known here or that doesn't take RGB pictures.
    """
    target = torch.device(device)
    state = _read(path, allow_pickle)
    found = recognise(state)
    if found is None:
        return _by_spandrel(state, path, target)
    _check_channels(found.channels, path)
    with init_empty_weights():
        network: Any = found.make()
    network = fill(
        network, found.state, part=FIELD, path=path, device=target, dtype=torch.float32
    ).requires_grad_(False)
    return Upscaler(title=found.title, scale=network.scale, network=network, device=target)


def _check_channels(channels: int, path: Path) -> None:
    if channels != 3:
        raise ModelError(
            f"takes pictures of {channels} channels, not RGB", field=FIELD, value=str(path)
        )


def _read(path: Path, allow_pickle: bool) -> State:
    if path.suffix.lower() == SAFE_SUFFIX:
        read_header(path)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"is damaged: {error}", field=FIELD, value=str(path)) from None
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        raise WeightsError(
            f"is no upscaler file: expected {SAFE_SUFFIX} or .pth", field=FIELD, value=str(path)
        )
    refuse_pickle(path, allowed=allow_pickle)
    loaded = unpickle(path)
    while isinstance(loaded, dict) and (key := next((k for k in WRAPPERS if k in loaded), None)):
        loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise WeightsError("holds no tensors by name", field=FIELD, value=str(path))
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def _by_spandrel(state: State, path: Path, device: torch.device) -> Upscaler:
    """The upscaler as spandrel knows it."""
    names = ", ".join(list(state)[:2]) or "none"
    unknown = "is no upscaler of a kind that is built in (ESRGAN's and Real-ESRGAN's are)"
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:
        installed = "" if isinstance(error, ImportError) else f" (it can't be used here: {error})"
        raise ModelError(
            f"{unknown}; its tensors: {names}. spandrel knows more kinds: {EXTRA}{installed}",
            field=FIELD,
            value=str(path),
        ) from None
    try:
        found = spandrel.ModelLoader(device=device).load_from_state_dict(state)
    except (spandrel.UnsupportedModelError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{unknown}, and spandrel doesn't know it either: {str(error).splitlines()[0]}",
            field=FIELD,
            value=str(path),
        ) from None
    _check_channels(found.input_channels, path)
    return Upscaler(
        title=found.architecture.name, scale=found.scale, network=found.eval(), device=device
    )
