"""What a run will take: memory by parts and phases, time, and what would fit if it doesn't."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tintype.models.load import load
from tintype.runtime.memory import free_memory
from tintype.training.methods import method
from tintype.training.methods.narrow import PURE
from tintype.training.objective import check_loss
from tintype.training.optim import OPTIMIZERS, check_optimizer
from tintype.training.place import Place
from tintype.training.plan.count import Counted, count_run
from tintype.training.plan.shadow import shadow
from tintype.training.plan.timing import Pace, estimated_pace, measured_pace
from tintype.training.ranks.shards import SHARDED
from tintype.training.resolve import resolve
from tintype.types import TrainConfig

SMALL = 100e6  # parameters of a UNet whose step is timed rather than estimated
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a run: the most memory that it takes on the device (bytes), and its seconds."""

    name: str
    memory: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Way:
    """Settings that take less memory, and the peak with them (bytes)."""

    settings: tuple[str, ...]
    peak: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is expected to take, on one device.

    `parts` are bytes in training by what they are for; `free` those that the device has (None:
    not known); `host` what stays in the machine's memory beside a GPU. `step` is seconds of an
    optimiser step, "measured" or "estimated" as `pace` says. `ways` lead to a run that fits, each
    with the ones before it.
    """

    config: TrainConfig
    device: str
    parts: dict[str, int]
    phases: tuple[Phase, ...]
    host: int
    free: int | None
    step: float
    pace: str
    ways: tuple[Way, ...] = ()

    @property
    def peak(self) -> int:
        """The most bytes that the device must have."""
        return max(phase.memory for phase in self.phases)

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def fits(self) -> bool:
        return self.free is None or self.peak <= self.free

    def summary(self) -> str:
        """As a person reads it."""
        config = self.config
        lines = [
            f"{config.method} of {config.model}: {config.steps} steps, batch {config.batch_size}, "
            f"{config.resolution} px, precision {config.precision}, on {self.device}",
            "",
            "memory in training",
            *(f"  {name:<24}{_size(size)}" for name, size in self.parts.items() if size),
            "",
            f"{'phase':<26}{'memory':>10}{'time':>12}",
            *(
                f"  {phase.name:<24}{_size(phase.memory)}{_clock(phase.seconds):>12}"
                for phase in self.phases
            ),
            f"  {'in all':<24}{_size(self.peak)}{_clock(self.seconds):>12}",
            "",
            f"A step takes {_seconds(self.step)} ({self.pace}).",
        ]
        if self.host:
            lines.append(f"The machine's own memory keeps {_size(self.host).strip()} beside it.")
        return "\n".join([*lines, *self._verdict()])

    def _verdict(self) -> Iterator[str]:
        if self.free is None:
            return
        free = _size(self.free).strip()
        if self.fits:
            yield f"It fits: {free} are free on {self.device}."
            return
        yield f"It doesn't fit: {free} are free on {self.device}."
        for way in self.ways:
            settings = " ".join(f"--set {setting}" for setting in way.settings)
            fits = ": fits" if way.peak <= self.free else ""
            yield f"  with {settings}: {_size(way.peak).strip()}{fits}"
        if not self.ways or self.ways[-1].peak > self.free:
            yield "  Then a smaller resolution, a smaller base, or a larger device."


def plan_run(config: TrainConfig, *, device: str = "auto", runs_dir: Path = Path("runs")) -> Plan:
    """What `fit` of `config` would take; nothing is started, written or downloaded.

    Pictures needn't be there yet. Raises as `fit` does for what is wrong with the config.
    """
    kind = method(config.method)
    check_loss(config.loss)
    check_optimizer(config)
    place = Place.of(config, device)
    model, is_here = shadow(config.model)
    whole = resolve(_with_pictures(config), model, runs_dir=runs_dir)
    kind.check(model, whole)
    counted = count_run(model, whole, cpu=place.accelerator == "cpu")
    if is_here and (counted.parameters <= SMALL or place.accelerator == "cuda"):
        pace = _measured(whole, counted, place)
    else:
        pace = estimated_pace(whole, counted.step, counted.update, place.device)
    made = _planned(whole, counted, pace, place, free_memory(place.device))
    if made.fits:
        return made
    return replace(made, ways=tuple(_ways(whole, made)))


def _measured(config: TrainConfig, counted: Counted, place: Place) -> Pace:
    """The time of real steps, where the device has room for them."""
    free = free_memory(place.device)
    if free is not None and counted.peak(config) > free:
        return estimated_pace(config, counted.step, counted.update, place.device)
    model = load(config.model, device="cpu", dtype=torch.float32, offline=True)
    return measured_pace(model, config, counted.step, place.device)


def _planned(
    config: TrainConfig, counted: Counted, pace: Pace, place: Place, free: int | None
) -> Plan:
    assert config.steps is not None, "a resolved config"
    memory = counted.memory
    seconds = counted.seconds(config, pace)
    training = counted.training
    if place.accelerator == "cpu":
        training = {**training, "the other parts": counted.others}
    return Plan(
        config=config,
        device=str(place.device),
        parts=training,
        phases=tuple(
            Phase(name=name, memory=memory[name], seconds=seconds[name]) for name in seconds
        ),
        host=0 if place.accelerator == "cpu" else counted.others,
        free=free,
        step=pace.step,
        pace=pace.how,
    )


def _ways(config: TrainConfig, plan: Plan) -> Iterator[Way]:
    """What would take less, one thing after the other, until it fits."""
    settings: tuple[str, ...] = ()
    peak = plan.peak
    for setting, change in CHANGES:
        changed = change(config)
        if changed is None:
            continue
        model, _ = shadow(config.model)
        lower = count_run(model, changed, cpu=plan.device == "cpu").peak(changed)
        if lower >= peak:
            continue
        settings, peak, config = (*settings, setting), lower, changed
        yield Way(settings=settings, peak=peak)
        if plan.free is not None and peak <= plan.free:
            return


def _fewer_rows(config: TrainConfig) -> TrainConfig | None:
    return config.replace(batch_size=1) if (config.batch_size or 1) > 1 else None


def _checkpointing(config: TrainConfig) -> TrainConfig | None:
    if config.memory.gradient_checkpointing:
        return None
    return config.replace(memory={"gradient_checkpointing": True})


def _eight_bits(config: TrainConfig) -> TrainConfig | None:
    return config.replace(optimizer={"name": "adamw-8bit"}) if _plain_adamw(config) else None


def _plain_adamw(config: TrainConfig) -> bool:
    return config.optimizer.name == "adamw" and not config.optimizer.arguments


def _halves(config: TrainConfig) -> TrainConfig | None:
    able = method(config.method).trains_base and OPTIMIZERS[config.optimizer.name].each_alone
    if not able or config.precision == PURE or config.strategy == SHARDED:
        return None
    return config.replace(precision=PURE)


def _half_base(config: TrainConfig) -> TrainConfig | None:
    trains_base = method(config.method).trains_base
    if trains_base or config.memory.base_precision != "32":
        return None
    return config.replace(memory={"base_precision": "bf16"})


def _lora(config: TrainConfig) -> TrainConfig | None:
    if config.method != "dreambooth":
        return None
    precision = "bf16-mixed" if config.precision == PURE else config.precision
    return config.replace(method="lora", precision=precision)


# Those first that change least of what comes out.
CHANGES: tuple[tuple[str, Callable[[TrainConfig], TrainConfig | None]], ...] = (
    ("memory.gradient_checkpointing=true", _checkpointing),
    ("batch_size=1", _fewer_rows),
    ("optimizer.name=adamw-8bit", _eight_bits),
    ("memory.base_precision=bf16", _half_base),
    (f"precision={PURE}", _halves),
    ("method=lora", _lora),
    ("memory.base_precision=bf16", _half_base),
)


def _with_pictures(config: TrainConfig) -> TrainConfig:
    """A config that has a subject, be it none that exists."""
    missing = {"pictures": Path("pictures"), "class_noun": "subject"}
    if config.subjects:
        return config
    given = {name: value for name, value in missing.items() if getattr(config, name) is None}
    return config.replace(**given) if given else config


def _size(number: int) -> str:
    return f"{number / GB:7.2f} GB"


def _seconds(number: float) -> str:
    return f"{number:.2f} s" if number >= 1 else f"{1000 * number:.0f} ms"


def _clock(number: float) -> str:
    minutes, seconds = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
