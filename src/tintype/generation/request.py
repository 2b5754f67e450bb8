"""A request made whole: every None filled in from the model, every value checked against it."""

from collections.abc import Sequence
from typing import Any

from tintype.errors import InputError
from tintype.generation.modes import check_modes, shape_of
from tintype.generation.sizes import size_of
from tintype.models.model import Model
from tintype.schedulers.edm import own_scheduler
from tintype.schedulers.make import start
from tintype.schedulers.names import canonical
from tintype.text.grammar import fill_identifier
from tintype.types import SEED_MAX, GenerateRequest
from tintype.types.generate import SIDE_MAX

_SIZE = {"width", "height", "aspect"}


def resolve(model: Model, request: GenerateRequest) -> GenerateRequest:
    """The request as this model draws it: sizes (px), scheduler and model named in full, quality
    tags in the prompt.

    `[V]` stays in the prompts. Raises InputError for a size that isn't a multiple of the model's,
    an unknown scheduler, steps that it can't do or seeds past the largest one; PromptError for
    `[V]` with a model that has no identifier.
    """
    return resolve_all(model, [request])[0]


def resolve_all(model: Model, requests: Sequence[GenerateRequest]) -> list[GenerateRequest]:
    """`resolve` for many."""
    resolved = [_resolve(model, request) for request in requests]
    for scheduler, steps in {(request.scheduler, request.steps) for request in resolved}:
        start_for(model, scheduler, steps)
    return resolved


def start_for(model: Model, scheduler: str, steps: int) -> Any:
    """That scheduler for that model, on its device, with its timesteps set."""
    return start(
        scheduler,
        model.scheduler_config,
        steps,
        device=model.device,
        aligned=model.family.align_your_steps,
    )


def sampling(request: GenerateRequest) -> dict[str, float]:
    """What a request says of noise during the steps; each scheduler takes what it can use."""
    return {
        "eta": request.eta,
        "s_churn": request.s_churn,
        "s_tmin": request.s_tmin,
        "s_tmax": float("inf") if request.s_tmax is None else request.s_tmax,
        "s_noise": request.s_noise,
    }


def sides(request: GenerateRequest) -> tuple[int, int]:
    """Width and height (px) of a resolved request."""
    if request.width is None or request.height is None:
        raise ValueError("the request is not resolved")
    return request.width, request.height


def _resolve(model: Model, request: GenerateRequest) -> GenerateRequest:
    card = model.card
    for prompt in (request.prompt, request.negative_prompt):
        fill_identifier(prompt, card.identifier, model=card.id)
    last_seed = request.seed + request.num_images - 1
    if last_seed > SEED_MAX:
        raise InputError(
            f"with {request.num_images} pictures the last seed would be {last_seed}, "
            f"and the largest is {SEED_MAX}",
            field="seed",
            value=request.seed,
        )
    whole = GenerateRequest(**{**request.model_dump(), **_own(model, request)})
    check_modes(whole)
    width, height = whole.width, whole.height
    if whole.aspect is not None:
        width, height = size_of(model, whole.aspect)
    elif whole.image is not None and request.width is None and request.height is None:
        width, height = size_of(model, shape_of(whole))
    tags = card.preset.quality_tags if card.preset and whole.quality else ""
    return whole.replace(
        prompt=", ".join(filter(None, (whole.prompt, tags))),
        model=card.id,
        width=_side(model, "width", width),
        height=_side(model, "height", height),
        aspect=None,
        quality=False,
        scheduler=canonical(whole.scheduler),
    )


def _own(model: Model, request: GenerateRequest) -> dict[str, Any]:
    """The model's own defaults, for the fields that the request doesn't give."""
    given = {name for name in request.model_fields_set if getattr(request, name) is not None}
    if given & _SIZE:
        given |= _SIZE
    defaults = model.card.defaults.get("generate", {})
    own = {name: value for name, value in defaults.items() if name not in given}
    if "scheduler" not in given | own.keys():
        # an EDM model can't take the usual one
        own["scheduler"] = own_scheduler(model.scheduler_config) or request.scheduler
    return own


def _side(model: Model, field: str, value: int | None) -> int:
    """A side in pixels that the model can draw."""
    if value is None:
        return min(model.native_size, SIDE_MAX)
    multiple = model.size_multiple
    if value % multiple == 0:
        return value
    below = value // multiple * multiple
    near = [side for side in (below, below + multiple) if side > 0]
    raise InputError(
        f"is not a multiple of {multiple} for model {model.card.id!r}; "
        f"nearest: {' or '.join(map(str, near))}",
        field=field,
        value=value,
    )
