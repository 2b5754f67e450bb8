"""The hashes of adapters and embeddings in a picture's text, as A1111 writes and compares them."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from tintype.generation.hashes import adapter_hash, read_hashes, written_hashes
from tintype.generation.images import hashes_in, save
from tintype.service import Service
from tintype.settings import Settings
from tintype.types import GeneratedImage, GenerateRequest, Note

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two adapters, one of which states its own hash, and an embedding, for the tiny SD 1.x."""
    adapters, embeddings = tmp_path / "adapters", tmp_path / "embeddings"
    for folder in (adapters, embeddings):
        folder.mkdir()
    state = {
        f"{LAYER}.lora_A.weight": torch.ones(2, 32),
        f"{LAYER}.lora_B.weight": torch.ones(32, 2),
    }
    save_file(state, adapters / "rex.safetensors")
    stated = {"sshs_model_hash": "abcdef0123456789"}
    save_file(state, adapters / "stated.safetensors", metadata=stated)
    for name in ("easy", "unused"):
        save_file({"emb_params": torch.ones(1, 16)}, embeddings / f"{name}.safetensors")
    return Settings(adapters_dir=adapters, embeddings_dir=embeddings, device="cpu")


def test_hashes_are_a1111s(settings: Settings) -> None:
    """Of a LoRA: kohya's own, else that of all behind the header; so metadata don't count."""
    assert settings.adapters_dir is not None
    rex, stated = (settings.adapters_dir / f"{name}.safetensors" for name in ("rex", "stated"))
    data = rex.read_bytes()
    behind = data[8 + int.from_bytes(data[:8], "little") :]
    assert adapter_hash(rex) == hashlib.sha256(behind).hexdigest()[:12]
    assert adapter_hash(stated) == "abcdef012345"
    before = adapter_hash(rex)
    save_file(load_file(rex), rex, metadata={"ss_output_name": "other"})
    assert adapter_hash(rex) == before
    pickled = rex.with_suffix(".pt")
    torch.save({}, pickled)
    assert adapter_hash(pickled) == hashlib.sha256(pickled.read_bytes()).hexdigest()[:12]


def test_a_picture_tells_what_it_was_drawn_with(
    settings: Settings, sd_folder: Path, tmp_path: Path
) -> None:
    assert settings.adapters_dir is not None
    assert settings.embeddings_dir is not None
    service = Service(settings)
    request = GenerateRequest(
        prompt="a dog <lora:rex:0.5>",
        negative_prompt="easy",
        adapters=("stated",),
        model=str(sd_folder),
        steps=2,
    )
    [image] = [e for e in service.generate(request) if isinstance(e, GeneratedImage)]
    path = save(image, tmp_path / "out")
    rex = settings.adapters_dir / "rex.safetensors"
    easy = settings.embeddings_dir / "easy.safetensors"
    short = hashlib.sha256(easy.read_bytes()).hexdigest()[:12]
    expected = {
        "Lora hashes": {"rex": adapter_hash(rex), "stated": "abcdef012345"},
        "TI hashes": {"easy": short},
    }
    assert hashes_in(path) == expected
    text = Image.open(path).info["parameters"]
    assert f'Lora hashes: "rex: {adapter_hash(rex)}, stated: abcdef012345", ' in text
    assert f'TI hashes: "easy: {short}", Version' in text

    def notes() -> list[str]:
        said: list[str] = []
        again = service.like(
            path, emit=lambda e: said.append(e.message) if isinstance(e, Note) else None
        )
        assert again == image.request
        return said

    assert notes() == []
    state = {name: tensor + 1 for name, tensor in load_file(rex).items()}
    save_file(state, rex)
    easy.rename(easy.with_stem("easier"))
    service = Service(settings)
    other, gone = notes()
    assert "other weights of the adapter 'rex'" in other
    assert adapter_hash(rex) in other
    assert gone == f"the picture was drawn with the embedding 'easy' ({short}), which isn't here"
    [plain] = [
        e
        for e in service.generate(request.replace(prompt="x", negative_prompt="", adapters=()))
        if isinstance(e, GeneratedImage)
    ]
    assert plain.hashes == {}


def test_a1111s_text_is_compared_too(settings: Settings, tmp_path: Path) -> None:
    text = (
        "a dog <lora:rex:1>\nNegative prompt: easy\nSteps: 20, Sampler: Euler a, CFG scale: 7, "
        'Seed: 1, Lora hashes: "rex: 0123456789ab, far: ba9876543210", '
        'TI hashes: "easy: 0a0b0c0d0e0f, easy: 0a0b0c0d0e0f", Version: v1.10.1'
    )
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "theirs.png", pnginfo=info)
    said: list[str] = []
    Service(settings).like(
        tmp_path / "theirs.png",
        emit=lambda e: said.append(e.message) if isinstance(e, Note) else None,
    )
    assert [line.partition("(")[0] for line in said] == [
        "the picture was drawn with other weights of the adapter 'rex' ",
        "the picture was drawn with the adapter 'far' ",
        "the picture was drawn with other weights of the embedding 'easy' ",
    ]
    hashes = {"Lora hashes": {"a b": "1", "c": "2"}}
    assert read_hashes(written_hashes(hashes)) == hashes
    assert read_hashes({"Lora hashes": "nothing, : , x:"}) == {}
