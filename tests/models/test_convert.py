"""Conversions of whole models: to the bit, both ways, and as diffusers itself reads them."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from tests import tiny
from tests.models.ldm import open_clip, prefixed, unet_to_ldm, vae_to_ldm
from tests.models.test_single_file import PUBLISHED, assert_equal, ldm_state
from tintype.errors import InputError, ModelError, StorageError, WeightsError
from tintype.models.convert.convert import Converted
from tintype.models.convert.convert import convert as convert_request
from tintype.models.convert.names import unet_names, vae_names
from tintype.models.convert.original import open_clip_tensors
from tintype.models.convert.tensors import lazy, write_safetensors
from tintype.models.families.registry import family
from tintype.models.load import load
from tintype.models.loading.assemble import empty_text_encoder, empty_unet, empty_vae
from tintype.models.loading.headers import read_header
from tintype.models.loading.prefixes import UNET, VAE
from tintype.models.model import Model
from tintype.types import ConvertRequest

V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
MODELS: dict[str, Callable[[Path], Path]] = {
    "sd1": tiny.save_sd,
    "sd2": tiny.save_sd2,
    "sdxl": lambda folder: tiny.save_sdxl(folder, **V_ZERO),
    "edm": tiny.save_edm,
    "refiner": tiny.save_refiner,
    "inpaint": tiny.save_inpaint,
    "pocket": lambda folder: Path("pocket"),
}


def convert(
    source: Path | str, out: Path, *, allow_pickle: bool = False, **fields: Any
) -> Converted:
    request = ConvertRequest(source=str(source), out=out, **fields)
    return convert_request(request, allow_pickle=allow_pickle)


def plain(config: Any) -> dict[str, Any]:
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {key: value for key, value in values.items() if not key.startswith("_")}


def assert_same_model(ours: Model, reference: Model) -> None:
    """Weights, configs, schedule, options and tokens, all of them."""
    assert_equal(ours, reference)
    for name, part in reference.parts.items():
        assert plain(ours.parts[name].config) == plain(part.config)
    assert plain(ours.scheduler_config) == plain(reference.scheduler_config)
    options = {"force_zeros_for_empty_prompt", "requires_aesthetics_score"}
    for key in options & reference.extra_config.keys():
        assert ours.extra_config[key] == reference.extra_config[key]
    for one, other in zip(ours.tokenizers, reference.tokenizers, strict=True):
        prompt = "a photo of sks dog, ünïcode"
        assert one(prompt).input_ids == other(prompt).input_ids
        assert (one.pad_token, one.model_max_length) == (other.pad_token, other.model_max_length)


@pytest.mark.parametrize("kind", MODELS)
def test_there_and_back_is_the_same_model(kind: str, tmp_path: Path) -> None:
    """A file, and the folder made of it, load as the same model, and make the same file."""
    source = MODELS[kind](tmp_path / kind)
    reference = load(source, device="cpu")
    file, folder, again = (
        tmp_path / "m.safetensors",
        tmp_path / "b" / "m",
        tmp_path / "2.safetensors",
    )
    convert(source, file)
    assert_same_model(load(file, device="cpu"), reference)
    convert(file, folder)
    assert_same_model(load(folder, device="cpu"), reference)
    assert (folder / "tokenizer_2" if kind == "refiner" else folder / "tokenizer").is_dir()
    convert(folder, again)
    one, other = read_header(file), read_header(again)
    assert one.metadata["modelspec.hash_sha256"] == other.metadata["modelspec.hash_sha256"]
    assert list(one.shapes.items()) == list(other.shapes.items())


def configs_alone(folder: Path, place: Path) -> Path:
    """A folder's configs without its weights, which is what diffusers wants offline."""
    return Path(shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors")))


def save_full_depth_sd2(folder: Path) -> Path:
    """SD 2.x with 23 layers, of which diffusers knows that single files have 24."""
    tiny.save_sd2(folder)
    config = tiny.text_config(tiny.tokenizer(), 16, hidden_act="gelu")
    config.num_hidden_layers = 23
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusers_reads_our_single_files_to_the_bit(kind: str, tmp_path: Path) -> None:
    save = {**MODELS, "sd2": save_full_depth_sd2}[kind]
    folder = save(tmp_path / kind)
    convert(folder, tmp_path / "model.safetensors")
    if kind == "sd2":
        # what other tools expect, though the last layer conditions nothing
        names = read_header(tmp_path / "model.safetensors").tensors
        assert "cond_stage_model.model.transformer.resblocks.23.ln_1.weight" in names
    pipeline_class = getattr(diffusers, load(folder, device="cpu").family.pipeline)
    options: dict[str, Any] = {"safety_checker": None} if kind != "sdxl" else {}
    expected = pipeline_class.from_pretrained(folder, **options)
    got = pipeline_class.from_single_file(
        str(tmp_path / "model.safetensors"),
        config=str(configs_alone(folder, tmp_path / "configs")),
        local_files_only=True,
        **options,
    )
    modules = [n for n, part in expected.components.items() if isinstance(part, torch.nn.Module)]
    assert {"unet", "vae", "text_encoder"} <= set(modules)
    for name in modules:
        ours, theirs = got.components[name].state_dict(), expected.components[name].state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "pocket"])
