"""The denoising loop against diffusers' own pipelines, and what it promises of batches."""

from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from tests.tiny import save_sd
from tintype.errors import InputError, ModelError, PromptError
from tintype.generation.engine import draw, draw_many, resolve
from tintype.models.load import load
from tintype.models.model import Model
from tintype.schedulers import names, row
from tintype.schedulers.make import make
from tintype.types import SEED_MAX, GeneratedImage, GenerateRequest, Progress

PIPELINES = {
    "sd": diffusers.StableDiffusionPipeline,
    "v": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
}
STEPS = 5


@pytest.fixture(scope="module")
def folders(sd_folder: Path, sdxl_folder: Path, tmp_path_factory) -> dict[str, Path]:
    v = tmp_path_factory.mktemp("models") / "v"
    save_sd(
        v,
        seed=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=False,
    )
    return {"sd": sd_folder, "sdxl": sdxl_folder, "v": v}


@pytest.fixture(scope="module")
def models(folders) -> dict[str, Model]:
    return {name: load(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def pipelines(folders) -> dict:
    made = {name: PIPELINES[name].from_pretrained(folder) for name, folder in folders.items()}
    for pipeline in made.values():
        pipeline.set_progress_bar_config(disable=True)
    return made


def pictures(events) -> list[GeneratedImage]:
    return [event for event in events if isinstance(event, GeneratedImage)]


def difference(first, second) -> int:
    """The largest difference of two pictures, in 1/255."""
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


def request(**values) -> GenerateRequest:
    return GenerateRequest(**{"prompt": "a dog", "steps": STEPS, "seed": 7, **values})


def theirs(pipeline, model: Model, asked: GenerateRequest) -> list:
    """The same pictures by diffusers' own pipeline."""
    seeds = range(asked.seed, asked.seed + asked.num_images)
    pipeline.scheduler = make(asked.scheduler, model.scheduler_config)
    if row(asked.scheduler).brownian:
        pipeline.scheduler.noise_sampler_seed = list(seeds)
    return pipeline(
        asked.prompt,
        negative_prompt=asked.negative_prompt or None,
        guidance_scale=asked.guidance_scale,
        num_inference_steps=asked.steps,
        num_images_per_prompt=asked.num_images,
        eta=asked.eta,
        width=asked.width,
        height=asked.height,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images


SPACED = ["dpmpp_2m_karras", "euler_exponential", "unipc_beta", "dpmpp_2m_sde_sgm_uniform"]
# every scheduler with one kind of model, and those that people use most with the others
PAIRS = [("sd", name) for name in (*names(), *SPACED)]
PAIRS += [(kind, name) for kind in ("v", "sdxl") for name in ("ddim", "euler", "euler_a", "heun",
          "dpmpp_2m_karras", "dpmpp_2m_sde", "dpmpp_sde", "unipc", "plms", "lcm")]  # fmt: skip


@pytest.mark.parametrize(("kind", "scheduler"), PAIRS)
def test_equals_the_pipeline_and_the_single_picture(
    kind: str, scheduler: str, models, pipelines
) -> None:
    asked = request(scheduler=scheduler, num_images=2, negative_prompt="a cat")
    drawn = pictures(draw(models[kind], asked))
    expected = theirs(pipelines[kind], models[kind], asked)
    assert [difference(a.image, b) <= 1 for a, b in zip(drawn, expected, strict=True)] == [True] * 2

    (alone,) = pictures(draw(models[kind], drawn[1].request))
    assert alone.request.seed == 8
    assert difference(alone.image, drawn[1].image) <= 1


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"guidance_scale": 1.0},
        {"guidance_scale": 3.3, "negative_prompt": "a cat"},
        {"eta": 0.7},
        {"width": 96, "height": 40},
        {"prompt": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_equals_the_pipeline_whatever_is_asked(kind: str, values, models, pipelines) -> None:
    asked = request(**values)
    (drawn,) = pictures(draw(models[kind], asked))
    (expected,) = theirs(pipelines[kind], models[kind], asked)
    assert difference(drawn.image, expected) <= 1


def test_a_brownian_tree_of_one_seed_is_that_of_the_int(models, pipelines) -> None:
    asked = request(scheduler="dpmpp_sde")
    (drawn,) = pictures(draw(models["sd"], asked))
    pipeline = pipelines["sd"]
    pipeline.scheduler = make("dpmpp_sde", {**models["sd"].scheduler_config})
    pipeline.scheduler.noise_sampler_seed = 7
    expected = pipeline(
        "a dog", num_inference_steps=STEPS, generator=torch.Generator().manual_seed(7)
    ).images[0]
    assert difference(drawn.image, expected) <= 1


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", ["euler_a", "dpmpp_sde"])
def test_neighbours_do_not_change_a_picture(kind: str, scheduler: str, models) -> None:
    asked = [
        request(scheduler=scheduler, seed=3),
        request(scheduler=scheduler, prompt="a cat", seed=90, num_images=2, guidance_scale=2),
        request(scheduler=scheduler, steps=3),
        request(scheduler=scheduler, negative_prompt="a cat", seed=11),
        request(scheduler=scheduler, guidance_scale=0, width=32, height=64),
    ]
    together = pictures(draw_many(models[kind], asked, batch_size=3))
    assert sorted(drawn.index for drawn in together) == list(range(6))
    by_index = sorted(together, key=lambda drawn: drawn.index)
    seeds = [3, 90, 91, 7, 11, 7]
    for drawn, seed in zip(by_index, seeds, strict=True):
        assert drawn.request.seed == seed
        (alone,) = pictures(draw(models[kind], drawn.request))
        assert difference(alone.image, drawn.image) <= 1


def test_batches_do_not_change_pictures_and_progress_reaches_its_total(models) -> None:
    asked = request(num_images=5, scheduler="heun")
    events = list(draw(models["sd"], asked, batch_size=2))
    steps = [event for event in events if isinstance(event, Progress)]
    total = 3 * (2 * STEPS - 1)
    assert [event.step for event in steps] == list(range(1, total + 1))
    assert {event.total for event in steps} == {total}
    assert [drawn.index for drawn in pictures(events)] == [0, 1, 2, 3, 4]
    whole = pictures(draw(models["sd"], asked))
    for a, b in zip(pictures(events), whole, strict=True):
        assert difference(a.image, b.image) <= 1


def test_a_picture_carries_the_request_that_repeats_it(models) -> None:
    model = models["sd"]
    drawn = pictures(draw(model, request(num_images=2, scheduler="Euler a")))[1]
    expected = request(seed=8, scheduler="euler_a", width=64, height=64, model=model.card.id)
    assert drawn.request == expected
    assert resolve(model, drawn.request) == drawn.request


def test_a_model_in_training_is_left_as_it_was(folders) -> None:
    model = load(folders["sd"])
    expected = pictures(draw(model, request()))[0]
    model.unet.train()
    model.text_encoders[0].train()
    model.unet.down_blocks[0].eval()
    before = {name: part.state_dict() for name, part in model.parts.items()}
    before = {n: {k: v.clone() for k, v in s.items()} for n, s in before.items()}
    modes = [module.training for part in model.parts.values() for module in part.modules()]
    torch.manual_seed(3)
    random = torch.get_rng_state()

    drawing = draw(model, request())
    next(drawing)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert [m.training for part in model.parts.values() for m in part.modules()] == modes
    drawn = pictures(drawing)[0]

    assert difference(drawn.image, expected.image) == 0
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for part in model.parts.values() for m in part.modules()] == modes
    for name, part in model.parts.items():
        for key, value in part.state_dict().items():
            assert torch.equal(value, before[name][key]), (name, key)
    # and the parameters still take gradients
    latents, tokens = torch.randn(1, 4, 8, 8), torch.randn(1, 24, 16)
    model.unet(latents, 5, tokens).sample.sum().backward()
    assert model.unet.conv_in.weight.grad is not None


def test_changed_weights_are_seen_at_once(folders) -> None:
    model = load(folders["sd"])
    first = pictures(draw(model, request()))[0]
    with torch.no_grad():
        for parameter in model.unet.parameters():
            parameter.mul_(1.1)
    second = pictures(draw(model, request()))[0]
    assert difference(first.image, second.image) > 1


def test_closing_stops_the_drawing(models) -> None:
    drawing = draw(models["sd"], request(steps=50, num_images=100))
    assert isinstance(next(drawing), Progress)
    drawing.close()
    assert list(drawing) == []
    assert not torch.is_inference_mode_enabled()


def test_a_picture_that_is_not_finite_is_an_error_and_the_good_ones_survive(folders) -> None:
    model = load(folders["sd"])
    with torch.no_grad():
        model.vae.decoder.conv_out.bias[0] = float("nan")
    with pytest.raises(ModelError, match=r"isn't finite \(seed 7"):
        list(draw(model, request()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 65}, r"width 65: is not a multiple of 8 .*nearest: 64 or 72"),
        ({"height": 12}, r"height 12: .*nearest: 8 or 16"),
        ({"scheduler": "eulr"}, "Did you mean euler"),
        ({"scheduler": "lcm", "steps": 60}, "steps 60"),
        ({"seed": SEED_MAX, "num_images": 2}, f"seed {SEED_MAX}"),
    ],
    ids=str,
)
def test_what_a_model_cannot_draw_is_refused_before_anything_is_drawn(
    values, message: str, models
) -> None:
    with pytest.raises(InputError, match=message):
        draw(models["sd"], request(**values))


