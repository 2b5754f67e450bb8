"""What makes the steps of a run faster, put in while they are made and taken out again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Protocol, Self

import torch
from torch import nn

from tintype.errors import ConfigError
from tintype.runtime.compile import Regions, why_not
from tintype.runtime.graph import Graphed
from tintype.runtime.kernels import channels_last, prefer_attention, tf32
from tintype.runtime.low_rank import LowRank
from tintype.training.methods import method
from tintype.training.places import asks_base
from tintype.training.ranks.shards import SHARDED
from tintype.types import Event, Note, TrainConfig

# Forward passes from which on compiling, which takes a minute or so, is worth it on a GPU.
PAYS_BACK = 2000

Around = tuple[str, Callable[[], AbstractContextManager[None]]]
Tell = Callable[[Event], None]


class Lever(Protocol):
    """Stands in for parts of the UNet's forward pass."""

    name: str

    def put_in(self) -> None: ...

    def take_out(self) -> None: ...


class Speed:
    """The levers of a run, none of them by default; a context in which its steps are made.

    `around` are contexts with their names, which hold throughout; `levers` can be set aside.
    """

    def __init__(self, levers: Sequence[Lever] = (), around: Sequence[Around] = ()) -> None:
        self.levers, self.around = levers, around
        self._entered = ExitStack()

    @property
    def names(self) -> str:
        """All of them: with others, sums are rounded otherwise."""
        return ", ".join([*(name for name, _ in self.around), *(one.name for one in self.levers)])

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            for _, context in self.around:
                entered.enter_context(context())
            for lever in self.levers:
                lever.put_in()
                entered.callback(lever.take_out)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.close()

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """The UNet without levers, for a moment: what is drawn or judged isn't a step."""
        for lever in reversed(self.levers):
            lever.take_out()
        try:
            yield
        finally:
            for lever in self.levers:
                lever.put_in()


def choose(
    config: TrainConfig,
    unet: nn.Module,
    device: torch.device,
    *,
    calls: int,
    tell: Tell,
    backend: str = "inductor",
) -> Speed:
    """The levers that the config asks for, and by default those that pay on this device.

    `calls` are the forward passes to come; `backend` is torch.compile's. What was asked for and
    can't be had in this run is left out, and a Note tells why. Raises ConfigError where compiling
    was asked for and no compiler works.
    """
    ours = config.speed

    def has(field: str, wanted: bool, problem: str | None) -> bool:
        if wanted and problem is not None and field in ours.model_fields_set:
            message = f"speed.{field} {getattr(ours, field)} is left out: {problem}"
            tell(Note(message=message))
        return wanted and problem is None

    on_gpu = device.type == "cuda"
    no_gpu = None if on_gpu else f"that is for a GPU, and this run is on the {device.type}"
    whole = "strategy fsdp spreads the weights" if config.strategy == SHARDED else None
    levers: list[Lever] = []
    around: list[Around] = []
    if has("channels_last", on_gpu if ours.channels_last is None else ours.channels_last, whole):
        around.append(("channels_last", partial(channels_last, unet)))
    if has("tf32", ours.tf32, no_gpu):
        around.append(("tf32", tf32))
    if has("attention", ours.attention != "auto", no_gpu):
        around.append((f"attention {ours.attention}", partial(prefer_attention, ours.attention)))
    if has("compile", _wants_compile(config, device, calls), whole) and _can_compile(
        config, device, backend
    ):
        levers.append(Regions(unet, several_shapes=config.data.buckets, backend=backend))
    elif whole is None and (low_rank := LowRank(unet)).layers:
        levers.append(low_rank)
    if has("cuda_graph", ours.cuda_graph, no_gpu or whole or _ungraphed(config)):
        levers.append(Graphed(unet))
    return Speed(levers, around)


def _wants_compile(config: TrainConfig, device: torch.device, calls: int) -> bool:
    """Whether it was asked for, or pays where nothing was said: a GPU, many steps, one shape."""
    asked = config.speed.compile
    pays = device.type == "cuda" and calls >= PAYS_BACK and not config.data.buckets
    return pays if asked is None else asked


def _can_compile(config: TrainConfig, device: torch.device, backend: str) -> bool:
    """Raises ConfigError if it was asked for and can't be."""
    problem = why_not(device, backend)
    if problem is not None and config.speed.compile:
        raise ConfigError(
            f"torch can't compile here ({problem})", field="speed.compile", value=True
        )
    return problem is None


def _ungraphed(config: TrainConfig) -> str | None:
    """Why a step of this run can't be replayed, if it can't."""
    problems = {
        "gradients are summed (accumulate)": config.accumulate > 1,
        "activations are computed twice (memory.gradient_checkpointing)": (
            config.memory.gradient_checkpointing
        ),
        "pictures have several shapes (data.buckets)": config.data.buckets,
        "the base is asked too (prior.source model, prior.distill)": asks_base(config),
        "dropout is drawn anew each step (adapter.dropout)": config.adapter.dropout > 0,
        "prompts are encoded at each step, with gradients": (
            method(config.method).encodes_each_step(config)
        ),
        "it is for one device (devices)": config.devices != 1 or config.nodes > 1,
    }
    return next((problem for problem, holds in problems.items() if holds), None)