def test_diffusers_reads_our_folders_to_the_bit(kind: str, tmp_path: Path) -> None:
    reference = load(MODELS[kind](tmp_path / kind), device="cpu")
    convert(reference.card.path, tmp_path / "file.safetensors")
    convert(tmp_path / "file.safetensors", tmp_path / "folder")
    got = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert type(got).__name__ == reference.family.pipeline
    for name, part in reference.parts.items():
        state = getattr(got, name).state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in part.state_dict().items())
    # older releases of transformers know the text encoder by these names alone
    text = load_file(tmp_path / "folder" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in text)
    vocabulary = json.loads((tmp_path / "folder/tokenizer/vocab.json").read_text("utf-8"))
    assert vocabulary == dict(
        sorted(reference.tokenizers[0].get_vocab().items(), key=lambda i: i[1])
    )
    assert (tmp_path / "folder/tokenizer/merges.txt").read_text("utf-8").startswith("#version")


def test_what_the_header_tells_other_tools(tmp_path: Path) -> None:
    sdxl = MODELS["sdxl"](tmp_path / "sdxl")
    (sdxl / "tintype.json").write_text('{"identifier": "sks", "class_noun": "dog", "x": 1}')
    (sdxl / "README.md").write_text("---\nlicense: openrail++\n---\nA model.\n")
    convert(sdxl, tmp_path / "m.safetensors")
    header = read_header(tmp_path / "m.safetensors")
    said = {k.removeprefix("modelspec."): v for k, v in header.metadata.items() if "spec" in k}
    digest = said.pop("hash_sha256")
    assert said == {
        "sai_model_spec": "1.0.1",
        "architecture": "stable-diffusion-xl-v1-base",
        "implementation": "https://github.com/Stability-AI/generative-models",
        "title": "sdxl",
        "resolution": "64x64",
        "prediction_type": "v",
        "license": "openrail++",
        "trigger_phrase": "sks dog",
    }
    start = min(info.start for info in header.tensors.values())
    data = (tmp_path / "m.safetensors").read_bytes()[start:]
    assert digest == f"0x{hashlib.sha256(data).hexdigest()}"
    assert json.loads(header.metadata["tintype.card"])["x"] == 1
    assert {"v_pred", "ztsnr"} <= header.tensors.keys()
    loaded = load(tmp_path / "m.safetensors", device="cpu")
    assert (loaded.card.identifier, loaded.card.class_noun) == ("sks", "dog")
    convert(MODELS["edm"](tmp_path / "edm"), tmp_path / "e.safetensors")
    assert {"edm_mean", "edm_std"} <= read_header(tmp_path / "e.safetensors").tensors.keys()


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp8"])
def test_precisions(dtype: str, tmp_path: Path, sd_folder: Path) -> None:
    """Stored in it, in a file and in a folder, and loaded as what it was rounded to."""
    plain_kind = torch.bfloat16 if dtype == "bf16" else torch.float16
    reference = load(sd_folder, device="cpu")
    convert(sd_folder, tmp_path / "m.safetensors", dtype=dtype)
    convert(tmp_path / "m.safetensors", tmp_path / "m")
    loaded = load(tmp_path / "m", device="cpu")
    for name, part in reference.parts.items():
        file = load_file(next((tmp_path / "m" / name).glob("*.safetensors")))
        stored = {key.removeprefix("text_model."): tensor for key, tensor in file.items()}
        for key, tensor in part.state_dict().items():
            eight = dtype == "fp8" and tensor.dim() > 1 and name != "vae"
            kind = torch.float8_e4m3fn if eight else plain_kind
            assert stored[key].dtype == kind
            assert torch.equal(loaded.parts[name].state_dict()[key], tensor.to(kind).float())
    convert(sd_folder, tmp_path / "wide.safetensors", dtype="fp32")
    size = (tmp_path / "wide.safetensors").stat().st_size
    assert (tmp_path / "m.safetensors").stat().st_size < size * (0.5 if dtype == "fp8" else 0.6)


