"""Weighted prompts to embeddings: chunks, weights, clip skip, the cache."""

from pathlib import Path

import diffusers
import pytest
import torch

from tests.tiny import LENGTH, tokenizer
from tintype.errors import InputError
from tintype.models.load import load
from tintype.models.model import Model
from tintype.text.chunks import chunks
from tintype.text.encode import EmbeddingCache, count_chunks, encode, encode_sections
from tintype.text.grammar import Sections, parse, sections

ROOM = LENGTH - 2


@pytest.fixture(scope="module")
def models(sd_folder: Path, sdxl_folder: Path) -> dict[str, Model]:
    return {"sd": load(sd_folder), "sdxl": load(sdxl_folder)}


def said(prompt: str) -> Sections:
    return sections(parse(prompt).conjuncts[0].parts, 0, 1)


def words(prompt: str) -> list[list[str]]:
    """The words of each chunk, checked to be of the right length and layout."""
    tokens = tokenizer()
    found = []
    for chunk in chunks(tokens, said(prompt)):
        assert len(chunk.ids) == len(chunk.weights) == LENGTH
        assert chunk.ids[0] == tokens.bos_token_id
        end = chunk.ids.index(tokens.eos_token_id)
        assert set(chunk.ids[end + 1 :]) <= {tokens.pad_token_id}
        assert chunk.weights[0] == 1
        assert set(chunk.weights[end:]) == {1}
        found.append(tokens.decode(chunk.ids[1:end]).split())
    return found


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("prompt", ["", "a dog", "a dog, the cat: 16:9", "dog " * ROOM])
def test_plain_prompts_are_those_of_training_to_the_bit(kind: str, prompt: str, models) -> None:
    plain = encode(models[kind], [prompt])
    weighted = encode_sections(models[kind], [said(prompt)], length=1)
    assert torch.equal(plain.tokens, weighted.tokens)
    assert (plain.pooled is None) == (kind == "sd")
    assert plain.pooled is None or torch.equal(plain.pooled, weighted.pooled)