def test_the_identifier_is_filled_in_and_stays_in_the_request(folders) -> None:
    model = load(folders["sd"])
    with pytest.raises(PromptError, match=r"\[V\]"):
        draw(model, request(prompt="a [V] dog"))
    model.card = replace(model.card, identifier="sks")
    (drawn,) = pictures(draw(model, request(prompt="a [V] dog")))
    (expected,) = pictures(draw(model, request(prompt="a sks dog")))
    assert drawn.request.prompt == "a [V] dog"
    assert difference(drawn.image, expected.image) == 0


def test_what_is_not_asked_for_takes_the_defaults_of_the_model(models) -> None:
    own = {"generate": {"guidance_scale": 3.0, "steps": 4, "scheduler": "unipc"}}
    model = replace(models["sd"], card=replace(models["sd"].card, defaults=own))
    plain = resolve(model, GenerateRequest(prompt="a dog"))
    assert (plain.guidance_scale, plain.steps, plain.scheduler) == (3.0, 4, "unipc")
    asked = resolve(model, GenerateRequest(prompt="a dog", guidance_scale=7.5).replace(seed=3))
    assert (asked.guidance_scale, asked.steps, asked.seed) == (7.5, 4, 3)
    # what a picture carries is complete: another model changes nothing of it
    assert resolve(models["sd"], plain.replace(seed=1)).guidance_scale == 3.0