def test_numbers_that_a_precision_cannot_hold(tmp_path: Path, sd_folder: Path) -> None:
    folder = Path(shutil.copytree(sd_folder, tmp_path / "sd"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_in.weight"][0, 0, 0, 0] = 1e5
    save_file(state, weights, metadata={"format": "pt"})
    for dtype, told in (("fp16", "too large for float16"), ("fp8", "too large for fp8")):
        with pytest.raises(WeightsError, match=rf"unet: tensor conv_in\.weight is {told}"):
            convert(folder, tmp_path / "out.safetensors", dtype=dtype)
    state["conv_in.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="holds NaN"):
        convert(folder, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["sd"]


def test_pruning_leaves_out_what_no_part_has(tmp_path: Path, sd_folder: Path) -> None:
    state = ldm_state(load(sd_folder, device="cpu").parts)
    others = {"model_ema.diffusion_modelx": torch.ones(3), "betas": torch.ones(4)}
    source = tmp_path / "source.safetensors"
    save_file(
        {**state, **others}, source, metadata={"modelspec.author": "me", "sshs_model_hash": "1"}
    )
    convert(source, tmp_path / "whole.safetensors")
    convert(source, tmp_path / "pruned.safetensors", pruned=True)
    assert load_file(tmp_path / "whole.safetensors").keys() == {**state, **others}.keys()
    assert load_file(tmp_path / "pruned.safetensors").keys() == state.keys()
    metadata = read_header(tmp_path / "pruned.safetensors").metadata
    assert metadata["modelspec.author"] == "me"
    assert "sshs_model_hash" not in metadata


def test_a_pickle_is_converted_where_it_is_trusted(tmp_path: Path, sd_folder: Path) -> None:
    reference = load(sd_folder, device="cpu")
    torch.save({"state_dict": ldm_state(reference.parts)}, tmp_path / "old.ckpt")
    with pytest.raises(WeightsError, match="--allow-pickle"):
        convert(tmp_path / "old.ckpt", tmp_path / "new.safetensors")
    convert(tmp_path / "old.ckpt", tmp_path / "new.safetensors", allow_pickle=True)
    assert_equal(load(tmp_path / "new.safetensors", device="cpu"), reference)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, sd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def opening(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode == "wb" and self.is_relative_to(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *rest, **named)

    for out in (tmp_path / "out", tmp_path / "out.safetensors"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opening)
            with pytest.raises(StorageError, match="No space left"):
                convert(sd_folder, out)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 9))
            with pytest.raises(StorageError, match=r"needs 0\.0 GB, and 0\.0 GB are free"):
                convert(sd_folder, out)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept(tmp_path: Path, sd_folder: Path) -> None:
    file, folder, others = tmp_path / "m.safetensors", tmp_path / "m", tmp_path / "others"
    convert(sd_folder, file)
    convert(sd_folder, folder)
    others.mkdir()
    (others / "letter.txt").write_text("dear")
    for out in (file, folder):
        with pytest.raises(InputError, match="exists already: add --force"):
            convert(sd_folder, out)
        convert(out, out, force=True)
        assert_equal(load(out, device="cpu"), load(sd_folder, device="cpu"))
    with pytest.raises(InputError, match="holds other things than a model"):
        convert(sd_folder, others, force=True)
    assert (others / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("out", "options", "told"),
    [
        ("m.ckpt", {}, r"a model becomes a file that ends in \.safetensors, or a folder"),
        ("m", {"to": "single-file"}, r"a model becomes a file that ends in \.safetensors"),
        ("m.safetensors", {"to": "diffusers"}, "a model becomes a folder"),
        ("m", {"to": "kohya"}, r"isn't a layout of a model\..*Choices: diffusers, single-file"),
        ("m", {"dtype": "fp9"}, r"dtype 'fp9': not one of the choices.*Did you mean fp"),
    ],
)
def test_what_is_asked_in_vain(
    out: str, options: dict[str, str], told: str, tmp_path: Path, sd_folder: Path
) -> None:
    with pytest.raises(InputError, match=told):
        convert(sd_folder, tmp_path / out, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_are_those_of_the_originals(name: str) -> None:
    """In full size, without storage, against names worked out by hand."""
    published = PUBLISHED[name]
    with torch.device("meta"):
        unet, vae = empty_unet(published["unet"]), empty_vae(published["vae"])
        config = next(published[part] for part in published if part.startswith("text"))
        encoder = empty_text_encoder("CLIPTextModelWithProjection", config)
    state = unet.state_dict()
    expected = prefixed(UNET, unet_to_ldm(state, int(unet.config.layers_per_block)))
    assert unet_names(state.keys(), unet.config) == dict(zip(state, expected, strict=True))
    state = vae.state_dict()
    expected = prefixed(VAE, vae_to_ldm(state))
    assert vae_names(state.keys(), vae.config) == dict(zip(state, expected, strict=True))
    entries = lazy(encoder.state_dict())
    spec = family("sdxl").text_encoders[1]
    got = open_clip_tensors(spec, entries)
    reference = prefixed(spec.prefix, open_clip(encoder.state_dict()))
    assert {n: e.shape for n, e in got.items()} == {n: t.shape for n, t in reference.items()}


def test_a_model_without_names_in_the_original_layout_says_so() -> None:
    unet = empty_unet({**tiny.unet(16, attention_head_dim=4).config, "mid_block_type": None})
    with pytest.raises(ModelError, match=r"no place for its .*; keep this model as a diffusers f"):
        unet_names(unet.state_dict().keys() | {"odd.weight"}, unet.config)


def test_our_files_are_laid_out_as_safetensors_does(tmp_path: Path) -> None:
    state = {
        "b": torch.randn(3, 5),
        "a": torch.randn(2).half(),
        "c": torch.arange(7),
        "ä": torch.randn(4, 4).bfloat16().T.contiguous(),
        "e": torch.zeros(0),
        "f": torch.randn(3).to(torch.float8_e4m3fn),
        "s": torch.tensor(2.0),
    }
    save_file(state, tmp_path / "theirs", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours", lazy(state), {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
