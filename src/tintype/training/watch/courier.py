"""What a logger is told, in a thread of its own, so that no step waits for one."""

import importlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from tintype.errors import StorageError
from tintype.training.watch.likeness import Sample
from tintype.training.watch.loggers import FINISH_SECONDS, LOGGERS, REACH_SECONDS, Sink, Told

Call = Callable[[Sink], None]


class Courier:
    """One logger: opened, told and finished in a thread; what goes wrong there is said once."""

    def __init__(self, name: str, told: Told) -> None:
        self.spec, self.told = LOGGERS[name], told
        self.calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.ok = True
        self.thread = threading.Thread(target=self._work, name=f"logger-{name}", daemon=True)
        self.thread.start()

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """The figures of a step, in time."""
        self._tell(lambda sink: sink.row(step, values))

    def pictures(self, step: int, samples: Sequence[Sample]) -> None:
        """The samples of a step, in time."""
        self._tell(lambda sink: sink.pictures(step, samples))

    def close(self, ok: bool) -> None:
        """Finish the logger, or leave it behind if it takes too long; `ok` if training ended
        well."""
        self.ok = ok
        self.calls.put(None)
        self.thread.join(FINISH_SECONDS + REACH_SECONDS)
        if self.thread.is_alive():
            self.told.say(f"{self.spec.title} doesn't answer: metrics.csv has all figures")

    def _tell(self, call: Call) -> None:
        if self.thread.is_alive():
            self.calls.put(call)

    def _work(self) -> None:
        try:
            sink = self.spec.open(self.told)
            while (call := self.calls.get()) is not None:
                call(sink)
            sink.finish(self.ok)
        except self._errors() as error:
            self.told.say(
                f"{self.spec.title} failed ({error}): training goes on, and metrics.csv has all "
                "figures"
            )

    def _errors(self) -> tuple[type[Exception], ...]:
        """What may go wrong in a logger; looked up when it has, as that takes its import."""
        if self.spec.error is None:
            return OSError, StorageError
        module, name = self.spec.error.split(":")
        return OSError, StorageError, getattr(importlib.import_module(module), name)
