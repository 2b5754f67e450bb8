"""Prompts in pictures: what each part of the grammar does to them, against diffusers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from tests.tiny import LENGTH
from tintype.errors import ConfigError, ModelError, PromptError
from tintype.generation.conditioning import Conditions, plan, read_prompts
from tintype.generation.engine import draw, draw_many
from tintype.generation.infotext import infotext, request_from_infotext
from tintype.generation.library import Library, with_embeddings
from tintype.models.load import load
from tintype.models.model import Model
from tintype.runtime.noise import generators, noise
from tintype.schedulers.make import make
from tintype.service import Service
from tintype.settings import Settings
from tintype.text.encode import EmbeddingCache, encode
from tintype.text.grammar import parse
from tintype.types import GeneratedImage, GenerateRequest, Note, Progress

STEPS = 4


@pytest.fixture(scope="module")
def model(sd_folder: Path) -> Model:
    return load(sd_folder)


@pytest.fixture
def pipeline(sd_folder: Path):
    made = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    made.set_progress_bar_config(disable=True)
    return made


def request(**values) -> GenerateRequest:
    return GenerateRequest(**{"prompt": "a dog", "steps": STEPS, "seed": 7, **values})


def pictures(events) -> list[GeneratedImage]:
    found = [event for event in events if isinstance(event, GeneratedImage)]
    return sorted(found, key=lambda drawn: drawn.index)


def one(model: Model, library: Library | None = None, **values):
    (drawn,) = pictures(draw(model, request(**values), library=library or Library()))
    return drawn.image


def difference(first, second) -> int:
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


def theirs(pipeline, model: Model, **values):
    """The picture by diffusers' own pipeline."""
    pipeline.scheduler = make("ddim", model.scheduler_config)
    values = {"generator": torch.Generator().manual_seed(7), **values}
    return pipeline(num_inference_steps=STEPS, guidance_scale=7.5, **values).images[0]


