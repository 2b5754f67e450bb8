"""Embeddings of textual inversion: against diffusers' own loading, and taken out to the bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from tests.models.adapting import pipeline, same, weights
from tests.tiny import tokenizer
from tintype.errors import InputError, ModelError, WeightsError
from tintype.models.embeddings.embeddings import (
    Embedding,
    embed,
    embedded,
    embedding_of,
    expand,
    read_embedding,
    write_embedding,
)
from tintype.models.load import load
from tintype.models.loading.headers import read_header
from tintype.models.model import Model

WIDTHS = {"text_encoder": 16, "text_encoder_2": 32}


def drawn(count: int, width: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(count * width)
    return torch.randn(count, width, generator=rng)


def word(model: Model, token: str, count: int) -> Embedding:
    vectors = {s.folder: drawn(count, WIDTHS[s.folder]) for s in model.family.text_encoders}
    return Embedding(token=token, vectors=vectors)


@torch.no_grad()
def hidden(model: Model, prompt: str) -> list[torch.Tensor]:
    """What each text encoder makes of a prompt, its words expanded."""
    found = []
    for encoder, own in zip(model.text_encoders, model.tokenizers, strict=True):
        ids = own(
            expand(own, prompt),
            padding="max_length",
            max_length=24,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        out = encoder(ids, output_hidden_states=True)
        found += [out.hidden_states[-2], out[0]]
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_sd_pictures_of_a_word_are_those_of_diffusers(
    count: int, sd_folder: Path, tmp_path: Path
) -> None:
    model = load(sd_folder, device="cpu")
    own = word(model, "<rex>", count)
    prompt = "a photo of <rex> dog, <rex>."
    for layout, name in (("diffusers", "x.safetensors"), ("a1111", "x.pt"), ("diffusers", "x.bin")):
        write_embedding(own, tmp_path / name, layout=layout)
        pipe = pipeline(sd_folder)
        pipe.load_textual_inversion(str(tmp_path), weight_name=name)
        ours = read_embedding(tmp_path / name, token="<rex>", allow_pickle=True)
        with embedded(model, [ours]), torch.no_grad():
            theirs = pipe.encode_prompt(prompt, torch.device("cpu"), 1, False)[0]
            ids = pipe.tokenizer(pipe.maybe_convert_prompt(prompt, pipe.tokenizer)).input_ids
            mine = model.tokenizers[0](expand(model.tokenizers[0], prompt)).input_ids
            assert mine == ids
            assert len([i for i in ids if i >= 520]) == 2 * count
            assert torch.equal(hidden(model, prompt)[1], theirs)


def test_sdxl_pictures_of_a_word_are_those_of_diffusers(sdxl_folder: Path, tmp_path: Path) -> None:
    model = load(sdxl_folder, device="cpu")
    own = word(model, "<rex>", 2)
    write_embedding(own, tmp_path / "rex.safetensors")
    both = load_file(tmp_path / "rex.safetensors")
    pipe = pipeline(sdxl_folder)
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        pipe.load_textual_inversion(
            both[name],
            token="<rex>",
            text_encoder=getattr(pipe, f"text_encoder{suffix}"),
            tokenizer=getattr(pipe, f"tokenizer{suffix}"),
        )
    prompt = "<rex> in a hat"
    with embedded(model, [read_embedding(tmp_path / "rex.safetensors", model=model)]):
        ours = hidden(model, prompt)
    with torch.no_grad():
        tokens, _, pooled, _ = pipe.encode_prompt(
            prompt, device=torch.device("cpu"), do_classifier_free_guidance=False
        )
    assert torch.equal(torch.cat([ours[0], ours[2]], dim=-1), tokens)
    assert torch.equal(ours[3], pooled)


def test_the_pooled_embedding_is_that_of_the_end(sdxl_folder: Path) -> None:
    """Older configs have transformers take the highest id for the end, which a new word has."""
    model = load(sdxl_folder, device="cpu")
    encoder = model.text_encoders[1]
    own = word(model, "<rex>", 2)
    with embedded(model, [own]):
        expected = hidden(model, "<rex> in a hat")[3]
    for part in (encoder.config, encoder.text_model):
        part.eos_token_id = 2
    with embedded(model, [own]):
        assert torch.equal(hidden(model, "<rex> in a hat")[3], expected)
    assert (encoder.config.eos_token_id, encoder.text_model.eos_token_id) == (2, 2)


@pytest.mark.parametrize("fixture", ["sd_folder", "sdxl_folder"])
def test_ejection_restores_tokenizers_and_weights(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(fixture), device="cpu")
    before, tokenizers = weights(model), model.tokenizers
    prompt = "a photo of <rex> toy"
    plain = hidden(model, prompt)
    said = [own.backend_tokenizer.to_str() for own in tokenizers]
    outer = embed(model, [word(model, "<rex>", 3), word(model, "<toy>", 1)])
    changed = hidden(model, prompt)
    assert not torch.equal(changed[0], plain[0])
    with embedded(model, [word(model, "<hat>", 1)]):
        with pytest.raises(ModelError, match="before those that came later"):
            outer.eject()
        assert torch.equal(hidden(model, prompt)[0], changed[0])
    outer.eject()
    outer.eject()
    assert all(a is b for a, b in zip(model.tokenizers, tokenizers, strict=True))
    assert [own.backend_tokenizer.to_str() for own in model.tokenizers] == said
    assert same(weights(model), before)
    assert torch.equal(hidden(model, prompt)[0], plain[0])
    assert [e.config.vocab_size for e in model.text_encoders] == [520] * len(tokenizers)


def test_a_word_means_all_its_tokens_wherever_it_is_a_word(sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    with embedded(model, [word(model, "rex", 3), word(model, "<a>", 2), word(model, "one", 1)]):
        own: CLIPTokenizer = model.tokenizers[0]
        for prompt, expected in {
            "rex": "rex rex_1 rex_2",
            "a Rex, (REX)": "a rex rex_1 rex_2, (rex rex_1 rex_2)",
            "trex rexes rex_1 one": "trex rexes rex_1 one",
            "<a><a>s": "<a> <a>_1<a> <a>_1s",
        }.items():
            assert expand(own, prompt) == expected
            assert expand(own, expected) == expected
        assert own.tokenize("trex one") == ["t", "r", "e", "x</w>", "one"]
    assert expand(tokenizer(), "rex <a>") == "rex <a>"


def test_what_was_trained_is_taken_out(sd_folder: Path) -> None:
    model = load(sd_folder, device="cpu")
    added = embed(model, [word(model, "<rex>", 2)])
    rows = added.ids["<rex>"]["text_encoder"]
    assert rows == [520, 521]
    with torch.no_grad():
        model.text_encoders[0].get_input_embeddings().weight[rows] += 1
    trained = embedding_of(added, "<rex>").vectors["text_encoder"]
    assert torch.equal(trained, drawn(2, 16) + 1)


def test_files_of_every_kind_are_read(sdxl_folder: Path, tmp_path: Path) -> None:
    vectors = drawn(2, 768)
    only = Embedding(token="<rex>", vectors={"text_encoder": vectors})
    for layout, name, token in (
        ("diffusers", "a.safetensors", "<rex>"),
        ("a1111", "b.safetensors", "<rex>"),
        ("diffusers", "c.bin", "<rex>"),
        ("a1111", "Rex.pt", "Rex"),
    ):
        write_embedding(only, tmp_path / name, layout=layout, dtype="fp16")
        back = read_embedding(tmp_path / name, allow_pickle=True)
        assert back.token == token
        assert torch.equal(back.vectors["text_encoder"], vectors.half())
        assert back.vectors.keys() == {"text_encoder"}

    # of other tools: one vector without a count, the original code's own pickle, several in one
    save_file({"emb_params": drawn(1, 1280)[0]}, tmp_path / "neg.safetensors")
    back = read_embedding(tmp_path / "neg.safetensors")
    assert (back.token, back.vectors["text_encoder_2"].shape) == ("neg", (1, 1280))
    parameters = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})
    old = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters}
    torch.save(old, tmp_path / "old.pt")
    back = read_embedding(tmp_path / "old.pt", allow_pickle=True)
    assert torch.equal(back.vectors["text_encoder"], vectors)
    assert not back.vectors["text_encoder"].requires_grad
    save_file({"<s0>": vectors, "<s1>": vectors + 1}, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match=r"name one of them.*<s0>, <s1>"):
        read_embedding(tmp_path / "two.safetensors")
    back = read_embedding(tmp_path / "two.safetensors", token="<s1>")
    assert torch.equal(back.vectors["text_encoder"], vectors + 1)

    # which encoder a single tensor is for is told by the model at hand
    model = load(sdxl_folder, device="cpu")
    save_file({"<x>": drawn(1, 32)}, tmp_path / "x.safetensors")
    assert read_embedding(tmp_path / "x.safetensors", model=model).vectors.keys() == {
        "text_encoder_2"
    }
    write_embedding(word(model, "<x>", 1), tmp_path / "x.safetensors", target=model)
    told = read_header(tmp_path / "x.safetensors").metadata
    assert told["modelspec.architecture"] == "stable-diffusion-xl-v1-base/textual-inversion"


def test_what_is_no_embedding_of_this_model_is_refused(
    sd_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    model, xl = load(sd_folder, device="cpu"), load(sdxl_folder, device="cpu")
    before = weights(model)
    with pytest.raises(WeightsError, match=r"for text_encoder alone; SDXL has a text_encoder_2"):
        embed(xl, [word(model, "<rex>", 1)])
    with pytest.raises(WeightsError, match=r"text_encoder_2, which Stable Diffusion 1.x doesn't"):
        embed(model, [word(xl, "<rex>", 1)])
    wide = Embedding(token="<rex>", vectors={"text_encoder": drawn(1, 768)})
    with pytest.raises(WeightsError, match=r"shape \[1, 768\].*takes \[n, 16\]"):
        embed(model, [wide])
    with pytest.raises(InputError, match=r"knows the token d already.*<d-new>"):
        embed(model, [word(model, "d", 1)])
    with pytest.raises(InputError, match="isn't one word"):
        embed(model, [word(model, "two words", 1)])
    with pytest.raises(InputError, match="are there twice"):
        embed(model, [word(model, "<rex>", 1), word(model, "<REX>", 1)])
    with (
        embedded(model, [word(model, "<rex>", 2)]),
        pytest.raises(InputError, match="knows the token <REX> already"),
    ):
        embed(model, [word(model, "<REX>", 1)])
    assert same(weights(model), before)

    with pytest.raises(ModelError, match="no such file"):
        read_embedding(tmp_path / "x.pt")
    torch.save({"<x>": drawn(1, 16)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="allow-pickle"):
        read_embedding(tmp_path / "x.pt")
    for tensors in (
        {"lora_unet_x.lora_up.weight": drawn(2, 2), "lora_unet_x.lora_down.weight": drawn(2, 2)},
        {"<x>": torch.ones(1, 2, 3)},
        {"<x>": torch.ones(2, 3, dtype=torch.int64)},
    ):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(WeightsError, match="is no textual inversion embedding"):
            read_embedding(tmp_path / "x.safetensors")
    save_file({"<x>": torch.full((1, 16), float("nan"))}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="holds NaN"):
        read_embedding(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"no such layout.*diffusers, a1111"):
        write_embedding(wide, tmp_path / "x.safetensors", layout="webui")
