"""The passes of the denoising loop that a request takes, and how many evaluations each has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tintype.errors import ConfigError
from tintype.generation.request import sides, start_for
from tintype.models.model import Model
from tintype.types import GenerateRequest


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One pass over a batch: the evaluations `first` to `last` of a scheduler with `steps` steps.

    Sizes are in px. `strength` is how much of the picture before is drawn anew, None where the
    latents before are taken as they are.
    """

    model: Model
    width: int
    height: int
    steps: int
    first: int
    last: int
    strength: float | None = None

    @property
    def evaluations(self) -> int:
        """How often the UNet is asked."""
        return self.last - self.first


def stages(model: Model, request: GenerateRequest, refiner: Model | None = None) -> list[Stage]:
    """The passes of a resolved request, in order.

    Raises ConfigError for a refiner that can't read the model's latents.
    """
    width, height = sides(request)
    size = {"width": width, "height": height}
    strength = 1.0 if request.image is None else request.strength
    scheduler = start_for(model, request.scheduler, request.steps)
    last = len(scheduler.timesteps)
    first = first_evaluation(scheduler, request.steps, strength)
    if refiner is not None:
        check_refiner(model, refiner)
        last = max(first, _cut(scheduler, request.refiner_at))
    found = [
        Stage(model=model, steps=request.steps, first=first, last=last, strength=strength, **size)
    ]
    if refiner is not None:
        own = start_for(refiner, request.scheduler, request.steps)
        begin = max(first, _cut(own, request.refiner_at))
        found.append(
            Stage(model=refiner, steps=request.steps, first=begin, last=len(own.timesteps), **size)
        )
    if request.hires is not None:
        found.append(_hires(model, request))
    return found


def first_evaluation(scheduler: Any, steps: int, strength: float) -> int:
    """Where a picture of that strength comes in; as diffusers' image-to-image pipelines."""
    taken = min(int(steps * strength), steps)
    return (steps - taken) * int(scheduler.order)


def begin_at(scheduler: Any, evaluation: int) -> None:
    """Tell a scheduler that counts its steps where it begins; others go by the timestep."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(evaluation)


def hires_size(model: Model, request: GenerateRequest) -> tuple[int, int]:
    """Width and height (px) of the second pass."""
    assert request.hires is not None, "a request with a second pass"
    multiple, scale = model.size_multiple, request.hires.scale
    width, height = (round(side * scale / multiple) * multiple for side in sides(request))
    return width, height


def check_refiner(model: Model, refiner: Model) -> None:
    """Raises ConfigError unless both share their latents."""
    ours, theirs = ((m.latent_channels, m.latent_factor) for m in (model, refiner))
    if ours != theirs or refiner.family.native_size != model.family.native_size:
        raise ConfigError(
            f"refines {refiner.family.title}, but {model.card.id!r} is {model.family.title}",
            field="refiner",
            value=refiner.card.id,
        )


def _hires(model: Model, request: GenerateRequest) -> Stage:
    options = request.hires
    assert options is not None, "a request with a second pass"
    width, height = hires_size(model, request)
    steps = options.steps or request.steps
    scheduler = start_for(model, request.scheduler, steps)
    return Stage(
        model=model,
        width=width,
        height=height,
        steps=steps,
        first=first_evaluation(scheduler, steps, options.strength),
        last=len(scheduler.timesteps),
        strength=options.strength,
    )


def _cut(scheduler: Any, at: float) -> int:
    """The first evaluation after that part of the noise is gone (eDiff-I, arXiv:2211.01324)."""
    trained = scheduler.config.num_train_timesteps
    threshold = round(trained - at * trained)
    count = sum(1 for timestep in scheduler.timesteps.tolist() if timestep >= threshold)
    return -(-count // scheduler.order) * int(scheduler.order)


def counts(found: Sequence[Stage]) -> int:
    """All evaluations of some stages."""
    return sum(stage.evaluations for stage in found)
