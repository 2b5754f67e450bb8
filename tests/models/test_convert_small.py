"""Conversions of adapters, embeddings, and personal models."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.made import lora, personal
from tests.models.test_convert import assert_same_model, convert
from tintype.errors import InputError, WeightsError
from tintype.models.adapters import Adapter, read_adapter, write_adapter
from tintype.models.convert.convert import convert as convert_request
from tintype.models.embeddings.embeddings import Embedding, read_embedding, write_embedding
from tintype.models.load import load
from tintype.models.loading.headers import read_header
from tintype.models.model import Model
from tintype.types import ConvertRequest, Event, Note


@pytest.fixture(scope="module")
def base(sd_folder: Path) -> Model:
    return load(sd_folder, device="cpu")


def assert_same_adapter(one: Adapter, other: Adapter) -> None:
    parts = {part.component: part for part in one.parts}
    assert parts.keys() == {part.component for part in other.parts}
    for theirs in other.parts:
        ours = parts[theirs.component]
        assert ours.alphas == theirs.alphas
        assert ours.state.keys() == theirs.state.keys()
        assert all(torch.equal(ours.state[name], tensor) for name, tensor in theirs.state.items())


def test_an_adapter_through_every_layout_is_the_same(base: Model, tmp_path: Path) -> None:
    adapter = lora(base, 3)
    source = tmp_path / "first.safetensors"
    write_adapter(adapter, source, base, layout="kohya")
    model = str(base.card.path)
    for layout in ("diffusers", "comfyui", "peft", "tintype", "kohya"):
        out = tmp_path / layout if layout == "peft" else tmp_path / f"{layout}.safetensors"
        result = convert(source, out, to=layout, model=model)
        assert (result.kind, result.layout) == ("adapter", layout)
        assert_same_adapter(read_adapter(out, base), adapter)
        source = out
    convert(source, tmp_path / "half.safetensors", to="kohya", model=model, dtype="fp16")
    kinds = {info.dtype for info in read_header(tmp_path / "half.safetensors").tensors.values()}
    assert kinds == {"F16", "F32"}  # alphas are numbers of their own


def test_an_adapter_that_does_not_say_what_it_is_for(base: Model, tmp_path: Path) -> None:
    source = tmp_path / "lora.safetensors"
    write_adapter(lora(base, 3), source, base, layout="comfyui")
    with pytest.raises(WeightsError, match=r"no layer of this Stable Diffusion 1\.x"):
        convert(source, tmp_path / "out.safetensors", to="kohya")
    # the card beside it names the base, as that of a run does
    (tmp_path / "tintype.json").write_text(f'{{"base_model": "{base.card.path}"}}')
    convert(source, tmp_path / "out.safetensors", to="kohya")
    with pytest.raises(InputError, match="dtype 'fp8': is for models alone"):
        convert(source, tmp_path / "8.safetensors", to="kohya", dtype="fp8")


def test_embeddings(base: Model, tmp_path: Path) -> None:
    vectors = {"text_encoder": torch.randn(2, 16)}
    first = tmp_path / "first.safetensors"
    write_embedding(Embedding(token="<rex>", vectors=vectors), first)
    convert(first, tmp_path / "rex.pt")
    with pytest.raises(WeightsError, match="--allow-pickle"):
        convert(tmp_path / "rex.pt", tmp_path / "back.safetensors", to="diffusers")
    options: dict[str, Any] = {"allow_pickle": True, "token": "<rex>"}
    convert(tmp_path / "rex.pt", tmp_path / "back.safetensors", to="diffusers", **options)
    convert(tmp_path / "back.safetensors", tmp_path / "a1111.safetensors", to="a1111")
    assert list(read_header(tmp_path / "a1111.safetensors").tensors) == ["emb_params"]
    for name in ("back", "a1111"):
        found = read_embedding(tmp_path / f"{name}.safetensors")
        assert found.token == "<rex>"
        assert torch.equal(found.vectors["text_encoder"], vectors["text_encoder"])
    with pytest.raises(InputError, match="an embedding in several layouts: say which with --to"):
        convert(first, tmp_path / "x.safetensors")


def test_a_run_that_left_an_adapter(base: Model, tmp_path: Path) -> None:
    """Its adapter alone, or with its base in a file or a folder, as `load` puts them together."""
    run = personal(tmp_path / "run", base, words=False)
    together = load(run, device="cpu")
    convert(run, tmp_path / "kohya.safetensors", to="kohya")
    adapter = read_adapter(run / "model" / "adapter.safetensors", base)
    assert_same_adapter(read_adapter(tmp_path / "kohya.safetensors", base), adapter)
    convert(run, tmp_path / "whole.safetensors", to="single-file")
    convert(run, tmp_path / "whole", to="diffusers")
    for place in (tmp_path / "whole.safetensors", tmp_path / "whole"):
        loaded = load(place, device="cpu")
        assert_same_model(loaded, together)
        assert loaded.card.identifier == "sks"
    with pytest.raises(InputError, match=r"could be an adapter or a model in several layouts"):
        convert(run, tmp_path / "x.safetensors")


def test_a_run_that_left_an_adapter_and_a_word(base: Model, tmp_path: Path) -> None:
    run = personal(tmp_path / "run", base, words=True)
    convert(run, tmp_path / "whole", to="diffusers")
    loaded, together = load(tmp_path / "whole", device="cpu"), load(run, device="cpu")
    assert_same_model(loaded, together)
    prompt = "<rex> <rex>_1 on the beach"
    ids = loaded.tokenizers[0](prompt).input_ids
    assert ids == together.tokenizers[0](prompt).input_ids
    assert max(ids) >= len(base.tokenizers[0])
    notes: list[Event] = []
    request = ConvertRequest(source=str(run), out=tmp_path / "w.safetensors", to="single-file")
    convert_request(request, on_event=notes.append)
    assert_same_model(load(tmp_path / "w.safetensors", device="cpu"), together)
    told = [event.message for event in notes if isinstance(event, Note)]
    assert len(told) == 1
    assert told[0].startswith("<rex>, <rex>_1 are words of its own")
