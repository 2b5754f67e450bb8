"""Every family's folders and single files, and what is drawn with them, against diffusers."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import AysSchedules
from safetensors.torch import save_file

from tests import tiny
from tests.models.test_single_file import assert_equal, configs_of, ldm_state
from tintype.errors import InputError
from tintype.generation.engine import draw
from tintype.models.describe import describe
from tintype.models.families.predicts import edm_coefficients
from tintype.models.families.scaling import scaled, unscaled
from tintype.models.load import load
from tintype.models.loading.infer import CONFIGS_KEY
from tintype.models.loading.probe import predicts_velocity
from tintype.models.model import Model
from tintype.schedulers.make import make
from tintype.types import GeneratedImage, GenerateRequest

EDM_CONFIG = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
LAYOUTS: dict[str, Any] = {
    "sd2": lambda folder: tiny.save_sd2(folder),
    "sd2-epsilon": lambda folder: tiny.save_sd2(folder, prediction_type="epsilon"),
    "sd1-inpaint": lambda folder: tiny.save_inpaint(folder, "sd1"),
    "sd2-inpaint": lambda folder: tiny.save_inpaint(folder, "sd2"),
    "sdxl-inpaint": lambda folder: tiny.save_inpaint(folder, "sdxl"),
    "edm": lambda folder: tiny.save_edm(folder),
    "sdxl-zero-snr": lambda folder: tiny.save_sdxl(
        folder,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    ),
    "refiner": lambda folder: tiny.save_refiner(folder),
}
FAMILY = {"sd1": "sd1", "sd2": "sd2", "edm": "sdxl", "sdxl": "sdxl", "refiner": "sdxl_refiner"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: save(root / name) for name, save in LAYOUTS.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    return {name: load(folder, device="cpu") for name, folder in folders.items()}


def drawn(model: Model, **values: Any) -> np.ndarray:
    request = GenerateRequest(**{"prompt": "a dog", "steps": 4, "seed": 7, **values})
    (image,) = [e.image for e in draw(model, request) if isinstance(e, GeneratedImage)]
    return np.asarray(image, dtype=int)


def pipeline_of(folder: Path) -> Any:
    made = diffusers.DiffusionPipeline.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def by_diffusers(pipeline: Any, negative: str | None, **extra: Any) -> np.ndarray:
    """The same picture by the pipeline that the folder itself names."""
    source = torch.Generator().manual_seed(7)
    kind = type(pipeline).__name__
    if "Inpaint" in kind:
        grey = torch.zeros(1, 3, 64, 64)
        extra |= {"image": grey, "mask_image": torch.ones(1, 1, 64, 64), "strength": 1.0}
    elif "Img2Img" in kind:
        # noise alone, as for text to image
        pipeline.scheduler.set_timesteps(4)
        extra |= {"image": torch.randn(1, 4, 8, 8, generator=source), "denoising_start": 1e-9}
        extra |= {"original_size": (64, 64), "target_size": (64, 64)}
    else:
        extra |= {"width": 64, "height": 64}
    images = pipeline(
        "a dog",
        negative_prompt=negative,
        num_inference_steps=4,
        generator=source,
        guidance_scale=4.0,
        **extra,
    ).images
    return np.asarray(images[0], dtype=int)


@pytest.mark.parametrize("negative", [None, "a cat"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_draws_what_the_folders_own_pipeline_draws(
    name: str, negative: str | None, folders: dict[str, Path], models: dict[str, Model]
) -> None:
    model, pipeline = models[name], pipeline_of(folders[name])
    assert model.family.name == FAMILY[name.partition("-")[0]]
    ours = drawn(model, guidance_scale=4.0, negative_prompt=negative or "")
    assert np.abs(ours - by_diffusers(pipeline, negative)).max() <= 1


@pytest.mark.parametrize("scheduler", ["euler_a", "dpmpp_2m_karras", "unipc", "heun"])
@pytest.mark.parametrize("name", ["sd2", "sdxl-inpaint", "sdxl-zero-snr"])
def test_other_schedulers_draw_alike(
    name: str, scheduler: str, folders: dict[str, Path], models: dict[str, Model]
) -> None:
    pipeline = pipeline_of(folders[name])
    pipeline.scheduler = make(scheduler, models[name].scheduler_config)
    ours = drawn(models[name], guidance_scale=4.0, scheduler=scheduler)
    assert np.abs(ours - by_diffusers(pipeline, None)).max() <= 1


def test_align_your_steps_draws_what_the_pipeline_draws_with_its_timesteps(
    folders: dict[str, Path], models: dict[str, Model]
) -> None:
    pipeline = pipeline_of(folders["sdxl-zero-snr"])
    pipeline.scheduler = make("dpmpp_2m", models["sdxl-zero-snr"].scheduler_config)
    expected = by_diffusers(
        pipeline, None, timesteps=list(AysSchedules["StableDiffusionXLTimesteps"])
    )
    ours = drawn(models["sdxl-zero-snr"], guidance_scale=4.0, scheduler="dpmpp_2m_ays", steps=10)
    assert np.abs(ours - expected).max() <= 1


@pytest.mark.parametrize(
    ("scheduler", "class_name", "config"),
    [
        ("euler", "EDMEulerScheduler", {}),
        ("EDMEulerScheduler", "EDMEulerScheduler", {}),
        (
            "dpmpp_2m_exponential",
            "EDMDPMSolverMultistepScheduler",
            {"sigma_schedule": "exponential"},
        ),
        ("dpmpp_2m_sde", "EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    ],
)
def test_an_edm_model_draws_with_edms_schedulers(
    scheduler: str, class_name: str, config: dict, folders: dict, models: dict[str, Model]
) -> None:
    pipeline = pipeline_of(folders["edm"])
    pipeline.scheduler = getattr(diffusers, class_name)(**EDM_CONFIG, **config)
    ours = drawn(models["edm"], guidance_scale=4.0, scheduler=scheduler)
    assert np.abs(ours - by_diffusers(pipeline, None)).max() <= 1


def test_an_edm_model_refuses_other_schedulers_and_names_its_own(models: dict[str, Model]) -> None:
    with pytest.raises(InputError, match=r"DDIM can't draw with .* EDM.*Choices: euler, dpmpp_2m"):
        drawn(models["edm"], scheduler="ddim")


def test_a_model_says_what_it_predicts_and_takes(models: dict[str, Model]) -> None:
    told = {name: (model.prediction_type, model.extra_channels) for name, model in models.items()}
    assert told == {
        "sd2": ("v_prediction", 0),
        "sd2-epsilon": ("epsilon", 0),
        "sd1-inpaint": ("epsilon", 5),
        "sd2-inpaint": ("v_prediction", 5),
        "sdxl-inpaint": ("epsilon", 5),
        "edm": ("edm", 0),
        "sdxl-zero-snr": ("v_prediction", 0),
        "refiner": ("epsilon", 0),
    }
    assert {model.latent_channels for model in models.values()} == {4}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edms_coefficients_are_diffusers(prediction: str) -> None:
    scheduler = diffusers.EDMEulerScheduler(**EDM_CONFIG, prediction_type=prediction)
    latents, output = torch.randn(2, 3, 4, 8, 8)
    sigma = torch.tensor([0.01, 0.7, 60.0]).view(3, 1, 1, 1)
    c_in, c_noise, c_skip, c_out = edm_coefficients(scheduler.config, sigma)
    assert torch.allclose(c_in * latents, scheduler.precondition_inputs(latents, sigma))
    assert torch.allclose(c_noise, scheduler.precondition_noise(sigma))
    denoised = scheduler.precondition_outputs(latents, output, sigma)
    assert torch.allclose(c_skip * latents + c_out * output, denoised)


def test_latents_are_scaled_by_channel_and_back(models: dict[str, Model]) -> None:
    config = models["edm"].vae.config
    latents = torch.randn(1, 4, 8, 8)
    assert torch.allclose(unscaled(config, scaled(config, latents)), latents, atol=1e-5)
    assert scaled(config, torch.ones(1, 4, 1, 1))[0, 1].item() == pytest.approx(
        (1 - 1.886) * 0.5 / 5.9022
    )


@pytest.mark.parametrize("name", ["sd2", "sd2-inpaint", "sdxl-inpaint", "edm", "refiner"])
def test_a_single_file_of_any_family_has_its_folders_weights(
    name: str, models: dict[str, Model], tmp_path: Path
) -> None:
    reference, file = models[name], tmp_path / "model.safetensors"
    metadata = {CONFIGS_KEY: json.dumps(configs_of(reference)), "modelspec.resolution": "64x64"}
    save_file(single_file_state(reference), file, metadata=metadata)
    loaded = load(file, device="cpu")
    assert_equal(loaded, reference)
    assert loaded.prediction_type == reference.prediction_type
    assert (loaded.native_size, loaded.extra_channels) == (64, reference.extra_channels)
    noise = torch.randn(1, 4, 8, 8)
    assert torch.equal(scaled(loaded.vae.config, noise), scaled(reference.vae.config, noise))
    assert describe(file).family == describe(reference.card.path).family == loaded.family.title


def single_file_state(model: Model) -> dict[str, torch.Tensor]:
    """The model in the original layout, with what its family's originals carry beside."""
    state = ldm_state(model.parts, model.family.name)
    if model.prediction_type == "edm":
        for key in ("mean", "std"):
            state[f"edm_{key}"] = torch.tensor(model.vae.config[f"latents_{key}"]).view(1, 4, 1, 1)
    return state


def test_epsilon_and_velocity_are_told_apart_by_asking(models: dict[str, Model]) -> None:
    """A UNet taught for a moment to give back its input, as epsilon's do at the last timestep."""
    torch.manual_seed(0)
    unet = tiny.unet(16, attention_head_dim=4)
    assert predicts_velocity(unet, {})
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-2)
    tokens = torch.zeros(1, 8, 16)
    for _ in range(30):
        latents = torch.randn(1, 4, 16, 16)
        loss = torch.nn.functional.mse_loss(unet(latents, 999, tokens).sample, latents)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not predicts_velocity(unet, {})