def test_a_schedule_is_the_other_prompt_from_that_step_on(model: Model, pipeline) -> None:
    for prompt, change_after in (("a [dog:cat:1]", 1), ("a [dog:cat:0.75]", 3)):
        later = torch.cat([encode(model, [""]).tokens, encode(model, ["a cat"]).tokens])

        def changed(_, step, __, tensors, last=change_after - 1, later=later):
            return {"prompt_embeds": later if step >= last else tensors["prompt_embeds"]}

        expected = theirs(
            pipeline,
            model,
            prompt="a dog",
            callback_on_step_end=changed,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
        found = one(model, prompt=prompt)
        assert difference(found, expected) <= 1
    assert difference(one(model, prompt="a [dog:cat:1]"), one(model, prompt="a dog")) > 1
    assert difference(one(model, prompt="a [dog:cat:0]"), one(model, prompt="a cat")) == 0


def test_alternation_takes_turns_also_in_the_negative_prompt(model: Model, pipeline) -> None:
    cat, dog, sks = (encode(model, [text]).tokens for text in ("cat", "dog", "sks"))
    turns = [torch.cat([cat, dog]), torch.cat([sks, cat]), torch.cat([cat, sks])]

    def changed(_, step, __, tensors):
        return {"prompt_embeds": turns[(step + 1) % 3] if step != 2 else torch.cat([sks, dog])}

    expected = theirs(
        pipeline,
        model,
        prompt_embeds=dog,
        negative_prompt_embeds=cat,
        callback_on_step_end=changed,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    found = one(model, prompt="[dog|cat|sks]", negative_prompt="[cat|sks]")
    assert difference(found, expected) <= 1


def test_evaluations_of_one_step_say_the_same(model: Model) -> None:
    asked = request(prompt="[dog|cat]")
    planned = plan(model, asked, read_prompts(model, asked, Library()))
    assert Conditions(model, [planned], STEPS).phases == [0, 1, 0, 1]
    # Heun evaluates twice a step, but for the last
    assert Conditions(model, [planned], 2 * STEPS - 1).phases == [0, 0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("scale", [7.5, 1.0])
def test_and_adds_weighted_differences(model: Model, scale: float) -> None:
    scheduler = make("ddim", model.scheduler_config)
    scheduler.set_timesteps(STEPS)
    latents = noise((4, 8, 8), generators([7]))
    texts = encode(model, ["cat", "a dog", "sks"]).tokens
    with torch.no_grad():
        for t in scheduler.timesteps:
            negative, dog, sks = model.unet(latents.repeat(3, 1, 1, 1), t, texts).sample.split(1)
            pull = 1.0 * (dog - negative) + 0.4 * (sks - negative)
            latents = scheduler.step(negative + scale * pull, t, latents).prev_sample
        pixels = model.vae.decode(latents / model.vae.config.scaling_factor).sample[0]
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    values = {"prompt": "a dog AND sks :0.4", "negative_prompt": "cat", "guidance_scale": scale}
    assert difference(one(model, **values), expected) <= 1


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_long_prompts_equal_the_pipeline_given_their_chunks(
    kind: str, sd_folder: Path, sdxl_folder: Path
) -> None:
    folder = {"sd": sd_folder, "sdxl": sdxl_folder}[kind]
    model = load(folder)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    parts = encode(model, ["dog " * (LENGTH - 2), "cat", "sks", ""])
    texts = {
        "prompt_embeds": torch.cat([parts.tokens[:1], parts.tokens[1:2]], dim=1),
        "negative_prompt_embeds": torch.cat([parts.tokens[2:3], parts.tokens[3:]], dim=1),
    }
    if parts.pooled is not None:
        texts["pooled_prompt_embeds"] = parts.pooled[:1]
        texts["negative_pooled_prompt_embeds"] = parts.pooled[2:3]
    expected = theirs(pipeline, model, **texts)
    found = one(model, prompt="dog " * (LENGTH - 2) + "cat", negative_prompt="sks")
    assert difference(found, expected) <= 1


def test_clip_skip_equals_the_pipeline(sdxl_folder: Path) -> None:
    model = load(sdxl_folder)
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    pipeline.set_progress_bar_config(disable=True)
    # diffusers skips no layer of a negative prompt, A1111 skips the same in both
    dog, _, dog_pooled, _ = pipeline.encode_prompt("a dog", clip_skip=1)
    cat, _, cat_pooled, _ = pipeline.encode_prompt("cat", clip_skip=1)
    expected = theirs(
        pipeline,
        model,
        prompt_embeds=dog,
        pooled_prompt_embeds=dog_pooled,
        negative_prompt_embeds=cat,
        negative_pooled_prompt_embeds=cat_pooled,
    )
    found = one(model, negative_prompt="cat", clip_skip=3)
    assert difference(found, expected) <= 1
    assert difference(found, one(model, negative_prompt="cat")) > 1


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_neighbours_of_any_kind_do_not_change_a_picture(
    kind: str, sd_folder: Path, sdxl_folder: Path
) -> None:
    model = load({"sd": sd_folder, "sdxl": sdxl_folder}[kind])
    prompts = [
        {"prompt": "a dog"},
        {"prompt": "(cat:1.4) BREAK sks"},
        {"prompt": "[dog|cat|sks]", "seed": 3, "num_images": 2},
        {"prompt": "a dog AND cat :0.5"},
        {"prompt": "a dog", "negative_prompt": "dog " * 30},
        {"prompt": "[sks:a cat:2]", "negative_prompt": "[dog::1]"},
        {"prompt": "a dog", "clip_skip": 3},
    ]
    together = pictures(draw_many(model, [request(**values) for values in prompts]))
    assert [drawn.index for drawn in together] == list(range(8))
    for drawn in together:
        (alone,) = pictures(draw(model, drawn.request))
        assert difference(alone.image, drawn.image) <= 1


def test_weights_change_a_picture_and_one_does_not(model: Model) -> None:
    plain = one(model, prompt="a dog")
    assert difference(one(model, prompt="a (dog:1.0)"), plain) <= 1
    assert difference(one(model, prompt=r"a \dog"), plain) > 1
    assert difference(one(model, prompt="a (dog:1.6)"), plain) > 1


def test_the_identifier_keeps_its_meaning_in_every_place(sd_folder: Path) -> None:
    model = load(sd_folder)
    for values in ({"prompt": "([V]:1.2)"}, {"negative_prompt": "[a|[V]]"}):
        with pytest.raises(PromptError, match="has learnt no subject"):
            draw(model, request(**values))
    model.card = replace(model.card, identifier="sks (dog)")
    found = one(model, prompt="a ([V]:1.2) [cat:[V]:2]")
    expected = one(model, prompt=r"a (sks \(dog\):1.2) [cat:sks \(dog\):2]")
    assert difference(found, expected) == 0


def test_a_repeated_prompt_is_not_encoded_again(model: Model) -> None:
    cache = EmbeddingCache()
    asked = request(prompt="[a dog|cat]", negative_prompt="sks")
    first = pictures(draw(model, asked, cache=cache))
    misses = cache.misses
    again = pictures(draw(model, asked, cache=cache))
    assert misses == 3
    assert cache.misses == misses
    assert difference(first[0].image, again[0].image) == 0


@pytest.fixture(scope="module")
def adapters(sd_folder: Path, tmp_path_factory) -> Path:
    """A folder with one LoRA for the UNet and the text encoder, as diffusers writes it."""
    folder = tmp_path_factory.mktemp("adapters")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    torch.manual_seed(0)
    states = {}
    for name, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj", "v_proj"])):
        module = getattr(pipeline, name)
        config = LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False)
        module.add_adapter(config)
        states[f"{name}_lora_layers"] = get_peft_model_state_dict(module)
    pipeline.save_lora_weights(folder / "subjects", weight_name="rex.safetensors", **states)
    return folder


@pytest.fixture
def untouched(model: Model) -> Iterator[None]:
    """The model's weights are the same to the bit afterwards."""
    before = {name: part.state_dict() for name, part in model.parts.items()}
    before = {n: {k: v.clone() for k, v in s.items()} for n, s in before.items()}
    tokenizers = model.tokenizers
    yield
    assert all(a is b for a, b in zip(model.tokenizers, tokenizers, strict=True))
    for name, part in model.parts.items():
        state = part.state_dict()
        assert state.keys() == before[name].keys()
        assert all(torch.equal(value, state[key]) for key, value in before[name].items())


def test_a_lora_tag_is_that_lora_at_that_weight(
    model: Model, pipeline, adapters: Path, untouched
) -> None:
    library = Library(adapters=adapters)
    pipeline.load_lora_weights(adapters / "subjects" / "rex.safetensors", adapter_name="rex")
    pipeline.set_adapters(["rex"], adapter_weights=[0.6])
    expected = theirs(pipeline, model, prompt="a dog")
    found = one(model, library, prompt="a <lora:rex:0.6>dog")
    assert difference(found, expected) <= 1
    assert difference(found, one(model)) > 1
    # the same by the request's field, by a path, and beside pictures without
    path = adapters / "subjects" / "rex.safetensors"
    asked = [request(), request(adapters=("subjects/rex:0.6",)), request(adapters=(f"{path}:.6",))]
    plain, named, by_path = pictures(draw_many(model, asked, library=library))
    assert difference(named.image, found) <= 1
    assert difference(by_path.image, found) <= 1
    assert difference(plain.image, one(model)) <= 1
    assert named.request.adapters == ("subjects/rex:0.6",)

    pipeline.set_adapters(["rex"], adapter_weights=[{"text_encoder": 0.5, "unet": 2.0}])
    expected = theirs(pipeline, model, prompt="a dog")
    assert difference(one(model, library, prompt="a dog<lora:rex:0.5:2>"), expected) <= 1


def test_a_cache_tells_adapters_apart(model: Model, adapters: Path) -> None:
    library, cache = Library(adapters=adapters), EmbeddingCache()
    tagged = request(prompt="a dog<lora:rex>")
    for asked in (request(), tagged, request(), tagged):
        (found,) = pictures(draw(model, asked, library=library, cache=cache))
        (expected,) = pictures(draw(model, asked, library=library))
        assert difference(found.image, expected.image) == 0


def test_closing_takes_adapters_out(model: Model, adapters: Path, untouched) -> None:
    drawing = draw(model, request(prompt="<lora:rex> a dog"), library=Library(adapters=adapters))
    weight = model.unet.state_dict()[
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    ]
    before = weight.clone()
    assert isinstance(next(drawing), Progress)
    assert not torch.equal(weight, before)
    drawing.close()


def test_unknown_and_misplaced_adapters(model: Model, adapters: Path) -> None:
    library = Library(adapters=adapters)
    with pytest.raises(ModelError, match=r"adapter 'rexx': .*Did you mean .*rex"):
        draw(model, request(prompt="a dog <lora:rexx:1>"), library=library)
    with pytest.raises(ModelError, match="no folder is set as adapters_dir"):
        draw(model, request(adapters=("rex",)))
    path = str(adapters / "subjects" / "rex.safetensors")
    with pytest.raises(ModelError, match="there is no such adapter"):
        draw(model, request(adapters=(path,)), library=replace(library, paths=False))
    (note,) = [
        event.message
        for event in draw(model, request(negative_prompt="<lora:rex:1>"))
        if isinstance(event, Note)
    ]
    assert note == "An adapter in a negative prompt does nothing: rex"


def test_an_embedding_is_used_where_its_name_stands(
    model: Model, pipeline, tmp_path: Path, untouched
) -> None:
    vectors = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, tmp_path / "toy.safetensors")
    save_file({"<pet>": vectors[:1]}, tmp_path / "learned_embeds.safetensors")
    library = Library(embeddings=tmp_path)
    pipeline.load_textual_inversion(tmp_path, weight_name="toy.safetensors", token="toy")
    pipeline.load_textual_inversion(tmp_path, weight_name="learned_embeds.safetensors")
    for prompt in ("a toy dog", "a <pet> and a toy"):
        expected = theirs(pipeline, model, prompt=prompt)
        found = one(model, library, prompt=prompt)
        assert difference(found, expected) <= 1
        assert difference(found, one(model, prompt=prompt)) > 1
    assert (
        difference(
            one(model, library, prompt="a <toy> dog"), one(model, library, prompt="a toy dog")
        )
        <= 1
    )
    assert difference(one(model, library, prompt="toys"), one(model, prompt="toys")) == 0
    # two vectors fill two places of a chunk
    with with_embeddings(model, library.embeddings_in(["toy"]), allow_pickle=False):
        for dogs, count in ((LENGTH - 4, 1), (LENGTH - 3, 2)):
            asked = request(prompt="dog " * dogs + "toy")
            assert plan(model, asked, read_prompts(model, asked, library)).chunks == count


def test_infotext_carries_clip_skip_and_adapters() -> None:
    asked = request(clip_skip=2, adapters=("a b:0.5", "c:1:0"), width=64, height=64, model="m")
    text = infotext(asked, model_name="m")
    assert text.startswith("a dog <lora:a b:0.5> <lora:c:1.0:0.0>\nSteps: 4")
    assert "Clip skip: 2" in text
    read = request_from_infotext(text)
    assert read.clip_skip == 2
    expected = [("a b", 0.5, 0.5), ("c", 1.0, 0.0)]
    assert [(tag.name, tag.text, tag.unet) for tag in parse(read.prompt).adapters] == expected


def test_the_service_expands_and_finds_by_settings(
    sd_folder: Path, adapters: Path, tmp_path: Path
) -> None:
    (tmp_path / "pets.txt").write_text("dog\ncat\n")
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\nred,{prompt} red,sks\n")
    settings = Settings(
        adapters_dir=adapters, wildcards_dir=tmp_path, styles_file=tmp_path / "styles.csv"
    )
    service = Service(settings)
    asked = request(
        model=str(sd_folder), prompt="a __pets__<lora:rex>", styles=("red",), num_images=4
    )
    drawn = pictures(service.generate(asked))
    assert {one.request.prompt for one in drawn} == {
        "a dog<lora:rex> red",
        "a cat<lora:rex> red",
    }
    assert [one.request.seed for one in drawn] == [7, 8, 9, 10]
    (again,) = pictures(service.generate(drawn[2].request))
    assert again.request == drawn[2].request
    assert difference(again.image, drawn[2].image) <= 1
    with pytest.raises(PromptError, match="Did you mean red"):
        list(service.generate(request(model=str(sd_folder), styles=("rd",))))
    with pytest.raises(ConfigError, match="styles_file"):
        list(Service(Settings()).generate(request(model=str(sd_folder), styles=("red",))))
