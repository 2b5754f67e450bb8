"""Upscaler files: every layout of names, sizes read off shapes, tiles without seams."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from tests.training.helpers import noise_picture
from tintype.errors import ModelError, WeightsError
from tintype.models.upscalers.load import load_upscaler
from tintype.models.upscalers.networks import RRDBNet
from tintype.models.upscalers.recognise import recognise
from tintype.models.upscalers.tiles import by_tiles, starts

State = dict[str, Tensor]
WIDTH, GROWTH, BLOCKS = 8, 4, 2
SIZES = {1: (2, 4), 2: (2, 2), 4: (2, 1), 8: (3, 1)}  # scale -> doublings and unshuffle


def rrdb(scale: int, *, doublings: int | None = None, unshuffle: int = 1) -> State:
    """Random tensors of ESRGAN's network by Real-ESRGAN's names."""
    ups = {1: 0, 2: 1, 4: 2, 8: 3}[scale] if doublings is None else doublings
    shapes = {"conv_first": (WIDTH, 3 * unshuffle**2), "conv_body": (WIDTH, WIDTH)}
    for block in range(BLOCKS):
        for dense in (1, 2, 3):
            for conv in (1, 2, 3, 4, 5):
                out = WIDTH if conv == 5 else GROWTH
                name = f"body.{block}.rdb{dense}.conv{conv}"
                shapes[name] = (out, WIDTH + (conv - 1) * GROWTH)
    shapes |= {f"conv_up{i + 1}": (WIDTH, WIDTH) for i in range(ups)}
    return random(shapes | {"conv_hr": (WIDTH, WIDTH), "conv_last": (3, WIDTH)})


def compact(scale: int, convs: int = 3) -> State:
    """Random tensors of Real-ESRGAN's compact network."""
    last = 2 * convs + 2
    shapes = {"body.0": (WIDTH, 3), f"body.{last}": (3 * scale**2, WIDTH)}
    state = random(shapes | {f"body.{2 * i + 2}": (WIDTH, WIDTH) for i in range(convs)})
    return state | {f"body.{2 * i + 1}.weight": torch.rand(WIDTH) for i in range(convs + 1)}


def random(shapes: dict[str, tuple[int, int]]) -> State:
    torch.manual_seed(0)
    state: State = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.randn(*shape, 3, 3) / (9 * shape[1]) ** 0.5
        state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1
    return state


def old_names(state: State) -> State:
    """ESRGAN's first names: a row of layers, numbered with those that have no weights."""
    ups = sum(1 for name in state if re.fullmatch(r"conv_up\d\.weight", name))
    layers = {"conv_first": "0", "conv_body": f"1.sub.{BLOCKS}"}
    layers |= {f"conv_up{i}": str(3 * i) for i in range(1, ups + 1)}
    layers |= {"conv_hr": str(3 * ups + 2), "conv_last": str(3 * ups + 4)}
    named: State = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        inner = re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer)
        place = "1.sub.{}.RDB{}.conv{}.0".format(*inner.groups()) if inner else layers[layer]
        named[f"model.{place}.{kind}"] = tensor
    return named


def trunk_names(state: State) -> State:
    """Those of BSRGAN and RealSR."""
    pairs = {
        r"^body\.(\d+)\.rdb": r"RRDB_trunk.\1.RDB",
        r"^conv_body": "trunk_conv",
        r"^conv_up": "upconv",
        r"^conv_hr": "HRconv",
    }
    named = state
    for pattern, name in pairs.items():
        named = {re.sub(pattern, name, key): tensor for key, tensor in named.items()}
    return named


