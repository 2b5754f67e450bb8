"""The one door for every front: requests in, events and results out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tintype.settings import Settings
from tintype.types import Event, GenerateRequest, TrainConfig, TrainResult

if TYPE_CHECKING:
    from tintype.demo import DemoResult
    from tintype.evaluate.report import Evaluation
    from tintype.models.describe import ModelDescription
    from tintype.models.model import Model

Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of a caller who only wants the result."""


class Service:
    """What tintype does, on one machine and with one person's settings.

    The model used last stays loaded, so that the next request for it starts at once. The heavy
    libraries are imported by the methods that need them: a front that shows help loads none.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loaded: tuple[str, Model] | None = None

    def model(self, name: str, *, emit: Emit = ignore) -> "Model":
        """The model of that name, loaded once; raises ModelError and its kind."""
        if self._loaded is None or self._loaded[0] != name:
            from tintype.models.load import load

            self._loaded = None
            model = load(
                name,
                device=self.settings.device,
                allow_pickle=self.settings.allow_pickle,
                offline=self.settings.offline,
                on_event=emit,
            )
            self._loaded = (name, model)
        return self._loaded[1]

    def generate(self, request: GenerateRequest, *, emit: Emit = ignore) -> Iterator[Event]:
        """Draw: Progress for each step, a GeneratedImage for each picture; close to cancel."""
        from tintype.generation.engine import draw
        from tintype.schedulers import canonical

        canonical(request.scheduler)  # a typing error shouldn't wait for gigabytes to load
        yield from draw(self.model(request.model, emit=emit), request)

    def train(self, config: TrainConfig, *, emit: Emit = ignore) -> TrainResult:
        """Run a training to its end, or until the person interrupts it."""
        from tintype.training.run import fit

        return fit(
            config,
            cache_dir=self.settings.cache_dir,
            runs_dir=self.settings.runs_dir,
            device=self.settings.device,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def resume(self, run: Path, *, emit: Emit = ignore) -> TrainResult:
        """Go on with a run from its last checkpoint."""
        from tintype.training.run import resume

        return resume(
            run,
            cache_dir=self.settings.cache_dir,
            device=self.settings.device,
            allow_pickle=self.settings.allow_pickle,
            offline=self.settings.offline,
            on_event=emit,
        )

    def evaluate(self, run: Path, *, emit: Emit = ignore) -> "Evaluation":
        """Measure a run before and after training, and draw its contact sheet."""
        from tintype.evaluate.report import evaluate_run

        return evaluate_run(run, device=self.settings.device, on_event=emit)

    def demo(self, out: Path, *, emit: Emit = ignore) -> "DemoResult":
        """Train on the bundled subject and show what came of it."""
        from tintype.demo import run_demo

        return run_demo(
            out, cache_dir=self.settings.cache_dir, device=self.settings.device, on_event=emit
        )

    def describe(self, name: str) -> "ModelDescription":
        """What a model is, read off its configs and headers."""
        from tintype.models.describe import describe

        return describe(name)
