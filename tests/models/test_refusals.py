"""Files that must not be loaded: each refusal says what was found and what was expected."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.test_single_file import ldm_state
from tintype.errors import ModelError, WeightsError
from tintype.models.load import load
from tintype.models.loading.check import check_finite
from tintype.models.loading.locate import Location, locate
from tintype.pocket import weights_dir

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(sd_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small model that a test may damage."""
    return Path(shutil.copytree(sd_folder, tmp_path / "model"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def as_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167536\n")


def cross_extents(path: Path) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["conv_in.weight"]["shape"] = [7, 7]
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"unet.*is truncated: found \d+ bytes, expected \d+"),
        (lambda path: path.write_bytes(path.read_bytes()[:5]), "is truncated: found 5 bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:99]), "is truncated: found 99 bytes"),
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (as_pointer, r"is a git-lfs pointer, .* of 3438 MB\. Fetch them with: git lfs pull"),
        (lambda path: path.write_bytes(b"\xff" * 999), "is not a safetensors file: its header"),
        (lambda path: path.write_text("<!DOCTYPE html>" * 9), "looks like a web page"),
        (lambda path: path.write_bytes(b"\x08" + bytes(7) + b"[1, 2,3]"), "header can't be read"),
        (lambda path: torch.save({}, path), "holds a pickle although it is named .safetensors"),
        (cross_extents, r"tensor conv_in.weight of shape \[7, 7\] has a wrong extent"),
        (lambda path: path.unlink(), "weights of unet is missing .expected a .safetensors file in"),
    ],
)
def test_a_damaged_file_is_refused(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder / UNET)
    with pytest.raises(WeightsError, match=message):
        load(folder, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, value: float) -> None:
    state = load_file(folder / UNET)
    state["up_blocks.0.resnets.1.conv1.weight"][3, 2, 1, 0] = value
    save_file(state, folder / UNET)
    kind = "NaN" if value != value else "infinity"
    message = rf"unet: tensor up_blocks.0.resnets.1.conv1.weight holds {kind} \(1 of \d+ values"
    with pytest.raises(WeightsError, match=message):
        load(folder, device="cpu")


def test_every_place_and_dtype_is_looked_at_for_nan() -> None:
    path = Path("file")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for size in (1, 7, 33, 1025):
            clean = torch.randn(size).to(dtype)
            check_finite("clean", clean, clean, part="unet", path=path)
            for place in {0, size // 2, size - 1}:
                bad = clean.clone()
                bad[place] = float("nan")
                with pytest.raises(WeightsError, match="tensor bad holds NaN"):
                    check_finite("bad", bad, bad, part="unet", path=path)


def test_a_cast_that_overflows_is_told_from_damage(folder: Path) -> None:
    state = load_file(folder / UNET)
    state["conv_out.bias"][0] = 1e6
    save_file(state, folder / UNET)
    with pytest.raises(WeightsError, match=r"conv_out.bias is too large for float16: load it as"):
        load(folder, device="cpu", dtype="fp16")
    assert load(folder, device="cpu").unet.conv_out.bias[0] == 1e6


def test_tensors_that_disagree_with_the_config_are_refused(folder: Path) -> None:
    state = load_file(folder / UNET)
    save_file({**state, "conv_in.weight": torch.ones(16, 4, 1, 1)}, folder / UNET)
    with pytest.raises(
        WeightsError,
        match=r"conv_in.weight has shape \[16, 4, 1, 1\], but its config expects \[16, 4, 3, 3\]",
    ):
        load(folder, device="cpu")
    save_file({k: v for k, v in state.items() if k != "conv_out.bias"}, folder / UNET)
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing, conv_out.bias for one"):
        load(folder, device="cpu")
    save_file({**state, "extra.bias": torch.ones(1)}, folder / UNET)
    with pytest.raises(WeightsError, match=r"1 tensors that its config has no place for, extra.b"):
        load(folder, device="cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    with pytest.raises(WeightsError, match=f"{part} is missing .expected .*{part}"):
        load(folder, device="cpu")


def test_a_broken_tokenizer_and_config_are_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match="can't be read as a CLIP tokenizer"):
        load(folder, device="cpu")
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="isn't readable JSON"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"cross_attention_dim": 99}, "cross_attention_dim is 99, but the text encoder gi"),
        ("unet", {"in_channels": 8}, "found InstructPix2Pix: its UNet takes 8 channels, its VAE"),
        ("unet", {"class_embed_type": "projection"}, "found a UNet with class embeddings"),
        ("unet", {"addition_embed_type": "image"}, "found a UNet with addition_embed_type 'image'"),
        ("unet", {"addition_embed_type": "text_time"}, "text_encoder_2 is missing"),
    ],
)
def test_another_familys_config_is_refused(
    folder: Path, part: str, changes: dict[str, object], message: str
) -> None:
    edit_json(folder / part / "config.json", **changes)
    with pytest.raises(WeightsError, match=message):
        load(folder, device="cpu")