def expected(state: State, pixels: Tensor, ups: int, unshuffle: int) -> Tensor:
    """ESRGAN's formula, written out on its tensors."""

    def conv(x: Tensor, name: str) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    x = first = conv(functional.pixel_unshuffle(pixels, unshuffle), "conv_first")
    for block in range(BLOCKS):
        inside = x
        for dense in (1, 2, 3):
            name, seen = f"body.{block}.rdb{dense}.conv", [inside]
            for number in (1, 2, 3, 4):
                seen.append(leaky(conv(torch.cat(seen, 1), f"{name}{number}")))
            inside = seen[0] + 0.2 * conv(torch.cat(seen, 1), f"{name}5")
        x = x + 0.2 * inside
    x = first + conv(x, "conv_body")
    for number in range(ups):
        larger = x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        x = leaky(conv(larger, f"conv_up{number + 1}"))
    return conv(leaky(conv(x, "conv_hr")), "conv_last")


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_every_layout_of_esrgan_is_the_same_network(scale: int, tmp_path: Path) -> None:
    """Old and new names, with and without pixel unshuffling, safetensors and pickles."""
    doublings, unshuffle = SIZES[scale]
    picture = noise_picture(1, (24, 16))
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
    for ups, packed in ((doublings, unshuffle), ({1: 0, 2: 1, 4: 2, 8: 3}[scale], 1)):
        state = rrdb(scale, doublings=ups, unshuffle=packed)
        wanted = expected(state, pixels, ups, packed)[0].clamp(0, 1).permute(1, 2, 0) * 255
        assert wanted.std() > 2
        layouts = [state, old_names(state)] + ([trunk_names(state)] if ups else [])
        for number, named in enumerate(layouts):
            file = tmp_path / f"{number}.safetensors"
            save_file(named, file)
            found = load_upscaler(file)
            assert found.scale == scale
            assert found.title == f"ESRGAN x{scale}"
            drawn = np.asarray(found.enlarged(picture), dtype=float)
            assert np.abs(drawn - wanted.round().numpy()).max() <= 1
            pickled = tmp_path / f"{number}.pth"
            torch.save({"params": {}, "params_ema": named}, pickled)
            with pytest.raises(WeightsError, match="is a pickle"):
                load_upscaler(pickled)
            again = load_upscaler(pickled, allow_pickle=True)
            assert np.array_equal(again.enlarged(picture), drawn)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_compact_network_equals_its_formula(scale: int, tmp_path: Path) -> None:
    state = compact(scale)
    save_file(state, tmp_path / "small.safetensors")
    found = load_upscaler(tmp_path / "small.safetensors")
    pixels = torch.rand(1, 3, 10, 14)
    x = pixels
    for layer in range(9):
        weight, bias = state[f"body.{layer}.weight"], state.get(f"body.{layer}.bias")
        if bias is None:
            x = torch.where(x > 0, x, weight[:, None, None] * x)
        else:
            x = functional.conv2d(x, weight, bias, padding=1)
    larger = pixels.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2)
    wanted = functional.pixel_shuffle(x, scale) + larger
    with torch.no_grad():
        ours = found.network(pixels)
    assert found.scale == scale
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_a_side_that_cannot_be_unshuffled_is_padded() -> None:
    found = recognise(rrdb(1, doublings=2, unshuffle=4))
    assert found is not None
    network = found.make()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 13, 18)).shape == (1, 3, 13, 18)


def test_tiles_leave_no_seams() -> None:
    """Where a tile sees enough around it, it is the whole picture's; where not, they fade."""
    torch.manual_seed(0)
    network = RRDBNet(channels=3, width=8, growth=4, blocks=1, doublings=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=(2 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1)
        pixels = torch.rand(1, 3, 150, 210)
        whole = network(pixels)
        tiled = by_tiles(network, pixels, 2, tile=96)
        cut = torch.cat([network(part) for part in pixels.split(105, dim=-1)], dim=-1)
    scale = 1 / (whole.max() - whole.min())
    assert scale * (tiled - whole).abs().max() < 1 / 255
    assert scale * (cut - whole).abs().max() > 10 / 255, "without overlap there is a seam"
    assert torch.allclose(by_tiles(lambda tile: tile, pixels, 1, tile=80), pixels, atol=1e-6)
    assert starts(210, 96) == [0, 32, 64, 96, 114]
    assert starts(96, 96) == [0]


def test_a_size_is_reached_by_repeating_and_resizing(tmp_path: Path) -> None:
    save_file(compact(2), tmp_path / "x2.safetensors")
    found = load_upscaler(tmp_path / "x2.safetensors")
    picture = noise_picture(2, (20, 12))
    twice = found.enlarged(found.enlarged(picture))
    assert np.array_equal(found.to_size(picture, (80, 48)), twice)
    smaller = found.enlarged(picture).resize((30, 18), Image.Resampling.LANCZOS)
    assert np.array_equal(found.to_size(picture, (30, 18)), smaller)


def test_what_is_no_upscaler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)  # as where it isn't installed

    def told(state: State, error: type[Exception] = ModelError) -> str:
        file = tmp_path / "some.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
        with pytest.raises(error) as caught:
            load_upscaler(file)
        assert str(file) in str(caught.value)
        return str(caught.value)

    plus = old_names(rrdb(4)) | {"model.1.sub.0.RDB1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}
    broken = {name: t for name, t in rrdb(4).items() if name != "body.1.rdb2.conv3.bias"}
    nan = rrdb(4) | {"conv_hr.bias": torch.full((WIDTH,), float("nan"))}
    grey = compact(2) | {
        "body.0.weight": torch.zeros(WIDTH, 1, 3, 3),
        "body.8.weight": torch.zeros(4, WIDTH, 3, 3),
        "body.8.bias": torch.zeros(4),
    }
    assert "pip install 'tintype[upscale]'" in told({"layers.0.attn.weight": torch.zeros(2)})
    assert "1 tensors that its config has no place for" in told(plus, WeightsError)
    assert "body.1.rdb2.conv3.bias" in told(broken, WeightsError)
    assert "holds NaN" in told(nan, WeightsError)
    assert "takes pictures of 1 channels" in told(grey)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsError, match="truncated"):
        load_upscaler(tmp_path / "cut.safetensors")
