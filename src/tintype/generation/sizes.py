"""Which size a model draws a shape at, and whether a size suits it; all in pixels."""

import math

from tintype.errors import InputError
from tintype.models.model import Model
from tintype.types import GenerateRequest
from tintype.types.generate import SIDE_MAX

# fine-tunes of models without buckets are trained at multiples of this
STEP = 64
FAR = 2.0


def size_of(model: Model, aspect: str) -> tuple[int, int]:
    """Width and height of the model's native area that come nearest to an aspect ratio ("3:2").

    Of a model whose buckets are known, the nearest bucket.
    """
    across, _, down = aspect.partition(":")
    if not float(across) or not float(down):
        raise InputError("is no shape: both numbers are above 0", field="aspect", value=aspect)
    ratio = float(across) / float(down)
    card = model.card
    buckets = (card.preset.buckets if card.preset else ()) or model.family.buckets
    if buckets and model.native_size == model.family.native_size:
        return min(buckets, key=lambda size: abs(math.log(size[0] / size[1] / ratio)))
    step = max(model.size_multiple, min(STEP, model.native_size // 8))
    width = _rounded(model.native_size * math.sqrt(ratio), step)
    return width, _rounded(model.native_size / math.sqrt(ratio), step)


def size_note(model: Model, request: GenerateRequest) -> str | None:
    """What to say of a resolved request's size if it is far from what the model was trained at."""
    assert request.width is not None, "a resolved request"
    assert request.height is not None, "a resolved request"
    own = model.card.defaults.get("generate", {})
    native = own.get("width", model.native_size) * own.get("height", model.native_size)
    times = request.width * request.height / native
    if 1 / FAR < times < FAR:
        return None
    side = round(math.sqrt(native))
    what = "smaller" if times < 1 else "larger"
    doing = "parts may be cut off or blurred" if times < 1 else "subjects may come twice"
    return (
        f"{request.width}x{request.height} is much {what} than the {side}x{side} that "
        f"{model.card.id} was trained at: {doing}."
    )


def _rounded(side: float, step: int) -> int:
    return min(max(round(side / step), 1) * step, SIDE_MAX // step * step)