def test_chunks_break_where_they_should() -> None:
    assert words("dog BREAK cat") == [["dog"], ["cat"]]
    assert words("BREAK dog BREAK") == [[], ["dog"]]
    assert words("") == [[]]
    assert [len(chunk) for chunk in words("dog " * (2 * ROOM + 1))] == [ROOM, ROOM, 1]
    # back to a comma that is near, and no further
    near = "dog , " + "cat " * (ROOM - 3) + "sks sks"
    assert words("dog , " + "cat " * (ROOM - 2)) == [["dog", ","] + ["cat"] * (ROOM - 2)]
    assert words("dog " + near) == [["dog"] * 2 + [","], ["cat"] * (ROOM - 3) + ["sks"] * 2]
    far = words("dog , " + "cat " * ROOM)
    assert far == [["dog", ","] + ["cat"] * (ROOM - 2), ["cat"] * 2]
    # a comma that would begin the next chunk breaks nothing off
    full = words("dog dog dog , " + "cat " * (ROOM - 4) + ", sks")
    assert full == [["dog"] * 3 + [","] + ["cat"] * (ROOM - 4), [",", "sks"]]


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_long_prompts_are_their_chunks_in_a_row(kind: str, models) -> None:
    model = models[kind]
    prompt = "dog " * ROOM + "cat cat"
    assert count_chunks(model, said(prompt)) == 2
    found = encode_sections(model, [said(prompt), said("sks")], length=3)
    single = encode(model, ["dog " * ROOM, "cat cat", "", "sks"])
    rows = [[0, 1, 2], [3, 2, 2]]
    for row, parts in enumerate(rows):
        expected = torch.cat([single.tokens[part] for part in parts])
        torch.testing.assert_close(found.tokens[row], expected, rtol=0, atol=1e-6)
    if kind == "sdxl":
        torch.testing.assert_close(found.pooled, single.pooled[[0, 3]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_weights_scale_hidden_states_and_keep_the_mean_of_each_encoder(
    kind: str, sd_folder: Path, sdxl_folder: Path
) -> None:
    model = load({"sd": sd_folder, "sdxl": sdxl_folder}[kind])
    if kind == "sd":
        # trained layer norms leave a mean, new ones none
        torch.nn.init.uniform_(model.text_encoders[0].final_layer_norm.bias)
    found = encode_sections(model, [said("a (dog:1.5) [cat]")], length=1)
    plain = encode(model, ["a dog cat"])
    weights = torch.ones(LENGTH)
    weights[2], weights[3] = 1.5, 1 / 1.1
    widths = [encoder.config.hidden_size for encoder in model.text_encoders]
    parts = []
    for tokens in plain.tokens[0].split(widths, dim=-1):
        scaled = tokens * weights[:, None]
        parts.append(scaled * (tokens.mean() / scaled.mean()))
    torch.testing.assert_close(found.tokens[0], torch.cat(parts, dim=-1), rtol=1e-5, atol=1e-5)
    assert (found.tokens - plain.tokens).abs().max() > 0.1
    if plain.pooled is not None:
        assert torch.equal(found.pooled, plain.pooled)


def test_a_mean_that_is_only_rounding_is_left_alone(models) -> None:
    found = encode_sections(models["sd"], [said("(dog:2)")], length=1)
    plain = encode(models["sd"], ["dog"])
    torch.testing.assert_close(found.tokens[0, 1], 2 * plain.tokens[0, 1])
    torch.testing.assert_close(found.tokens[0, 2:], plain.tokens[0, 2:])


def test_clip_skip_is_that_of_diffusers(models, sdxl_folder: Path) -> None:
    # SD 1: the layers but the last, then the final layer norm
    encoder = models["sd"].text_encoders[0]
    expected = encoder(chunk_ids("a dog"), output_hidden_states=True)
    states = encoder.final_layer_norm(expected.hidden_states[-2])
    found = encode_sections(models["sd"], [said("a dog")], length=1, clip_skip=2)
    torch.testing.assert_close(found.tokens, states, rtol=0, atol=1e-6)
    plain = encode_sections(models["sd"], [said("a dog")], length=1)
    last = encode_sections(models["sd"], [said("a dog")], length=1, clip_skip=1)
    assert torch.equal(plain.tokens, last.tokens)
    assert (plain.tokens - found.tokens).abs().max() > 0.1

    # SDXL takes the last layer but one by itself, and counts from there in diffusers
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    for asked, theirs in ((1, None), (2, None), (3, 1)):
        embeds, _, pooled, _ = pipeline.encode_prompt("a dog", clip_skip=theirs)
        found = encode_sections(models["sdxl"], [said("a dog")], length=1, clip_skip=asked)
        torch.testing.assert_close(found.tokens, embeds, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.pooled, pooled, rtol=0, atol=1e-6)

    with pytest.raises(InputError, match=r"clip_skip 4: .* has 3 layers.* Choices: 1, 2, 3"):
        encode_sections(models["sd"], [said("a dog")], length=1, clip_skip=4)


def chunk_ids(prompt: str) -> torch.Tensor:
    return torch.tensor([chunk.ids for chunk in chunks(tokenizer(), said(prompt))])


def test_what_was_encoded_is_not_encoded_again(models) -> None:
    model, cache = models["sdxl"], EmbeddingCache(size=4)
    first = encode_sections(model, [said("a dog")], length=1, cache=cache)
    assert (cache.hits, cache.misses) == (0, 2)
    # other weights of the same words need no encoder
    again = encode_sections(model, [said("a dog"), said("(a dog:2)")], length=1, cache=cache)
    assert (cache.hits, cache.misses) == (2, 2)
    assert torch.equal(again.tokens[0], first.tokens[0])
    # neither another layer nor changed weights are taken for the same
    skipped = encode_sections(model, [said("a dog")], length=1, cache=cache, clip_skip=3)
    encode_sections(model, [said("a dog")], length=1, cache=cache, state="changed")
    assert (cache.hits, cache.misses) == (2, 6)
    assert not torch.equal(skipped.tokens, first.tokens)
    # the oldest two were dropped for those
    encode_sections(model, [said("a dog")], length=1, cache=cache)
    assert cache.misses == 8
