"""Merged models and adapters, against the sums done by hand."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.models.made import lora
from tintype.errors import InputError, ModelError
from tintype.models.adapters import applied, read_adapter, write_adapter
from tintype.models.convert.convert import Converted
from tintype.models.load import load
from tintype.models.loading.headers import read_header
from tintype.models.model import Model
from tintype.models.sharing.merge import merge as merge_request
from tintype.models.sharing.merge import parse_source
from tintype.types import MergeRequest

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


def merge(out: Path, *sources: Any, **fields: Any) -> Converted:
    return merge_request(MergeRequest(out=out, sources=tuple(map(str, sources)), **fields))


@pytest.fixture(scope="module")
def others(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two more models beside `sd_folder`, whose UNets differ from it; the rest is the same."""
    folder = tmp_path_factory.mktemp("others")
    made = []
    for seed in (1, 2):
        other = Path(shutil.copytree(sd_folder, folder / f"m{seed}"))
        state = load_file(other / UNET)
        torch.manual_seed(seed)
        state = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in state.items()}
        save_file(state, other / UNET, metadata={"format": "pt"})
        made.append(other)
    return made[0], made[1]


def states(*folders: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(folder / UNET) for folder in folders]


def test_a_weighted_sum(sd_folder: Path, others: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = others
    merge(tmp_path / "out", sd_folder, f"{one}:0.3", f"{two}:0.2")
    a, b, c, got = states(sd_folder, one, two, tmp_path / "out")
    for name, tensor in got.items():
        expected = 0.5 * a[name].double() + 0.3 * b[name].double() + 0.2 * c[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)
    # what the models share comes out to the bit
    vae = Path("vae") / "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "out" / vae).read_bytes() == (sd_folder / vae).read_bytes()
    halves = merge(tmp_path / "half.safetensors", sd_folder, one)
    assert (halves.kind, halves.layout) == ("model", "single-file")
    loaded = load(tmp_path / "half.safetensors", device="cpu").unet.state_dict()
    assert torch.equal(
        loaded["conv_in.bias"], a["conv_in.bias"] + 0.5 * (b["conv_in.bias"] - a["conv_in.bias"])
    )


def test_an_added_difference(sd_folder: Path, others: tuple[Path, Path], tmp_path: Path) -> None:
    """A + w (B - C), by component: with 0 for the UNet nothing changes."""
    one, two = others
    merge(tmp_path / "out", one, f"{two}:0.7", minus=str(sd_folder))
    a, b, c, got = states(one, two, sd_folder, tmp_path / "out")
    for name, tensor in got.items():
        torch.testing.assert_close(tensor, a[name] + 0.7 * (b[name] - c[name]), rtol=0, atol=1e-6)
    merge(tmp_path / "same", one, f"{two}:text_encoder=0.7", minus=str(sd_folder))
    assert all(torch.equal(t, a[name]) for name, t in load_file(tmp_path / "same" / UNET).items())


def test_an_inpainting_model_of_any_model(sd_folder: Path, tmp_path: Path) -> None:
    """inpainting + (custom - base): its further channels stay as they are."""
    inpaint = tiny.save_inpaint(tmp_path / "inpaint", seed=5)
    custom = tiny.save_sd(tmp_path / "custom", seed=6)
    merge(tmp_path / "out", inpaint, custom, minus=str(sd_folder))
    a, b, c, got = states(inpaint, custom, sd_folder, tmp_path / "out")
    name = "conv_in.weight"
    assert torch.equal(got[name][:, 4:], a[name][:, 4:])
    torch.testing.assert_close(got[name][:, :4], a[name][:, :4] + b[name] - c[name])
    with pytest.raises(ModelError, match=r"conv_in\.weight has shape \[16, 9, 3, 3\], expected"):
        merge(tmp_path / "other", custom, inpaint)


def test_the_result_names_its_sources(
    sd_folder: Path, others: tuple[Path, Path], tmp_path: Path
) -> None:
    one = Path(shutil.copytree(others[0], tmp_path / "one"))
    (one / "tintype.json").write_text('{"identifier": "sks", "class_noun": "dog"}')
    (one / "README.md").write_text("---\nlicense: mit\n---\nOne.\n")
    merge(tmp_path / "out.safetensors", sd_folder, f"{one}:0.25", dtype="fp16")
    metadata = read_header(tmp_path / "out.safetensors").metadata
    assert metadata["modelspec.merged_from"] == "sd, one (0.25)"
    assert metadata["modelspec.title"] == "out"
    assert metadata["modelspec.license"] == "mit"
    model = load(tmp_path / "out.safetensors", device="cpu")
    assert (model.card.identifier, model.card.class_noun) == ("sks", "dog")
    merge(tmp_path / "out", sd_folder, f"{one}:0.25")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "Merged from sd, one (0.25)." in readme
    assert readme.startswith("---\nlicense: mit\n")


@pytest.fixture(scope="module")
def loras(sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    model = load(sd_folder, device="cpu")
    folder = tmp_path_factory.mktemp("loras")
    for seed in (0, 1):
        write_adapter(lora(model, seed), folder / f"{seed}.safetensors", model, layout="kohya")
    return sorted(folder.glob("*.safetensors"))


def assert_close(one: Model, other: Model, atol: float = 1e-5) -> None:
    for name, part in one.parts.items():
        state = other.parts[name].state_dict()
        for key, tensor in part.state_dict().items():
            torch.testing.assert_close(tensor, state[key], rtol=0, atol=atol)


def test_adapters_are_baked_into_a_model(
    sd_folder: Path, loras: list[Path], tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    one, two = (read_adapter(file, model) for file in loras)
    merge(tmp_path / "out", sd_folder, f"{loras[0]}:0.8", f"{loras[1]}:unet=-0.5,text_encoder=0")
    got = load(tmp_path / "out", device="cpu")
    with applied(model, [(one, 0.8), (two, {"unet": -0.5, "text_encoder": 0.0})]):
        for name, part in model.parts.items():
            state = got.parts[name].state_dict()
            assert all(torch.equal(state[k], t) for k, t in part.state_dict().items())
    assert not torch.equal(
        got.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight,
        model.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight,
    )


def test_adapters_alone_become_one(sd_folder: Path, loras: list[Path], tmp_path: Path) -> None:
    base = load(sd_folder, device="cpu")
    merge(
        tmp_path / "both.safetensors", f"{loras[0]}:0.8", f"{loras[1]}:0.4",
        to="kohya", model=str(sd_folder),
    )  # fmt: skip
    header = read_header(tmp_path / "both.safetensors")
    assert header.metadata["modelspec.merged_from"] == "0.safetensors (0.8), 1.safetensors (0.4)"
    assert header.metadata["ss_network_dim"] == "8"
    both = read_adapter(tmp_path / "both.safetensors", base)
    one, two = (read_adapter(file, base) for file in loras)
    expected, got = load(sd_folder, device="cpu"), load(sd_folder, device="cpu")
    with applied(expected, [(one, 0.8), (two, 0.4)]), applied(got, [(both, 1.0)]):
        assert_close(got, expected)
    merge(tmp_path / "small", loras[0], loras[1], to="peft", rank=2, model=str(sd_folder))
    small = read_adapter(tmp_path / "small", base)
    assert {rank for part in small.parts for rank in part.ranks.values()} == {2}


def test_what_cannot_be_merged(
    sd_folder: Path, sdxl_folder: Path, loras: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    velocity = tiny.save_sd(tmp_path / "v", prediction_type="v_prediction")
    for error, told, sources, fields in (
        (ModelError, "it is SDXL, not Stable Diffusion 1.x", (sd_folder, sdxl_folder), {}),
        (ModelError, "its UNet predicts v_prediction, not epsilon", (sd_folder, velocity), {}),
        (InputError, r"add up to 0\.9, not 1", (f"{sd_folder}:0.6", f"{sd_folder}:0.3"), {}),
        (InputError, r"weight 'much': isn't a weight", (sd_folder, "x:much"), {}),
        (InputError, "--rank 4: is for adapters alone", (sd_folder, loras[0]), {"rank": 4}),
        (InputError, "takes two models at least", (sd_folder,), {"minus": str(sd_folder)}),
        (InputError, "is for models alone", loras, {"minus": str(sd_folder), "to": "kohya"}),
        (InputError, "in several layouts: say which with --to", loras, {}),
    ):  # fmt: skip
        with pytest.raises(error, match=told):
            merge(out, *sources, **fields)
    assert not out.exists()


def test_weights_are_read_from_the_end_of_a_name() -> None:
    assert parse_source("a/b.safetensors:0.5").weight == 0.5
    assert parse_source("owner/name").weight is None
    assert parse_source("C:\\models\\b.safetensors").name == "C:\\models\\b.safetensors"
    assert parse_source("a:unet=0.5, vae=0").weight == {"unet": 0.5, "vae": 0.0}
