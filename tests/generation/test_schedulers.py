"""Names to rows, and rows to schedulers."""

import subprocess
import sys

import diffusers
import pytest
import torch

from tests.tiny import scheduler as tiny_scheduler
from tintype.errors import InputError
from tintype.schedulers import ROWS, canonical, names
from tintype.schedulers.make import make, start


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
    ],
)
def test_the_names_that_people_use(given: str, expected: str) -> None:
    assert canonical(given) == expected


def test_no_name_means_two_rows() -> None:
    for row in ROWS:
        for alias in (row.name, row.title, *row.aliases):
            assert canonical(alias) == row.name, alias


def test_an_unknown_name_gets_the_nearest_and_all_choices() -> None:
    with pytest.raises(InputError, match="Did you mean euler_a") as caught:
        canonical("euler_aa")
    assert caught.value.choices == names()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_make_equals_from_config(row) -> None:
    config = dict(tiny_scheduler(prediction_type="v_prediction").config)
    # as read from a model's file, which doesn't say what was left at its default
    del config["_use_default_values"]
    ours = make(row.name, config)
    theirs = getattr(diffusers, row.class_name).from_config(config, **row.config)

    # from_config also keeps, and doesn't use, what other classes of the model's config take
    skipped = {"_use_default_values"}
    own = {key: value for key, value in ours.config.items() if key not in skipped}
    assert own == {key: theirs.config[key] for key in own}
    assert torch.equal(ours.betas, theirs.betas)


def test_steps_that_a_scheduler_cannot_do_are_refused() -> None:
    config = dict(tiny_scheduler().config)
    with pytest.raises(InputError, match=r"steps 51: LCM takes at most 50"):
        start("lcm", config, 51)
    with pytest.raises(InputError, match="steps"):
        start("ddim", {**config, "num_train_timesteps": 10}, 11)


def test_listing_loads_no_torch() -> None:
    code = "import sys, tintype.schedulers as s; s.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
