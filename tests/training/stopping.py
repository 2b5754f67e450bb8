"""Runs that end before their end: by the listener, at a step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tintype.training.run import fit, resume
from tintype.types import Event, Note, Progress, TrainConfig, TrainResult


class StopError(Exception):
    """What the test's own `on_event` raises to end a run."""


def stop_after(step: int, events: list[Event] | None = None) -> Callable[[Event], None]:
    """An `on_event` that ends a run after that step; `events` takes what it hears."""

    def on_event(event: Event) -> None:
        if events is not None:
            events.append(event)
        if isinstance(event, Progress) and event.phase == "training" and event.step > step:
            raise StopError

    return on_event


def fit_until(step: int, root: Path, config: TrainConfig) -> Path:
    """A run that was ended after that step."""
    with pytest.raises(StopError):
        fit(config, cache_dir=root / "cache", device="cpu", on_event=stop_after(step))
    assert config.out is not None
    return config.out


def run_resume(root: Path, run: Path, **options: Any) -> tuple[TrainResult, list[str]]:
    """`resume` on the CPU, and the notes that it told."""
    events: list[Event] = []
    result = resume(run, cache_dir=root / "cache", device="cpu", on_event=events.append, **options)
    return result, [event.message for event in events if isinstance(event, Note)]
