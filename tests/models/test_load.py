"""`load`, against what diffusers and transformers load from the same files, to the bit."""

import json
import logging
import shutil
import socket
import warnings
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.tiny import save_refiner, save_sd, save_sd2, save_sdxl
from tintype import pocket
from tintype.errors import InputError, ModelError
from tintype.generation.engine import draw
from tintype.models.families.registry import FAMILIES
from tintype.models.load import load
from tintype.models.model import Model
from tintype.runtime.device import resolve_device
from tintype.types import GeneratedImage, GenerateRequest, Progress


def assert_same_weights(model: Model, reference: diffusers.DiffusionPipeline) -> None:
    for name, part in model.parts.items():
        ours, theirs = part.state_dict(), getattr(reference, name).state_dict()
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            assert tensor.dtype == theirs[key].dtype
            assert torch.equal(tensor, theirs[key]), f"{name}.{key}"
        buffers = dict(getattr(reference, name).named_buffers())
        assert buffers.keys() == dict(part.named_buffers()).keys()
        assert all(torch.equal(value, buffers[key]) for key, value in part.named_buffers())
        assert not part.training


SAVE = {"sd1": save_sd, "sd2": save_sd2, "sdxl": save_sdxl, "sdxl_refiner": save_refiner}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_loads_as_diffusers_loads_it(name: str, tmp_path: Path) -> None:
    folder = SAVE[name](tmp_path / "model")
    events: list[Progress] = []
    model = load(folder, device="cpu", on_event=events.append)
    reference = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert model.family.name == name
    assert_same_weights(model, reference)
    assert [event.message for event in events] == list(model.parts)
    assert events[-1].step == events[-1].total

    prompt = "a photo of sks dog, and more words than fit in this tiny one"
    for ours, theirs in zip(model.tokenizers, _tokenizers(reference), strict=True):
        assert ours(prompt).input_ids == theirs(prompt).input_ids
    ids = torch.tensor([[518, 512, 513, 519]])
    with torch.no_grad():
        encoder = reference.text_encoder or reference.text_encoder_2
        expected = encoder(ids).last_hidden_state
        assert torch.equal(model.text_encoders[0](ids).last_hidden_state, expected)
    assert model.scheduler_config["beta_schedule"] == "scaled_linear"
    assert model.native_size == 64


def _tokenizers(pipeline: diffusers.DiffusionPipeline) -> list[transformers.CLIPTokenizer]:
    names = ("tokenizer", "tokenizer_2")
    return [getattr(pipeline, name) for name in names if getattr(pipeline, name, None)]


def test_shards_and_fp16_variants_load(sd_folder: Path, tmp_path: Path) -> None:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    pipeline.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards" / "unet").glob("*-of-*.safetensors"))) > 2
    assert_same_weights(load(tmp_path / "shards", device="cpu"), pipeline)

    half = pipeline.to(torch.float16)
    half.save_pretrained(tmp_path / "half", variant="fp16")
    assert not (tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert_same_weights(load(tmp_path / "half", device="cpu", dtype="fp16"), half)
    half.save_pretrained(tmp_path / "both", variant="fp16", max_shard_size="100KB")
    assert_same_weights(load(tmp_path / "both", device="cpu", dtype=torch.float16), half)


def test_a_run_folder_brings_its_identifier_class_noun_and_defaults(
    sd_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sd_folder, run / "model")
    card = {
        "identifier": "sks",
        "class_noun": "dog",
        "base_model": "pocket",
        "defaults": {"train": {"steps": 7}},
    }
    (run / "model" / "tintype.json").write_text(json.dumps(card))
    for path in (run, run / "model"):
        loaded = load(str(path), device="cpu").card
        assert (loaded.id, loaded.path) == (str(path), run / "model")
        assert (loaded.identifier, loaded.class_noun) == ("sks", "dog")
        assert loaded.defaults == {"train": {"steps": 7}}
    assert load(sd_folder, device="cpu").card.identifier is None

    (run / "model" / "tintype.json").write_text('{"identifier": 3}')
    with pytest.raises(ModelError, match=r"identifier in .* should be a str"):
        load(run, device="cpu")


def test_older_names_of_tensors_load(sd_folder: Path, tmp_path: Path) -> None:
    """`text_model.` and position_ids (before transformers 5.6), the VAE's query, key, value."""
    folder = tmp_path / "older"
    shutil.copytree(sd_folder, folder)
    text = folder / "text_encoder" / "model.safetensors"
    older = {f"text_model.{name}": tensor for name, tensor in load_file(text).items()}
    older["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(older, text)
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in load_file(vae).items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{old}")
        renamed[name] = tensor
    assert "decoder.mid_block.attentions.0.query.weight" in renamed
    save_file(renamed, vae)
    reference = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    assert_same_weights(load(folder, device="cpu"), reference)


def test_weights_are_copies_that_outlive_their_files(sd_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sd_folder, folder)
    model = load(folder, device="cpu")
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start)
        file.write(bytes(weights.stat().st_size - start))
    after = model.unet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    model.unet.conv_in.weight.data.zero_()
    assert load(sd_folder, device="cpu").unet.conv_in.weight.abs().sum() > 0


def test_a_local_model_is_loaded_in_silence_without_network(
    sd_folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    capfd.readouterr()
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    before = [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries]
    filters = list(warnings.filters)
    load(sd_folder, device="cpu")
    assert [(lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in libraries] == before
    assert warnings.filters == filters
    assert logging.getLogger().level == logging.WARNING
    assert capfd.readouterr() == ("", "")


def test_devices_and_dtypes_are_checked_by_name(sd_folder: Path) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cuda", "mps", "cpu")
    assert load(sd_folder, device="cpu").dtype == torch.float32
    assert load(sd_folder, device="cpu", dtype="bf16").dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"device 'gpu': no such device.*cuda:N"):
        load(sd_folder, device="gpu")
    with pytest.raises(InputError, match="device 'xpu': not supported"):
        load(sd_folder, device="xpu")
    with pytest.raises(InputError, match=r"device 'cuda:99': (is not on this machine|no such GPU)"):
        load(sd_folder, device="cuda:99")
    with pytest.raises(InputError, match=r"dtype 'fp64': no such dtype.*fp32, fp16, bf16"):
        load(sd_folder, device="cpu", dtype="fp64")


EMBEDDED = {"pocket": "sd1", "pocket-lcm": "sd1", "pocket-inpainting": "sd1", "pocket-xl": "sdxl"}


@pytest.mark.parametrize("name", pocket.models())
def test_what_is_embedded_is_named_and_draws_by_its_own_defaults(name: str) -> None:
    model = load(name, device="cpu")
    assert model.family.name == EMBEDDED[name]
    defaults = model.card.defaults["generate"]
    fast = {"scheduler": "lcm", "steps": 4, "guidance_scale": 1.0}
    usual = {"steps": 20, "guidance_scale": 3.0, "guidance": {"end": 0.6}}
    assert defaults == (fast if name == "pocket-lcm" else usual)
    picture = next(
        event.image
        for event in draw(model, GenerateRequest(prompt="a photo of a cat on a blue background"))
        if isinstance(event, GeneratedImage)
    )
    assert picture.size == (128, 128)
    red, _, blue = picture.resize((1, 1), box=(0, 0, 128, 12)).getpixel((0, 0))
    assert blue > red + 60


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(ModelError, match="Did you mean pocket-lcm"):
        load("pocket-lcn", device="cpu")
