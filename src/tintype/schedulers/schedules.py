"""How a sampler's noise levels can be spaced: data only, under A1111's and ComfyUI's names.

What each is in diffusers' words: https://huggingface.co/docs/diffusers/api/schedulers/overview
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One spacing: `config` is laid over a sampler's, `edm` over that of an EDM model's sampler
    (None: those can't); `aligned` says that the timesteps come from a table of the family's."""

    name: str
    title: str
    config: dict[str, Any] = field(default_factory=dict)
    edm: dict[str, Any] | None = None
    aliases: tuple[str, ...] = ()
    aligned: bool = False


SCHEDULES: tuple[Schedule, ...] = (
    Schedule(
        name="karras",
        title="Karras",
        config={"use_karras_sigmas": True},
        edm={"sigma_schedule": "karras"},
        aliases=("ka",),
    ),
    Schedule(
        name="exponential",
        title="Exponential",
        config={"use_exponential_sigmas": True, "timestep_spacing": "linspace"},
        edm={"sigma_schedule": "exponential"},
        aliases=("exp",),
    ),
    Schedule(
        name="beta",
        title="Beta",
        config={"use_beta_sigmas": True, "timestep_spacing": "linspace"},
    ),
    Schedule(name="lu", title="Lu", config={"use_lu_lambdas": True}),
    Schedule(
        name="ays",
        title="Align Your Steps",
        aliases=("align_your_steps", "ays"),
        aligned=True,
    ),
    Schedule(
        name="sgm_uniform",
        title="SGM Uniform",
        config={"timestep_spacing": "trailing"},
        aliases=("simple", "trailing"),
    ),
    Schedule(
        name="normal",
        title="Uniform",
        config={"timestep_spacing": "linspace"},
        aliases=("linspace",),
    ),
    Schedule(
        name="ddim_uniform",
        title="DDIM uniform",
        config={"timestep_spacing": "leading"},
        aliases=("leading",),
    ),
)
BY_NAME = {schedule.name: schedule for schedule in SCHEDULES}
