"""The schedulers by name: data only, so that listing them imports nothing.

diffusers' own classes do the stepping; a row says which class, and what differs about it.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scheduler.

    `sampler` and `schedule` are its names in A1111 ("DPM++ 2M", "Karras"); `config` is laid over
    the model's own scheduler config; `step_arguments` are what its `step` takes beside the
    prediction ("generator", "eta"); `brownian` says that its noise comes from a Brownian tree
    per picture; `max_steps` is the most steps it can do.
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

    @property
    def title(self) -> str:
        """The name that people know: "DPM++ 2M Karras"."""
        return f"{self.sampler} {self.schedule}" if self.schedule else self.sampler


_NOISE = frozenset({"generator"})
_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

ROWS: tuple[Row, ...] = (
    Row(
        name="ddim",
        class_name="DDIMScheduler",
        sampler="DDIM",
        step_arguments=frozenset({"generator", "eta"}),
    ),
    Row(name="pndm", class_name="PNDMScheduler", sampler="PNDM"),
    Row(
        name="plms",
        class_name="PNDMScheduler",
        sampler="PLMS",
        config={"skip_prk_steps": True},
    ),
    Row(name="lms", class_name="LMSDiscreteScheduler", sampler="LMS", aliases=("k_lms",)),
    Row(
        name="lms_karras",
        class_name="LMSDiscreteScheduler",
        sampler="LMS",
        schedule="Karras",
        config=_KARRAS,
        aliases=("k_lms_ka",),
    ),
    Row(name="euler", class_name="EulerDiscreteScheduler", sampler="Euler", aliases=("k_euler",)),
    Row(
        name="euler_a",
        class_name="EulerAncestralDiscreteScheduler",
        sampler="Euler a",
        aliases=("k_euler_a", "k_euler_ancestral"),
        step_arguments=_NOISE,
    ),
    Row(name="heun", class_name="HeunDiscreteScheduler", sampler="Heun", aliases=("k_heun",)),
    Row(
        name="dpmpp_2m",
        class_name="DPMSolverMultistepScheduler",
        sampler="DPM++ 2M",
        aliases=("k_dpmpp_2m", "dpm_solver++", "dpm_solver_multistep"),
        step_arguments=_NOISE,
    ),
    Row(
        name="dpmpp_2m_karras",
        class_name="DPMSolverMultistepScheduler",
        sampler="DPM++ 2M",
        schedule="Karras",
        config=_KARRAS,
        aliases=("k_dpmpp_2m_ka", "dpmpp_2m_ka"),
        step_arguments=_NOISE,
    ),
    Row(
        name="dpmpp_2m_sde",
        class_name="DPMSolverMultistepScheduler",
        sampler="DPM++ 2M SDE",
        config=_SDE,
        aliases=("k_dpmpp_2m_sde",),
        step_arguments=_NOISE,
    ),
    Row(
        name="dpmpp_2m_sde_karras",
        class_name="DPMSolverMultistepScheduler",
        sampler="DPM++ 2M SDE",
        schedule="Karras",
        config={**_SDE, **_KARRAS},
        aliases=("k_dpmpp_2m_sde_ka",),
        step_arguments=_NOISE,
    ),
    Row(
        name="dpmpp_sde",
        class_name="DPMSolverSDEScheduler",
        sampler="DPM++ SDE",
        aliases=("k_dpmpp_sde",),
        brownian=True,
    ),
    Row(
        name="dpmpp_sde_karras",
        class_name="DPMSolverSDEScheduler",
        sampler="DPM++ SDE",
        schedule="Karras",
        config=_KARRAS,
        aliases=("k_dpmpp_sde_ka",),
        brownian=True,
    ),
    Row(name="unipc", class_name="UniPCMultistepScheduler", sampler="UniPC"),
    Row(
        name="ddpm",
        class_name="DDPMScheduler",
        sampler="DDPM",
        step_arguments=_NOISE,
    ),
    Row(
        name="lcm",
        class_name="LCMScheduler",
        sampler="LCM",
        step_arguments=_NOISE,
        max_steps=50,
    ),
)
