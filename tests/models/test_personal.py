"""Personal models: a base by name, and what lies in the folder put on it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from tests.models.adapting import TEXT, difference, given, same, weights, with_peft
from tintype.errors import ModelError, WeightsError
from tintype.models.adapters import Adapter, applied
from tintype.models.describe import describe
from tintype.models.embeddings.embeddings import Embedding, embedded
from tintype.models.hashing import model_key
from tintype.models.load import load
from tintype.models.model import Model
from tintype.models.personal.personal import write_personal

CARD = {
    "format": 1,
    "identifier": "<rex>",
    "class_noun": "dog",
    "defaults": {"generate": {"steps": 7}},
}
WEIGHT = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def base(sd_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd_folder, tmp_path / "base"))


def lora(folder: Path) -> Adapter:
    config = LoraConfig(r=2, lora_alpha=1, target_modules=["to_k"], init_lora_weights=False)
    text = LoraConfig(r=2, target_modules=TEXT, init_lora_weights=False)
    return with_peft(folder, {"unet": config, "text_encoder": text})[1]


def rex(count: int = 2) -> Embedding:
    return Embedding(token="<rex>", vectors={"text_encoder": torch.ones(count, 16)})


def test_a_personal_model_is_its_base_with_all_that_is_added(base: Path, tmp_path: Path) -> None:
    model = load(base, device="cpu")
    adapter, trained = lora(base), torch.full((32, 16), 0.1)
    run = tmp_path / "runs" / "rex"
    write_personal(
        run / "model",
        CARD,
        model=model,
        base_model=str(base),
        adapter=adapter,
        embeddings=[rex()],
        weights={WEIGHT: trained},
    )
    loaded = load(run, device="cpu")
    with torch.no_grad():
        model.unet.get_parameter(WEIGHT.removeprefix("unet.")).copy_(trained)
    with applied(model, [(adapter, 1.0)]), embedded(model, [rex()]):
        assert same(weights(loaded), weights(model))
        assert difference(given(loaded), given(model)) == 0
    assert loaded.tokenizers[0].tokenize("<rex>") == ["<rex>"]
    assert (loaded.card.id, loaded.card.path) == (str(run), run / "model")
    assert (loaded.card.identifier, loaded.card.class_noun) == ("<rex>", "dog")
    assert loaded.card.defaults == CARD["defaults"]

    told = describe(run)
    assert (told.identifier, told.class_noun, told.base) == ("<rex>", "dog", str(base))
    assert told.adds == (
        "LoRA of rank 2 (unet 8 layers, text_encoder 18 layers), the word <rex> (2 vectors), "
        "1 trained tensors"
    )
    assert told.family == describe(base).family
    assert told.parameters > describe(base).parameters
    assert [part.name for part in told.parts[-3:]] == [
        "adapter.safetensors",
        "embedding-0.safetensors",
        "delta.safetensors",
    ]


@pytest.mark.parametrize("part", ["adapter", "embeddings", "weights"])
def test_any_one_of_them_is_enough(part: str, base: Path, tmp_path: Path) -> None:
    model = load(base, device="cpu")
    parts = {"adapter": lora(base), "embeddings": [rex(1)], "weights": {WEIGHT: torch.ones(32, 16)}}
    folder = tmp_path / "rex"
    write_personal(folder, CARD, model=model, base_model=str(base), **{part: parts[part]})
    assert not same(weights(load(folder, device="cpu")), weights(model))
    card = json.loads((folder / "tintype.json").read_text())
    assert {"adapter", "embeddings", "weights"} & card.keys() == {part}


def test_pocket_is_a_base_by_name(tmp_path: Path) -> None:
    pocket: Model = load("pocket", device="cpu")
    layers = 192
    word = Embedding(token="<rex>", vectors={"text_encoder": torch.zeros(1, layers)})
    write_personal(tmp_path / "rex", CARD, model=pocket, base_model="pocket", embeddings=[word])
    assert json.loads((tmp_path / "rex" / "tintype.json").read_text())["base_model"] == "pocket"
    loaded = load(tmp_path / "rex", device="cpu")
    assert loaded.native_size == pocket.native_size
    assert loaded.card.defaults["generate"] == CARD["defaults"]["generate"]


def test_the_key_follows_the_base_too(base: Path, tmp_path: Path) -> None:
    model = load(base, device="cpu")
    write_personal(tmp_path / "rex", CARD, model=model, base_model=str(base), embeddings=[rex()])
    before = model_key(load(tmp_path / "rex", device="cpu"))
    assert before != model_key(model)
    unet = base / "unet" / "diffusion_pytorch_model.safetensors"
    state = {name: t + 0.5 for name, t in model.unet.state_dict().items()}
    save_file(state, unet)
    assert model_key(load(tmp_path / "rex", device="cpu")) != before


def test_what_is_missing_or_does_not_fit_is_said(
    base: Path, sdxl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(base, device="cpu")
    folder = tmp_path / "rex"
    monkeypatch.chdir(tmp_path)
    write_personal(folder, CARD, model=model, base_model="base", adapter=lora(base))
    monkeypatch.chdir("/")
    load(folder, device="cpu")

    card = folder / "tintype.json"
    said = json.loads(card.read_text())
    base.rename(tmp_path / "moved")
    for ask in (load, describe):
        with pytest.raises(ModelError, match=r"is not there\. Say where.*tintype\.json.*--adapter"):
            ask(folder)
    card.write_text(json.dumps({**said, "base_model": str(folder)}))
    with pytest.raises(ModelError, match="is itself"):
        load(folder)
    card.write_text(json.dumps({**said, "base_model": str(sdxl_folder)}))
    with pytest.raises(WeightsError, match=r"Stable Diffusion 1\.x, not for SDXL"):
        load(folder, device="cpu")
    good = {**said, "base_model": str(tmp_path / "moved")}
    save_file({WEIGHT: torch.ones(2, 2)}, folder / "delta.safetensors")
    card.write_text(json.dumps({**good, "weights": "delta.safetensors"}))
    with pytest.raises(WeightsError, match=r"\[2, 2\] isn't of this base model \(\[32, 16\]\)"):
        load(folder, device="cpu")
    for key, value, match in (
        ("adapter", 3, "should be a text"),
        ("embeddings", "x.safetensors", "should be a list"),
        ("embeddings", ["x.safetensors"], "is missing"),
        ("adapter", "x.safetensors", "is missing"),
    ):
        card.write_text(json.dumps({**good, key: value}))
        with pytest.raises(ModelError, match=match):
            load(folder, device="cpu")
    (folder / "adapter.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    card.write_text(json.dumps(good))
    with pytest.raises(WeightsError, match="git-lfs"):
        load(folder, device="cpu")