def test_other_families_folders_are_named(tmp_path: Path) -> None:
    for name, title in (("FluxTransformer2DModel", "Flux"), ("SD3Transformer2DModel", "SD 3")):
        other = tmp_path / name
        (other / "transformer").mkdir(parents=True)
        (other / "model_index.json").write_text('{"_class_name": "SomePipeline"}')
        (other / "transformer" / "config.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(WeightsError, match=f"found {title}; expected Stable Diffusion 1.x, "):
            load(other, device="cpu")


@pytest.mark.parametrize(
    ("found", "shapes"),
    [
        ("a LoRA", {"lora_unet_down_blocks_0.lora_down.weight": (4, 16)}),
        ("a LoRA", {"unet.down_blocks.0.attn1.to_k.lora_A.weight": (4, 16)}),
        ("a textual inversion", {"emb_params": (3, 768)}),
        ("a textual inversion", {"clip_l": (3, 768), "clip_g": (3, 1280)}),
        ("a ControlNet", {"control_model.input_blocks.0.0.weight": (16, 4, 3, 3)}),
        ("a bare VAE", {"encoder.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}),
        ("a bare UNet", {"model.diffusion_model.input_blocks.0.0.weight": (16, 4, 3, 3)}),
        ("a bare UNet", {"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}),
        ("a Flux", {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (16, 4)}),
        ("an SD 3", {"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight": (16, 4)}),
        (
            "a file of unknown kind .more, third, weights",
            dict.fromkeys(["more", "third", "weights"], (1, 1, 1, 1)),
        ),
    ],
)
def test_other_kinds_of_files_are_named(
    tmp_path: Path, found: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    file = tmp_path / "sd15-model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, file)
    with pytest.raises(
        WeightsError, match=f"found {found}.*(; expected Stable|, not a model: name its base)"
    ):
        load(file, device="cpu")


def test_a_single_file_without_a_part_names_it(sd_folder: Path, tmp_path: Path) -> None:
    state = ldm_state(load(sd_folder, device="cpu").parts)
    for prefix, part in (("first_stage", "vae"), ("cond_stage", "text_encoder")):
        file = tmp_path / f"{part}.safetensors"
        save_file({k: v for k, v in state.items() if not k.startswith(prefix)}, file)
        with pytest.raises(WeightsError, match=rf"{part} is missing .expected tensors {prefix}"):
            load(file, device="cpu")


class Payload:
    """Unpickled carelessly, makes the folder that it names."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_a_malicious_pickle_runs_nothing_with_and_without_the_flag(
    tmp_path: Path, suffix: str
) -> None:
    mark, file = tmp_path / "ran", tmp_path / f"model{suffix}"
    torch.save({"state_dict": {"a": torch.ones(1), "b": Payload(mark)}}, file)
    with pytest.raises(WeightsError, match=r"is a pickle, which can run code.*--allow-pickle"):
        load(file, device="cpu")
    with pytest.raises(WeightsError, match=r"holds more than tensors .* nothing in it was run"):
        load(file, device="cpu", allow_pickle=True)
    file.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(WeightsError, match=r"holds more than tensors|truncated or damaged"):
        load(file, device="cpu", allow_pickle=True)
    assert not mark.exists()
    pickle.loads(file.read_bytes())
    assert mark.exists(), "the pickle is malicious indeed"


def test_pickles_load_with_the_flag(folder: Path, tmp_path: Path) -> None:
    reference = load(folder, device="cpu")
    checkpoint = tmp_path / "model.ckpt"
    torch.save({"state_dict": ldm_state(reference.parts), "epoch": 3}, checkpoint)
    whole = load(checkpoint, device="cpu", allow_pickle=True)
    assert torch.equal(whole.unet.conv_in.weight, reference.unet.conv_in.weight)

    torch.save(load_file(folder / UNET), (folder / UNET).with_suffix(".bin"))
    (folder / UNET).unlink()
    with pytest.raises(WeightsError, match=r"model.bin': is a pickle.*Take the .safetensors"):
        load(folder, device="cpu")
    loaded = load(folder, device="cpu", allow_pickle=True)
    assert torch.equal(loaded.unet.conv_in.weight, reference.unet.conv_in.weight)

    truncate(checkpoint)
    with pytest.raises(WeightsError, match="is truncated or damaged"):
        load(checkpoint, device="cpu", allow_pickle=True)


def test_a_name_that_is_no_model_gets_choices_and_near_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()
    assert locate("pocket") == Location(id="pocket", path=weights_dir())
    with pytest.raises(ModelError, match=r"no such model.*Did you mean pocket.*owner/name"):
        load("poket")
    with pytest.raises(ModelError, match=r"lies at .*modle\. Did you mean model\?"):
        load("modle")
    with pytest.raises(ModelError, match=r"no such model.*Did you mean .*model/unet or"):
        load("model/unett")
    with pytest.raises(ModelError, match=r"no such model"):
        load("owner/model.safetensors")
    with pytest.raises(WeightsError, match="found a bare UNet, one part of a model"):
        load(folder / "unet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no model folder: found nothing; expected model_index"):
        load("empty")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match="has no model yet; finish it with: tintype train --res"):
        load("run")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(WeightsError, match=r"is no weights file: expected .safetensors"):
        load("notes.txt")
    with pytest.raises(ModelError, match=r"is not .or not wholly. in the hub's cache"):
        load("owner/name", offline=True, cache_dir=tmp_path / "cache")
