"""Pictures to begin from, masks, second passes, guidance: against diffusers' own pipelines."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.tiny import save_inpaint, save_refiner, save_sdxl
from tests.training.helpers import noise_picture
from tintype.generation.changes import changed, seamless
from tintype.generation.engine import draw, draw_many, resolve
from tintype.models.load import load
from tintype.models.model import Model
from tintype.schedulers.make import make
from tintype.types import GeneratedImage, GenerateRequest, Preview

PROMPT = "a dog on a hill"
STEPS = 6


def request(**values: object) -> GenerateRequest:
    return GenerateRequest(**{"prompt": PROMPT, "steps": STEPS, "seed": 3, **values})


def drawn(model: Model, **values: object) -> np.ndarray:
    [image] = [e for e in draw(model, request(**values)) if isinstance(e, GeneratedImage)]
    return np.asarray(image.image, dtype=int)


def theirs(pipeline: type, folder: Path, **values: object) -> np.ndarray:
    pipe = pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    options = {"num_inference_steps": STEPS, "guidance_scale": 7.5, **values}
    return np.asarray(pipe(PROMPT, generator=generator, **options).images[0], dtype=int)


def close(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.abs(first - second).max() <= 1)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_image_to_image_equals_the_pipeline(
    kind: str, scheduler: str, sd_folder: Path, sdxl_folder: Path, picture: Path
) -> None:
    folder = {"sd": sd_folder, "xl": sdxl_folder}[kind]
    pipeline = {
        "sd": diffusers.StableDiffusionImg2ImgPipeline,
        "xl": diffusers.StableDiffusionXLImg2ImgPipeline,
    }[kind]
    model = load(folder, device="cpu")
    ours = drawn(model, image=str(picture), strength=0.6, scheduler=scheduler)
    pipe = pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make(scheduler, model.scheduler_config)
    generator = torch.Generator().manual_seed(3)
    expected = pipe(
        PROMPT,
        image=Image.open(picture),
        strength=0.6,
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        generator=generator,
    ).images[0]
    assert close(ours, np.asarray(expected, dtype=int))


def test_strength_goes_from_the_picture_to_the_prompt(sd: Model, picture: Path) -> None:
    given = np.asarray(Image.open(picture), dtype=int)
    assert np.array_equal(drawn(sd, image=str(picture), strength=0), given)
    assert np.array_equal(drawn(sd, image=str(picture), strength=1), drawn(sd))
    noisier = drawn(sd, image=str(picture), strength=0.5, noise_multiplier=1.3)
    assert not close(noisier, drawn(sd, image=str(picture), strength=0.5))


def test_inpainting_equals_the_pipeline(
    sd: Model, sd_folder: Path, picture: Path, mask: Path
) -> None:
    values = {"image": str(picture), "mask": str(mask), "inpaint": {"blur": 0}, "strength": 0.8}
    ours = drawn(sd, **values)
    expected = theirs(
        diffusers.StableDiffusionInpaintPipeline,
        sd_folder,
        image=Image.open(picture),
        mask_image=Image.open(mask),
        strength=0.8,
        height=64,
        width=64,
    )
    hole = np.asarray(Image.open(mask)) > 0
    given = np.asarray(Image.open(picture), dtype=int)
    assert np.abs(ours[hole] - expected[hole]).max() <= 1
    assert np.array_equal(ours[~hole], given[~hole]), "what isn't masked stays to the pixel"


def test_an_inpainting_unet_equals_the_pipeline(tmp_path: Path, picture: Path, mask: Path) -> None:
    folder = save_inpaint(tmp_path / "inpaint")
    ours = drawn(
        load(folder, device="cpu"),
        image=str(picture),
        mask=str(mask),
        inpaint={"blur": 0},
        strength=1.0,
    )
    expected = theirs(
        diffusers.StableDiffusionInpaintPipeline,
        folder,
        image=Image.open(picture),
        mask_image=Image.open(mask),
        height=64,
        width=64,
    )
    hole = np.asarray(Image.open(mask)) > 0
    assert np.abs(ours[hole] - expected[hole]).max() <= 1


@pytest.mark.parametrize("fill", ["blur", "noise", "zeros"])
def test_fills_change_the_hole_alone(fill: str, sd: Model, picture: Path, mask: Path) -> None:
    values = {"image": str(picture), "mask": str(mask), "strength": 0.5}
    plain = drawn(sd, **values, inpaint={"blur": 0})
    filled = drawn(sd, **values, inpaint={"blur": 0, "fill": fill})
    hole = np.asarray(Image.open(mask)) > 0
    assert not np.array_equal(filled[hole], plain[hole])
    assert np.array_equal(filled[~hole], plain[~hole])


def test_an_inverted_mask_draws_the_rest(sd: Model, picture: Path, mask: Path) -> None:
    ours = drawn(sd, image=str(picture), mask=str(mask), inpaint={"blur": 0, "invert": True})
    hole = np.asarray(Image.open(mask)) > 0
    given = np.asarray(Image.open(picture), dtype=int)
    assert np.array_equal(ours[hole], given[hole])
    assert not np.array_equal(ours[~hole], given[~hole])


def test_only_the_masked_region_is_drawn_at_full_size(sd: Model, tmp_path: Path) -> None:
    large, hole = tmp_path / "large.png", tmp_path / "hole.png"
    noise_picture(9, (200, 160)).save(large)
    drawn_mask = Image.new("L", (200, 160))
    ImageDraw.Draw(drawn_mask).rectangle((120, 60, 139, 79), fill=255)
    drawn_mask.save(hole)
    options = {"region": "masked", "padding": 10, "blur": 0}
    ours = drawn(sd, image=str(large), mask=str(hole), inpaint=options, width=64, height=64)
    given = np.asarray(Image.open(large), dtype=int)
    inside = np.asarray(drawn_mask) > 0
    assert ours.shape == given.shape
    assert np.array_equal(ours[~inside], given[~inside])
    assert not np.array_equal(ours[inside], given[inside])


def test_outpainting_continues_the_picture(sd: Model, picture: Path) -> None:
    out = {"left": 16, "bottom": 32}
    ours = drawn(sd, image=str(picture), outpaint=out, inpaint={"blur": 0}, width=80, height=96)
    given = np.asarray(Image.open(picture), dtype=int)
    assert ours.shape == (96, 80, 3)
    assert np.array_equal(ours[:64, 16:], given)


def test_variations_lie_between_two_seeds(sd: Model) -> None:
    def varied(strength: float) -> np.ndarray:
        return drawn(sd, variation={"seed": 11, "strength": strength})

    first, second = drawn(sd), drawn(sd, seed=11)
    assert np.array_equal(varied(0.0), first)
    assert close(varied(1.0), second)
    near, far = (np.abs(varied(0.2) - one).mean() for one in (first, second))
    assert 0 < near < far
    several = request(variation={"seed": 11, "strength": 0.2}, num_images=2)
    found = [e for e in draw(sd, several) if isinstance(e, GeneratedImage)]
    assert [(e.request.seed, e.request.variation.seed) for e in found] == [(3, 11), (3, 12)]
    assert close(np.asarray(found[0].image, dtype=int), varied(0.2))


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_a_second_pass_is_image_to_image_of_the_first(
    upscaler: str, sd: Model, tmp_path: Path
) -> None:
    hires = {"scale": 1.5, "upscaler": upscaler, "strength": 0.5, "steps": 4}
    ours = drawn(sd, hires=hires)
    assert ours.shape == (96, 96, 3)
    if upscaler == "lanczos":
        first = Image.fromarray(drawn(sd).astype(np.uint8)).resize(
            (96, 96), Image.Resampling.LANCZOS
        )
        first.save(tmp_path / "first.png")
        again = drawn(
            sd, image=str(tmp_path / "first.png"), strength=0.5, steps=4, width=96, height=96
        )
        assert close(ours, again)


@pytest.mark.parametrize("kind", ["sdxl", "refiner"])
def test_the_refiner_takes_over_as_in_diffusers(
    kind: str, sdxl: Model, sdxl_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    other = save_sdxl(folder, seed=9) if kind == "sdxl" else save_refiner(folder)
    events = draw(
        sdxl,
        request(refiner="other", refiner_at=0.6, scheduler="euler"),
        load=lambda name: load(other, device="cpu"),
    )
    [ours] = [e for e in events if isinstance(e, GeneratedImage)]
    base = diffusers.StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    refiner = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(other)
    for pipe in (base, refiner):
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(base.scheduler.config)
    options = {"num_inference_steps": STEPS, "guidance_scale": 7.5}
    latents = base(
        PROMPT,
        generator=torch.Generator().manual_seed(3),
        denoising_end=0.6,
        output_type="latent",
        **options,
    ).images
    expected = refiner(
        PROMPT, image=latents, denoising_start=0.6, original_size=(64, 64), target_size=(64, 64),
        **options,
    ).images[0]  # fmt: skip
    assert close(np.asarray(ours.image, dtype=int), np.asarray(expected, dtype=int))


def test_tiles_meet_at_their_edges(sd: Model) -> None:
    """A picture rolled around by latents is drawn as the rolled picture."""
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(1, 24, 16)
    with torch.no_grad(), seamless(sd.unet, "x"):
        straight = sd.unet(noise, 500, tokens).sample
        rolled = sd.unet(noise.roll(4, dims=3), 500, tokens).sample
        turned = sd.unet(noise.roll(4, dims=2), 500, tokens).sample
    torch.testing.assert_close(straight.roll(4, dims=3), rolled, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(straight.roll(4, dims=2), turned, atol=1e-3)
    assert not np.array_equal(drawn(sd, tiling="both"), drawn(sd))


def test_guidance_rescale_equals_the_pipeline(sd: Model, sd_folder: Path) -> None:
    ours = drawn(sd, guidance={"rescale": 0.7})
    expected = theirs(
        diffusers.StableDiffusionPipeline, sd_folder, guidance_rescale=0.7, height=64, width=64
    )
    assert close(ours, expected)


def test_perturbed_attention_equals_the_pipeline(sd: Model, sd_folder: Path) -> None:
    expected = theirs(
        diffusers.StableDiffusionPAGPipeline, sd_folder, pag_scale=3.0, height=64, width=64
    )
    assert close(drawn(sd, guidance={"perturbed_attention": 3.0}), expected)


def test_freeu_equals_the_pipeline(sd: Model, sd_folder: Path) -> None:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(sd_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    expected = pipe(
        PROMPT, generator=torch.Generator().manual_seed(3), num_inference_steps=STEPS,
        height=64, width=64,
    ).images[0]  # fmt: skip
    ours = drawn(sd, guidance={"freeu": (0.9, 0.2, 1.2, 1.4)})
    assert close(ours, np.asarray(expected, dtype=int))
    assert not close(ours, drawn(sd))


def test_no_guidance_outside_its_interval(sd: Model) -> None:
    """A half without guidance equals the steps without, and asks for half of the rows there."""
    rows: list[int] = []
    hook = sd.unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    try:
        # the modules themselves are run, so that their rows can be counted
        drawn(sd, guidance={"start": 0.5, "freeu": (1.0, 1.0, 1.0, 1.0)})
    finally:
        hook.remove()
    assert rows == [1, 1, 1, 2, 2, 2]
    assert close(drawn(sd, guidance={"end": 0.01}), drawn(sd, guidance={"end": 0.001}))
    assert not close(drawn(sd, guidance={"start": 0.5}), drawn(sd))


def test_what_changes_the_model_leaves_no_trace(sd: Model) -> None:
    before = drawn(sd)
    everything = {
        "tiling": "both",
        "guidance": {"perturbed_attention": 2.0, "freeu": (0.9, 0.2, 1.2, 1.4)},
    }
    events = draw(sd, request(**everything))
    next(events)
    assert close(drawn(sd), before), "also while another drawing is suspended"
    events.close()
    assert np.array_equal(drawn(sd), before)
    with changed(sd, request(**everything), guided=True, size=(64, 64)):
        inside = [m.padding for m in sd.unet.modules() if isinstance(m, torch.nn.Conv2d)]
    outside = [m.padding for m in sd.unet.modules() if isinstance(m, torch.nn.Conv2d)]
    assert set(inside) == {(0, 0)} != set(outside)


def test_previews_come_at_chosen_steps(sd: Model) -> None:
    events = list(draw(sd, request(preview_every=2, num_images=2)))
    previews = [e for e in events if isinstance(e, Preview)]
    assert [(e.step, e.index) for e in previews] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    final = [e.image for e in events if isinstance(e, GeneratedImage)]
    gaps = [
        np.abs(np.asarray(e.image, dtype=int) - np.asarray(final[e.index], dtype=int)).mean()
        for e in previews
    ]
    assert max(gaps[2:]) < max(gaps[:2])
    assert final[0].tobytes() == next(
        e.image.tobytes() for e in draw(sd, request()) if isinstance(e, GeneratedImage)
    )


def test_pictures_of_a_batch_do_not_depend_on_their_neighbours(
    sd: Model, picture: Path, mask: Path
) -> None:
    requests = [
        request(image=str(picture), mask=str(mask), seed=1),
        request(seed=2),
        request(image=str(picture), strength=0.4, seed=3),
        request(image=str(picture), mask=str(mask), seed=4, inpaint={"fill": "noise"}),
    ]
    together = {e.index: e for e in draw_many(sd, requests) if isinstance(e, GeneratedImage)}
    for index, one in enumerate(requests):
        [alone] = [e for e in draw(sd, one) if isinstance(e, GeneratedImage)]
        found = np.asarray(together[index].image, dtype=int)
        assert close(found, np.asarray(alone.image, dtype=int))


def test_a_picture_decides_the_shape(sd: Model, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    noise_picture(1, (300, 150)).save(path)
    found = resolve(sd, request(image=str(path)))
    assert found.width == 88
    assert found.height == 48
