"""A request made whole: every None filled in from the model, every value checked against it."""

from collections.abc import Sequence

from tintype.errors import InputError
from tintype.models.model import Model
from tintype.schedulers.make import start
from tintype.schedulers.names import canonical
from tintype.text.grammar import fill_identifier
from tintype.types import SEED_MAX, GenerateRequest


def resolve(model: Model, request: GenerateRequest) -> GenerateRequest:
    """The request as this model draws it: sizes (px), scheduler and model named in full.

    `[V]` stays in the prompts. Raises InputError for a size that isn't a multiple of the model's,
    an unknown scheduler, steps that it can't do or seeds past the largest one; PromptError for
    `[V]` with a model that has no identifier.
    """
    return resolve_all(model, [request])[0]


def resolve_all(model: Model, requests: Sequence[GenerateRequest]) -> list[GenerateRequest]:
    """`resolve` for many."""
    resolved = [_resolve(model, request) for request in requests]
    for scheduler, steps in {(request.scheduler, request.steps) for request in resolved}:
        start(scheduler, model.scheduler_config, steps)
    return resolved


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
    own = {
        name: value
        for name, value in card.defaults.get("generate", {}).items()
        if name not in request.model_fields_set
    }
    whole = GenerateRequest(**{**request.model_dump(), **own})
    return whole.replace(
        model=card.id,
        width=_side(model, "width", whole.width),
        height=_side(model, "height", whole.height),
        scheduler=canonical(whole.scheduler),
    )


def _side(model: Model, field: str, value: int | None) -> int:
    """A side in pixels that the model can draw."""
    if value is None:
        return model.native_size
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
