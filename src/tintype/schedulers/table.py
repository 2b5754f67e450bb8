"""The samplers by name: data only, so that listing them imports nothing.

diffusers' own classes do the stepping; a row says which class, and what differs about it. Each
row takes some of the spacings of `schedules`: "dpmpp_2m" with "karras" is "dpmpp_2m_karras".
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EdmClass:
    """The class that does the same for models in EDM's parametrisation, and what differs there."""

    class_name: str
    config: dict[str, Any] = field(default_factory=dict)
    step_arguments: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scheduler: a sampler, with or without a spacing of its own.

    `sampler` and `schedule` are its names in A1111 ("DPM++ 2M", "Karras"); `config` is laid over
    the model's own scheduler config; `step_arguments` are what its `step` takes beside the
    prediction ("generator", "eta", "s_churn"…); `brownian` says that its noise comes from a
    Brownian tree per picture; `max_steps` is the most steps it can do; `spacings` are those that
    it can take; `aligned` says that its timesteps come from a table of the family's; `edm` is
    None where it can't draw with an EDM model.
    """

    name: str
    class_name: str
    sampler: str
    schedule: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    step_arguments: frozenset[str] = frozenset()
    brownian: bool = False
    max_steps: int | None = None
    spacings: tuple[str, ...] = ()
    aligned: bool = False
    edm: EdmClass | None = None

    @property
    def title(self) -> str:
        """The name that people know: "DPM++ 2M Karras"."""
        return f"{self.sampler} {self.schedule}" if self.schedule else self.sampler


_NOISE = frozenset({"generator"})
_CHURN = frozenset({"generator", "s_churn", "s_tmin", "s_tmax", "s_noise"})
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_SPACED = ("sgm_uniform", "normal", "ddim_uniform")
_SIGMAS = ("karras", "exponential", "beta")
_EDM_MULTISTEP = "EDMDPMSolverMultistepScheduler"
_MULTISTEP = "DPMSolverMultistepScheduler"

ROWS: tuple[Row, ...] = (
    Row(
        name="ddim",
        class_name="DDIMScheduler",
        sampler="DDIM",
        step_arguments=frozenset({"generator", "eta"}),
        spacings=_SPACED,
    ),
    Row(name="pndm", class_name="PNDMScheduler", sampler="PNDM", spacings=_SPACED),
    Row(
        name="plms",
        class_name="PNDMScheduler",
        sampler="PLMS",
        config={"skip_prk_steps": True},
        spacings=_SPACED,
    ),
    Row(
        name="lms",
        class_name="LMSDiscreteScheduler",
        sampler="LMS",
        aliases=("k_lms",),
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="euler",
        class_name="EulerDiscreteScheduler",
        sampler="Euler",
        aliases=("k_euler", "EDMEulerScheduler"),
        step_arguments=_CHURN,
        spacings=(*_SIGMAS, "ays", *_SPACED),
        edm=EdmClass(class_name="EDMEulerScheduler", step_arguments=_CHURN),
    ),
    Row(
        name="euler_a",
        class_name="EulerAncestralDiscreteScheduler",
        sampler="Euler a",
        aliases=("k_euler_a", "k_euler_ancestral"),
        step_arguments=_NOISE,
        spacings=_SPACED,
    ),
    Row(
        name="heun",
        class_name="HeunDiscreteScheduler",
        sampler="Heun",
        aliases=("k_heun",),
        spacings=(*_SIGMAS, "ays", *_SPACED),
    ),
    Row(
        name="dpm2",
        class_name="KDPM2DiscreteScheduler",
        sampler="DPM2",
        aliases=("k_dpm_2",),
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="dpm2_a",
        class_name="KDPM2AncestralDiscreteScheduler",
        sampler="DPM2 a",
        aliases=("k_dpm_2_a", "k_dpm_2_ancestral", "dpm_2_ancestral"),
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="dpmpp_2s",
        class_name="DPMSolverSinglestepScheduler",
        sampler="DPM++ 2S",
        aliases=("dpm_solver_singlestep",),
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, "ays"),
    ),
    Row(
        name="dpmpp_2m",
        class_name=_MULTISTEP,
        sampler="DPM++ 2M",
        aliases=("k_dpmpp_2m", "dpm_solver++", "dpm_solver_multistep", _EDM_MULTISTEP),
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, "lu", "ays", *_SPACED),
        edm=EdmClass(class_name=_EDM_MULTISTEP, step_arguments=_NOISE),
    ),
    Row(
        name="dpmpp_2m_sde",
        class_name=_MULTISTEP,
        sampler="DPM++ 2M SDE",
        config=_SDE,
        aliases=("k_dpmpp_2m_sde",),
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, "lu", "ays", *_SPACED),
        edm=EdmClass(class_name=_EDM_MULTISTEP, config=_SDE, step_arguments=_NOISE),
    ),
    Row(
        name="dpmpp_3m",
        class_name=_MULTISTEP,
        sampler="DPM++ 3M",
        config={"solver_order": 3},
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, "lu", "ays", *_SPACED),
        edm=EdmClass(class_name=_EDM_MULTISTEP, config={"solver_order": 3}, step_arguments=_NOISE),
    ),
    Row(
        name="dpmpp_3m_sde",
        class_name=_MULTISTEP,
        sampler="DPM++ 3M SDE",
        config={"solver_order": 3, **_SDE},
        aliases=("k_dpmpp_3m_sde",),
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, "lu", "ays", *_SPACED),
    ),
    Row(
        name="dpmpp_sde",
        class_name="DPMSolverSDEScheduler",
        sampler="DPM++ SDE",
        aliases=("k_dpmpp_sde",),
        step_arguments=frozenset({"s_noise"}),
        brownian=True,
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="unipc",
        class_name="UniPCMultistepScheduler",
        sampler="UniPC",
        aliases=("uni_pc",),
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="deis",
        class_name="DEISMultistepScheduler",
        sampler="DEIS",
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="sa_solver",
        class_name="SASolverScheduler",
        sampler="SA-Solver",
        step_arguments=_NOISE,
        spacings=(*_SIGMAS, *_SPACED),
    ),
    Row(
        name="ddpm",
        class_name="DDPMScheduler",
        sampler="DDPM",
        step_arguments=_NOISE,
        spacings=("ays", *_SPACED),
    ),
    Row(
        name="lcm",
        class_name="LCMScheduler",
        sampler="LCM",
        step_arguments=_NOISE,
        max_steps=50,
    ),
    Row(
        name="tcd",
        class_name="TCDScheduler",
        sampler="TCD",
        step_arguments=frozenset({"generator", "eta"}),
        max_steps=50,
    ),
)
