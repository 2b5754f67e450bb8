"""The Python front: functions over a Service made from the person's settings."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tintype.service import Service, ignore
from tintype.settings import load_settings
from tintype.types import (
    Event,
    GeneratedImage,
    GenerateRequest,
    SweepConfig,
    TrainConfig,
    TrainResult,
)

if TYPE_CHECKING:
    from tintype.sweeping.run import SweepResult


@cache
def _service() -> Service:
    return Service(load_settings())


def generate(prompt: str | GenerateRequest, **fields: Any) -> list[GeneratedImage]:
    """Draw pictures: a request, or a prompt with a GenerateRequest's fields.

    Raises ConfigError, PromptError or ModelError for what can't be drawn.
    """
    return [event for event in watch(prompt, **fields) if isinstance(event, GeneratedImage)]


def watch(prompt: str | GenerateRequest, **fields: Any) -> Iterator[Event]:
    """`generate` as it happens: Progress a step, a GeneratedImage a picture."""
    if isinstance(prompt, GenerateRequest):
        request = prompt.replace(**fields) if fields else prompt
    else:
        request = GenerateRequest(prompt=prompt, **fields)
    return _service().generate(request)


def train(config: TrainConfig, *, on_event: Callable[[Event], None] = ignore) -> TrainResult:
    """Teach a model a subject; `on_event` hears Progress and Notes.

    Raises ConfigError, PictureError, ModelError, RunError, StorageError or TrainingError.
    """
    return _service().train(config, emit=on_event)


def sweep(config: SweepConfig, *, on_event: Callable[[Event], None] = ignore) -> "SweepResult":
    """Train with many settings, measure each and rank them; `on_event` hears of each trial.

    Raises ConfigError, RunError, StorageError or Interrupted.
    """
    return _service().sweep(config, emit=on_event)
