"""Names to rows, and rows to schedulers."""

import subprocess
import sys

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_utils import AysSchedules

from tests.tiny import scheduler as tiny_scheduler
from tintype.errors import InputError
from tintype.schedulers import ROWS, all_names, canonical, names, row
from tintype.schedulers.make import make, seed_brownian, start, step_arguments


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ddim", "ddim"),
        ("Euler a", "euler_a"),
        ("Euler ancestral", "euler_a"),
        ("k_euler_ancestral", "euler_a"),
        ("DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("dpm++_2m_karras", "dpmpp_2m_karras"),
        ("DPM++ 2M", "dpmpp_2m"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("dpm++ sde", "dpmpp_sde"),
        ("UniPCMultistepScheduler", "unipc"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("LMSDiscrete", "lms"),
        (" lcm ", "lcm"),
        ("Euler Beta", "euler_beta"),
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde_exponential"),
        ("DPM++ 2M Align Your Steps", "dpmpp_2m_ays"),
        ("DPM2 a Karras", "dpm2_a_karras"),
        ("k_dpmpp_2m_ka", "dpmpp_2m_karras"),
        ("Euler SGM Uniform", "euler_sgm_uniform"),
        ("euler_simple", "euler_sgm_uniform"),
        ("Euler a Uniform", "euler_a_normal"),
        ("EDMEulerScheduler", "euler"),
        ("UniPC Karras", "unipc_karras"),
    ],
)
def test_the_names_that_people_use(given: str, expected: str) -> None:
    assert canonical(given) == expected


def test_no_name_means_two_rows() -> None:
    for entry in ROWS:
        for alias in (entry.name, entry.title, *entry.aliases):
            assert canonical(alias) == entry.name, alias
    assert [canonical(name) for name in all_names()] == all_names()
    assert [canonical(row(name).title) for name in all_names()] == all_names()


def test_an_unknown_name_gets_the_nearest_and_all_choices() -> None:
    with pytest.raises(InputError, match="Did you mean euler_a") as caught:
        canonical("euler_aa")
    assert caught.value.choices == names()
    with pytest.raises(InputError, match=r"dpmpp_2m_karras.*_karras, _exponential, _beta"):
        canonical("dpmpp_2m_karas")


def test_a_spacing_that_a_sampler_cannot_take_is_refused_with_those_it_takes() -> None:
    with pytest.raises(InputError, match=r"DDIM can't be spaced 'Karras'.*ddim_sgm_uniform"):
        canonical("DDIM Karras")
    with pytest.raises(InputError, match=r"LCM can't be spaced 'Beta'"):
        canonical("lcm_beta")


# building a DPM2 takes diffusers a second: one spacing of it will do
NAMES = [name for name in all_names() if not name.startswith("dpm2") or name.endswith("_karras")]


@pytest.mark.parametrize("name", NAMES)
def test_make_equals_from_config(name: str) -> None:
    entry = row(name)
    config = dict(tiny_scheduler(prediction_type="v_prediction").config)
    # as read from a model's file, which doesn't say what was left at its default
    del config["_use_default_values"]
    ours = make(name, config)
    theirs = getattr(diffusers, entry.class_name).from_config(config, **entry.config)

    # from_config also keeps, and doesn't use, what other classes of the model's config take
    skipped = {"_use_default_values"}
    own = {key: value for key, value in ours.config.items() if key not in skipped}
    assert own == {key: theirs.config[key] for key in own}
    # each setting is one that the class knows, but for where a singlestep solver's steps lie
    known = {key: value for key, value in entry.config.items() if key != "timestep_spacing"}
    assert known.items() <= own.items()
    if entry.schedule in ("SGM Uniform", "Uniform", "DDIM uniform"):
        assert own["timestep_spacing"] == entry.config["timestep_spacing"]
    assert torch.equal(ours.betas, theirs.betas)


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_steps_to_a_finite_end(name: str) -> None:
    entry = row(name)
    scheduler = start(name, dict(tiny_scheduler().config), 5)
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 4, 4, generator=source) * scheduler.init_noise_sigma
    seed_brownian(entry, scheduler, [0], latents)
    values = {"eta": 0.5, "s_churn": 1.0, "s_tmin": 0.0, "s_tmax": 99.0, "s_noise": 1.0}
    arguments = step_arguments(entry, [source], {}, values)
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(scaled * 0.1, timestep, latents, **arguments).prev_sample
    assert latents.isfinite().all()


@pytest.mark.parametrize("family", ["StableDiffusion", "StableDiffusionXL"])
def test_align_your_steps_are_the_published_ones_and_more(family: str) -> None:
    config = dict(tiny_scheduler().config)
    published = AysSchedules[f"{family}Timesteps"]
    ten = start("dpmpp_2m_ays", config, 10, aligned=family)
    reference = make("dpmpp_2m", config)
    reference.set_timesteps(timesteps=published)
    assert torch.equal(ten.timesteps, reference.timesteps)
    assert torch.equal(ten.sigmas, reference.sigmas)
    for steps in (1, 5, 20, 50):
        found = start("euler_ays", config, steps, aligned=family).timesteps
        assert len(found) == steps
        assert found[0] > 990
        assert (found[1:] < found[:-1]).all()


def test_churn_reaches_the_sampler_and_changes_what_it_draws() -> None:
    """Against diffusers' own Euler, stepped with the same arguments."""
    config = dict(tiny_scheduler().config)
    del config["_use_default_values"]
    values = {"eta": 0.0, "s_churn": 2.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.1}

    def last(scheduler, arguments: dict) -> torch.Tensor:
        latents = torch.ones(1, 4, 4, 4)
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(scaled * 0.1, timestep, latents, **arguments).prev_sample
        return latents

    def source() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    entry = row("euler")
    ours = last(start("euler", config, 6), step_arguments(entry, [source()], {}, values))
    theirs = diffusers.EulerDiscreteScheduler.from_config(config)
    theirs.set_timesteps(6)
    churn = {name: value for name, value in values.items() if name != "eta"}
    assert torch.equal(ours, last(theirs, {**churn, "generator": source()}))
    calm = step_arguments(entry, [source()], {}, {**values, "s_churn": 0.0})
    assert not torch.equal(ours, last(start("euler", config, 6), calm))


def test_steps_that_a_scheduler_cannot_do_are_refused() -> None:
    config = dict(tiny_scheduler().config)
    with pytest.raises(InputError, match=r"steps 51: LCM takes at most 50"):
        start("lcm", config, 51)
    with pytest.raises(InputError, match="steps"):
        start("ddim", {**config, "num_train_timesteps": 10}, 11)


def test_listing_loads_no_torch() -> None:
    code = "import sys, tintype.schedulers as s; s.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
