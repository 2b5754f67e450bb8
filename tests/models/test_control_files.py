"""ControlNets, T2I-Adapters and IP-Adapters in one file, by the names of their authors."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.generation.nets import (
    control_to_ldm,
    save_attentive,
    save_controlnet,
    save_deep,
    save_ip,
    save_t2i,
    t2i_to_original,
)
from tintype.errors import ModelError, WeightsError
from tintype.models.control.ip import IPAdapter
from tintype.models.control.load import load_control
from tintype.models.load import load

WEIGHTS = "diffusion_pytorch_model.safetensors"


def same(net: Any, folder: Path) -> bool:
    """Whether a net has exactly the weights in a diffusers folder."""
    ours, theirs = net.state_dict(), load_file(folder / WEIGHTS)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def layers(folder: Path) -> int:
    return int(diffusers.ControlNetModel.load_config(folder)["layers_per_block"])


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_an_original_controlnet_is_its_folder(
    kind: str, sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    base = {"sd": sd_folder, "xl": sdxl_folder}[kind]
    folder = save_controlnet(tmp_path / "net", base, 1)
    original = control_to_ldm(load_file(folder / WEIGHTS), layers(folder))
    assert {"input_hint_block.0.weight", "zero_convs.0.0.weight"} <= original.keys()
    prefixed = {f"control_model.{name}": tensor for name, tensor in original.items()}
    beside = {"model.diffusion_model.out.2.bias": torch.zeros(4)}
    model = load(base, device="cpu")
    for number, state in enumerate((original, prefixed, prefixed | beside)):
        file = tmp_path / f"{number}.safetensors"
        save_file(state, file)
        assert same(load_control(file, model), folder)
    pickled = tmp_path / "net.pth"
    torch.save({"state_dict": prefixed | beside}, pickled)
    with pytest.raises(WeightsError, match="is a pickle"):
        load_control(pickled, model)
    assert same(load_control(pickled, model, allow_pickle=True), folder)
    other = load(sdxl_folder if kind == "sd" else sd_folder, device="cpu")
    with pytest.raises(ModelError, match=r"control\.model '.*': is for another family"):
        load_control(tmp_path / "1.safetensors", other)


@pytest.mark.parametrize("kind", ["full_adapter", "full_adapter_xl", "light_adapter"])
def test_an_original_t2i_adapter_is_its_folder(
    kind: str, sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    deep = kind == "full_adapter_xl"
    save, plain = (save_deep, sdxl_folder) if deep else (save_attentive, sd_folder)
    model = load(save(tmp_path / "base", plain), device="cpu")
    folder = save_t2i(
        tmp_path / "net",
        1,
        adapter_type=kind,
        downscale_factor=16 if deep else 8,
        channels=[16, 32, 32, 32] if deep else [16, 32],
        num_res_blocks=2,
        in_channels=1 if kind == "full_adapter" else 3,
    )
    state = load_file(folder / WEIGHTS)
    original = t2i_to_original(state)
    assert original.keys().isdisjoint(state)
    config = diffusers.T2IAdapter.load_config(folder)
    written = {
        "its": state,
        "theirs": original,
        "prefixed": {f"adapter.{n}": t for n, t in original.items()},
    }
    for name, tensors in written.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
        net: Any = load_control(tmp_path / f"{name}.safetensors", model)
        assert same(net, folder), name
        chosen = ("adapter_type", "downscale_factor", "in_channels", "channels", "num_res_blocks")
        assert {key: net.config[key] for key in chosen} == {key: config[key] for key in chosen}
    another = save_attentive(tmp_path / "other", sd_folder) if deep else sdxl_folder
    other = load(another, device="cpu")
    with pytest.raises(ModelError, match="is for another family"):
        load_control(tmp_path / "theirs.safetensors", other)


def test_an_ip_adapter_in_a_pickle_is_that_of_its_file(sd_folder: Path, tmp_path: Path) -> None:
    file = save_ip(tmp_path, sd_folder, 1)
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(file).items():
        group, _, rest = name.partition(".")
        groups[group][rest] = tensor
    pickled = file.with_suffix(".bin")
    torch.save(groups, pickled)
    model = load(sd_folder, device="cpu")
    with pytest.raises(WeightsError, match="is a pickle"):
        load_control(pickled, model)
    both = [load_control(one, model, allow_pickle=True) for one in (file, pickled)]
    assert all(isinstance(one, IPAdapter) for one in both)
    first, second = (one.keys + one.values for one in both)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"lora_controlnet": (0,), "input_blocks.1.0.in_layers.2.up": (2, 2)}, "a control-LoRA"),
        ({"lllite_unet_input_blocks_4.down.0.weight": (2, 2)}, "a ControlLLLite"),
        ({"difference": (0,), "control_model.input_hint_block.0.weight": (2, 2)}, "the difference"),
        (
            {"image_proj.proj.0.weight": (2, 2), "image_proj.proj.2.weight": (2, 2)},
            "an IP-Adapter FaceID: .* InsightFace",
        ),
        ({"image_proj.perceiver_resampler.proj_in.weight": (2, 2)}, "an IP-Adapter FaceID"),
        ({"image_proj.other": (2, 2)}, "of a kind that isn't known"),
        ({"some.weight": (2, 2)}, "neither a ControlNet nor a T2I-Adapter nor an IP-Adapter"),
    ],
)
def test_what_cannot_lead_is_named(
    state: dict[str, tuple[int, ...]], said: str, sd_folder: Path, tmp_path: Path
) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in state.items()}
    if any(name.startswith("image_proj") for name in state):
        tensors["ip_adapter.1.to_k_ip.weight"] = torch.zeros(2, 2)
    file = tmp_path / "some.safetensors"
    save_file(tensors, file)
    with pytest.raises(ModelError, match=said) as caught:
        load_control(file, load(sd_folder, device="cpu"))
    assert caught.value.field == "control.model"
